//! Making a backup: dump everything under a hidden name, durably, and give it its name.

use std::io::{Cursor, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::companions::{Bundle, Companions};
use super::custom::EntryBorders;
use super::manifest::{self, DatabaseDump, File, Manifest};
use super::name::BackupName;
use super::plan::{DatabasePlan, Plan};
use super::read_back::{self, Counting};
use super::store::{Kind as What, Store};
use crate::archive::{self, Codec, Encrypted, Packing, Part, Stored, StoredReader};
use crate::config::{Compression, Settings};
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Connection, Libraries, Session, pg_dump};
use crate::report::{DecimalBytes, Progress, Silent};
use crate::runtime::{self, Call, Child, Runtime, interrupt};

/// Carries a plan out in `store`, up to the final name; the result has not been read back yet.
///
/// # Errors
/// Whatever the programs or the file system report. The backup's directory then does not exist, and all
/// others are as they were.
pub fn create(
    store: &dyn Store,
    settings: &Settings,
    runtime: &dyn Runtime,
    connection: &Connection,
    plan: &Plan,
    companions: Bundle,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let partial = Partial::make(store, plan.name)?;
    let connection = &connection.clone().to_server(plan.server.major()?);
    let mut writer = Writer { settings, runtime, connection, plan, files: &*partial.files, progress };
    let mut manifest = writer.everything()?;
    manifest.companions = companions.save(&*partial.files)?;
    manifest.save(&*partial.files)?;
    partial.rename(plan.name)?;
    Ok(manifest)
}

/// Removes what killed runs left unfinished; the caller holds the lock, so that nobody is writing there.
///
/// # Errors
/// [`Kind::File`].
pub fn remove_partial(store: &dyn Store) -> Result<Vec<BackupName>> {
    let mut removed = Vec::new();
    for item in store.list()?.into_iter().filter(|item| item.kind == What::Place) {
        if let Some(name) = BackupName::from_partial(&item.name) {
            store.remove(&item.name)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

struct Writer<'a> {
    settings: &'a Settings,
    runtime: &'a dyn Runtime,
    connection: &'a Connection,
    plan: &'a Plan,
    files: &'a dyn Store,
    progress: &'a mut dyn Progress,
}

impl Writer<'_> {
    fn everything(&mut self) -> Result<Manifest> {
        let lock_timeout = self.settings.backup.lock_timeout;
        let major = self.plan.server.major()?;
        let session = Session { runtime: self.runtime, major, connection: self.connection };
        let libraries = Libraries::gather(&session)?;
        self.progress.begin("dumping roles and tablespaces", None);
        let for_all = postgres::set_for_all(&postgres::settings_of_all(&session)?);
        let (globals, _, _) = self.dump(
            &pg_dump::globals(self.connection, lock_timeout),
            for_all,
            &self.plan.globals_file,
            "roles and tablespaces",
            |content, _| read_back::read_through(content, &mut Silent).map(|stored| (stored, Ok(()))),
        )?;
        self.progress.end();
        let databases =
            self.plan.databases.iter().map(|planned| self.database(planned)).collect::<Result<_>>()?;
        Ok(Manifest {
            format: manifest::FORMAT,
            name: self.plan.name,
            writer: concat!("matrix-postgres ", env!("CARGO_PKG_VERSION")).to_owned(),
            finished: Timestamp::now(),
            server: self.plan.server.clone(),
            libraries,
            dump_format: self.plan.format,
            compression: self.plan.compression,
            encryption: self.plan.encryption.as_ref().map(|encryption| manifest::Encrypted {
                method: encryption.method,
                recipients: encryption.recipients.clone(),
            }),
            globals,
            databases,
            omitted: self.plan.omitted.clone(),
            companions: Companions::default(),
            without_passwords: !self.connection.is_superuser(),
            read_back: None,
            trial: None,
        })
    }

    fn database(&mut self, planned: &DatabasePlan) -> Result<DatabaseDump> {
        let DatabasePlan { database, file, estimate } = planned;
        let backup = &self.settings.backup;
        self.progress.begin(&format!("dumping {}", database.name), Some(*estimate));
        let major = self.plan.server.major()?;
        let session = Session { runtime: self.runtime, major, connection: self.connection };
        let properties = postgres::properties(&session, &database.name)?;
        let (started, clock) = (Timestamp::now(), Instant::now());
        let call = pg_dump::database(
            self.connection,
            &database.name,
            self.plan.format,
            &backup.exclude_table_data,
            backup.lock_timeout,
        );
        let counting =
            Counting { format: self.plan.format, major: self.plan.server.major()?, runtime: self.runtime };
        let what = format!("database {:?}", database.name);
        let (dump, parts, contents) = self
            .dump(&call, String::new(), file, &what, |content, path| {
                counting.count(content, path, &mut Silent)
            })
            .map_err(|error| if waited_for_lock(&error) { error.hint(WHO_HOLDS_LOCKS) } else { error })?;
        self.progress.end();
        let milliseconds = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        log::info!(
            DATABASE = database.name, BYTES = dump.bytes, DURATION_MS = milliseconds;
            "dumped database {:?}: {} of SQL in {:.1} s, {} on disk",
            database.name,
            DecimalBytes(dump.content_bytes),
            milliseconds as f64 / 1000.0,
            DecimalBytes(dump.bytes),
        );
        Ok(DatabaseDump {
            database: database.clone(),
            properties,
            dump,
            parts,
            started,
            milliseconds,
            without_rows_of: backup.exclude_table_data.clone(),
            foreign: None,
            contents,
        })
    }

    /// One program's standard output, and `more` after it, into one file. Whole only if the program says so, too, and, if it is encrypted,
    /// only if `read`, which gets the content while it is written, says so as well.
    fn dump<T: Send>(
        &mut self,
        call: &Call,
        more: String,
        file: &str,
        what: &str,
        read: impl FnOnce(StoredReader, &Path) -> Result<(Stored, Result<T>)> + Send,
    ) -> Result<(File, Vec<Part>, Option<T>)> {
        let failed = |error: Error| error.context(format!("could not dump {what}"));
        let mut command = self.runtime.command(self.plan.server.major()?, call)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, call.program).map_err(failed)?;
        let Some(stdout) = child.stdout() else {
            return Err(Error::new(Kind::Bug, "a dump was started without its pipe"));
        };
        archive::enlarge_pipe(&stdout);
        let stdout = stdout.chain(Cursor::new(more));
        let path = self.files.path_of(file);
        let packing = packing(&self.settings.backup);
        let progress = &mut *self.progress;
        let mut advance = |done| {
            progress.advance(done);
            interrupt::check()
        };
        let Some(encryption) = &self.plan.encryption else {
            let mut borders = EntryBorders::default();
            let stored = self.files.create(file);
            let stored = stored
                .and_then(|sink| archive::store_in_parts(sink, stdout, packing, &mut borders, &mut advance));
            let (stored, parts) = stored.map_err(failed)?;
            child.wait().map_err(failed)?;
            let parts = if parts.len() > 1 { parts } else { Vec::new() };
            return Ok((File::new(file, stored), parts, None));
        };
        let sink = self.files.create(file).and_then(|sink| Encrypted::new(sink, encryption));
        let (sink, branch) = archive::tee(sink.map_err(failed)?, packing.codec);
        let (stored, read) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| branch.open().and_then(|reader| read(reader, &path)));
            let stored = archive::store_into(sink, stdout, packing, &mut advance);
            let read = reading.join();
            (stored, read.unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the reading thread panicked"))))
        });
        let stored = match (stored, &read) {
            // Nobody took what was written: the reader knows why.
            (Err(error), Err(_)) if is_broken_pipe(&error) => None,
            (stored, _) => Some(stored.map_err(failed)?),
        };
        if stored.is_some() {
            // Half a dump is damaged in the reader's eyes; the cause is what its producer says.
            child.wait().map_err(failed)?;
        }
        let (found, contents) = read.map_err(failed)?;
        let contents = contents.map_err(failed)?;
        match stored {
            Some(stored) if stored.content == found.content => {
                Ok((File::new(file, stored), Vec::new(), Some(contents)))
            }
            _ => Err(failed(read_back::damaged(
                &path,
                "its decompressed content differs from what was written",
            ))),
        }
    }
}

const WHO_HOLDS_LOCKS: &str = "to see which session holds the lock: matrix-postgres-cli -c \"SELECT a.* FROM pg_catalog.pg_stat_activity a \
    JOIN pg_catalog.pg_locks l USING (pid) WHERE l.mode = 'AccessExclusiveLock'\"; or increase backup.lock_timeout";

/// pg_dump's own words, which are never translated; the server's may be.
fn waited_for_lock(error: &Error) -> bool {
    error.kind() == Kind::Program && error.report().contains("Query was: LOCK TABLE")
}

fn is_broken_pipe(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

pub(super) fn packing(settings: &crate::config::Backup) -> Packing {
    let codec = match settings.compression {
        Compression::Zstd => Codec::Zstd { level: settings.level },
        Compression::Gzip => Codec::Gzip { level: settings.level.cast_unsigned() },
        Compression::None => Codec::None,
    };
    let threads = if settings.threads == 0 { runtime::default_threads() } else { settings.threads };
    Packing { codec, threads, rsyncable: settings.rsyncable }
}

/// A backup before it has its name; removed when dropped.
struct Partial<'a> {
    store: &'a dyn Store,
    /// Nothing once it has its name.
    name: Option<String>,
    files: Arc<dyn Store>,
}

impl<'a> Partial<'a> {
    fn make(store: &'a dyn Store, name: BackupName) -> Result<Self> {
        let name = name.partial();
        store.make(&name)?;
        Ok(Self { store, files: store.within(&name), name: Some(name) })
    }

    fn rename(mut self, to: BackupName) -> Result<()> {
        if let Some(name) = &self.name {
            self.store.rename(name, &to.to_string())?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(error) = self.store.remove(name)
        {
            log::warn!("could not remove the unfinished backup: {}", error.report());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;

    #[test]
    fn only_our_own_unfinished_directories_are_removed() {
        let root = tempfile::tempdir().unwrap();
        for name in [".20261124T030000Z.partial", "20261124T030000Z", ".other.partial"] {
            std::fs::create_dir_all(root.path().join(name).join("x")).unwrap();
        }
        std::fs::write(root.path().join(".20261125T030000Z.partial"), "a file of somebody's").unwrap();
        let removed = remove_partial(&Directory::new(root.path())).unwrap();
        assert_eq!(removed, ["20261124T030000Z".parse().unwrap()]);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 3);
    }
}
