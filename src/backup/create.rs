//! The run: dump everything into a hidden directory, sync it, give it its name, read it back.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use jiff::Timestamp;

use super::manifest::{self, DatabaseDump, File, Manifest, ReadBack};
use super::plan::{DatabasePlan, Plan};
use super::read_back;
use crate::archive::{self, Codec};
use crate::config::{Compression, Settings};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::sync_directory;
use crate::postgres::{Connection, pg_dump};
use crate::report::Progress;
use crate::runtime::{Call, Child, Runtime, interrupt};

/// Carries a plan out, up to the final name; the result has not been read back yet.
///
/// # Errors
/// Whatever the programs or the file system report. The backup's directory then does not exist, and all
/// others are as they were.
pub fn create(
    settings: &Settings,
    runtime: &dyn Runtime,
    connection: &Connection,
    plan: &Plan,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let partial = Partial::make(&plan.directory, plan)?;
    let mut writer = Writer { settings, runtime, connection, plan, directory: &partial.path, progress };
    let manifest = writer.everything()?;
    manifest.save(&partial.path)?;
    partial.rename(&plan.directory.join(plan.name.to_string()))?;
    Ok(manifest)
}

/// Reads the backup in `path` back and records the result, good or bad, in its manifest.
///
/// # Errors
/// [`Kind::Damaged`], once that is recorded. When it could not be read for another reason, a full disk or
/// a signal, nothing is recorded: it is then as little verified as before.
pub fn verify(
    path: &Path,
    mut manifest: Manifest,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    match read_back::read_back(path, &manifest, runtime, progress) {
        Ok(contents) => {
            for (dump, contents) in manifest.databases.iter_mut().zip(contents) {
                dump.contents = Some(contents);
            }
            manifest.read_back = Some(ReadBack { at: Timestamp::now(), damage: None });
            manifest.save(path)?;
            Ok(manifest)
        }
        Err(error) if error.kind() == Kind::Damaged => {
            manifest.read_back = Some(ReadBack { at: Timestamp::now(), damage: Some(error.to_string()) });
            manifest.save(path)?;
            Err(error
                .state("the backup is marked as damaged, and older ones are as they were")
                .hint("make a new one: systemctl start matrix-postgres-backup.service"))
        }
        Err(error) => Err(error),
    }
}

struct Writer<'a> {
    settings: &'a Settings,
    runtime: &'a dyn Runtime,
    connection: &'a Connection,
    plan: &'a Plan,
    directory: &'a Path,
    progress: &'a mut dyn Progress,
}

impl Writer<'_> {
    fn everything(&mut self) -> Result<Manifest> {
        let lock_timeout = self.settings.backup.lock_timeout;
        self.progress.begin("dumping roles and tablespaces", None);
        let globals = self.dump(
            &pg_dump::globals(self.connection, lock_timeout),
            &self.plan.globals_file,
            "roles and tablespaces",
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
            dump_format: self.plan.format,
            compression: self.plan.compression,
            globals,
            databases,
            read_back: None,
        })
    }

    fn database(&mut self, planned: &DatabasePlan) -> Result<DatabaseDump> {
        let DatabasePlan { database, file, estimate } = planned;
        let backup = &self.settings.backup;
        self.progress.begin(&format!("dumping {}", database.name), Some(*estimate));
        let (started, clock) = (Timestamp::now(), Instant::now());
        let call = pg_dump::database(
            self.connection,
            &database.name,
            self.plan.format,
            &backup.exclude_table_data,
            backup.lock_timeout,
        );
        let dump = self
            .dump(&call, file, &format!("database {:?}", database.name))
            .map_err(|error| if waited_for_lock(&error) { error.hint(WHO_HOLDS_LOCKS) } else { error })?;
        self.progress.end();
        let milliseconds = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        log::info!(
            DATABASE = database.name, BYTES = dump.bytes, DURATION_MS = milliseconds;
            "dumped database {:?}: {} of SQL in {:.1} s, {} on disk",
            database.name,
            indicatif::DecimalBytes(dump.content_bytes),
            milliseconds as f64 / 1000.0,
            indicatif::DecimalBytes(dump.bytes),
        );
        Ok(DatabaseDump {
            database: database.clone(),
            dump,
            started,
            milliseconds,
            without_rows_of: backup.exclude_table_data.clone(),
            contents: None,
        })
    }

    /// One program's standard output into one file. Whole only if the program says so, too.
    fn dump(&mut self, call: &Call, file: &str, what: &str) -> Result<File> {
        let failed = |error: Error| error.context(format!("could not dump {what}"));
        let mut command = self.runtime.command(self.plan.server.major()?, call)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Child::spawn(command, call.program).map_err(failed)?;
        let Some(stdout) = child.stdout() else {
            return Err(Error::new(Kind::Bug, "a dump was started without its pipe"));
        };
        archive::enlarge_pipe(&stdout);
        let progress = &mut *self.progress;
        let stored = archive::store(
            stdout,
            codec(&self.settings.backup),
            threads(self.settings.backup.threads),
            &self.directory.join(file),
            &mut |done| {
                progress.advance(done);
                interrupt::check()
            },
        )
        .map_err(failed)?;
        child.wait().map_err(failed)?;
        Ok(File::new(file, stored))
    }
}

const WHO_HOLDS_LOCKS: &str = "who holds the lock: matrix-postgres-cli -c \"SELECT a.* FROM pg_stat_activity a \
    JOIN pg_locks l USING (pid) WHERE l.mode = 'AccessExclusiveLock'\"; or give backup.lock_timeout more";

/// pg_dump's own words, which are never translated; the server's may be.
fn waited_for_lock(error: &Error) -> bool {
    error.kind() == Kind::Program && error.report().contains("Query was: LOCK TABLE")
}

fn threads(configured: usize) -> usize {
    if configured == 0 { archive::default_threads() } else { configured }
}

fn codec(settings: &crate::config::Backup) -> Codec {
    match settings.compression {
        Compression::Zstd => Codec::Zstd { level: settings.level },
        Compression::Gzip => Codec::Gzip { level: settings.level.cast_unsigned() },
        Compression::None => Codec::None,
    }
}

/// A backup's directory before it has its name; removed when dropped.
struct Partial {
    path: PathBuf,
    parent: PathBuf,
}

impl Partial {
    fn make(parent: &Path, plan: &Plan) -> Result<Self> {
        let path = parent.join(plan.name.partial());
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| not_created(error, parent, &path))?;
        Ok(Self { path, parent: parent.to_owned() })
    }

    /// Every file is synced by now; their names are made to last before the directory gets its own.
    fn rename(mut self, name: &Path) -> Result<()> {
        sync_directory(&self.path)?;
        std::fs::rename(&self.path, name).at("rename to its final name", &self.path)?;
        self.path = PathBuf::new();
        sync_directory(&self.parent)
    }
}

/// The unit may write to the default directory only; whoever has configured another one must say so there, too.
fn not_created(error: std::io::Error, parent: &Path, path: &Path) -> Error {
    let read_only = error.kind() == std::io::ErrorKind::ReadOnlyFilesystem;
    let error = Error::io("create", path, error);
    match read_only {
        true => error.hint(format!(
            "systemctl edit matrix-postgres-backup.service, and add [Service] and ReadWritePaths={}",
            parent.display()
        )),
        false => error,
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            log::warn!("could not remove the unfinished {}: {error}", self.path.display());
        }
    }
}
