//! Sends what a target should have and lacks.
//!
//! Files go to their final names and the manifest goes last, once all others are there and were compared: by a hash that the store
//! itself has, or by reading them back. What is there already is not sent again. The local backups are only read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::{Timestamp, ZonedDateTime};

use super::machine::{self, Machine};
use super::plan::{Plan, copies, missing};
use super::record::Record;
use crate::archive;
use crate::backup::catalogue::{self, Entry};
use crate::backup::elsewhere::Elsewhere;
use crate::backup::manifest::{self, File, Manifest};
use crate::backup::name::BackupName;
use crate::backup::prune;
use crate::backup::rclone::{HASHES, Object, Rclone};
use crate::backup::store::Store;
use crate::config::Offsite;
use crate::error::{Error, Kind, Result};
use crate::report::{DecimalBytes, Progress, event};
use crate::runtime::interrupt;

/// Sends to one target.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The backups here.
    pub here: &'a dyn Store,
    /// Where to.
    pub target: &'a Offsite,
    /// The program.
    pub rclone: &'a Arc<Rclone>,
    /// Whose backups they are.
    pub machine: &'a Machine,
    /// Where is recorded what is there, see [`Record`].
    pub records: &'a Path,
}

impl Sending<'_> {
    /// What is to be done now.
    ///
    /// # Errors
    /// [`Kind::Offsite`], [`Kind::File`].
    pub fn plan(&self, now: &ZonedDateTime) -> Result<Plan> {
        let there = self.there()?;
        let here = catalogue::list(self.here)?;
        let copies = copies(&here, &catalogue::list(&there)?);
        let sent = missing(&here, &copies, self.target, now);
        self.plan_of(&there, sent)
    }

    /// Sends all that is missing, and removes what no rule keeps. What has become of it is recorded.
    ///
    /// # Errors
    /// Every kind; whatever has been sent before is there.
    pub fn carry_out(&self, now: &ZonedDateTime, progress: &mut dyn Progress) -> Result<()> {
        let before = Record::load(self.records, self.target).unwrap_or_default().unwrap_or_default();
        let mut record = Record { remote: self.target.remote.clone(), ..before };
        let done = self.there().and_then(|there| {
            record.path = there.path().display().to_string();
            self.send_all(&there, &mut record, now, progress)
        });
        match &done {
            Err(error) if error.kind() == Kind::Interrupted => return done,
            Err(error) => record = record.failed(error, Timestamp::now()),
            Ok(()) => record.failure = None,
        }
        record.save(self.records, self.target)?;
        done
    }

    fn there(&self) -> Result<Elsewhere> {
        let remote = &self.target.remote;
        let directories = machine::directories(&self.rclone.directories(Path::new(remote))?);
        let directory = super::within(remote, &self.machine.directory(&directories));
        Ok(Elsewhere::new(Arc::clone(self.rclone), directory.into(), self.target.append_only))
    }

    fn plan_of(&self, there: &Elsewhere, sent: Vec<BackupName>) -> Result<Plan> {
        let unfinished = there.unfinished()?.into_iter().filter(|(name, _)| !sent.contains(name));
        Ok(Plan {
            target: self.target.name.clone(),
            path: there.path().display().to_string(),
            leftovers: unfinished.filter(|_| !self.target.append_only).collect(),
            sent,
        })
    }

    /// Looks again after each: a backup may have been made meanwhile, and another removed.
    fn send_all(
        &self,
        there: &Elsewhere,
        record: &mut Record,
        now: &ZonedDateTime,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let mut failed: BTreeMap<BackupName, Error> = BTreeMap::new();
        loop {
            interrupt::check()?;
            let here = catalogue::list(self.here)?;
            record.copies = copies(&here, &catalogue::list(there)?);
            record.reached = Some(Timestamp::now());
            record.save(self.records, self.target)?;
            let sent = missing(&here, &record.copies, self.target, now);
            let next = sent.iter().find(|name| !failed.contains_key(*name)).copied();
            let Some(entry) = next.and_then(|next| here.iter().find(|entry| entry.name == next)) else {
                let plan = self.plan_of(there, sent)?;
                self.tidy(there, &plan, record, now)?;
                break;
            };
            let is_listed = record.copies.iter().any(|copy| copy.name == entry.name);
            match self.send(there, entry, is_listed, progress) {
                Ok(sentence) => {
                    log::info!(MESSAGE_ID = event::SENT, BACKUP:display = entry.name, TARGET = self.target.name; "{sentence}");
                }
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                // Pruned meanwhile: it need not be there any more.
                Err(_)
                    if catalogue::find(self.here, Some(&entry.name.to_string()), now.timestamp())
                        .is_err() =>
                {
                    log::info!("backup {} was removed here while it was sent", entry.name);
                }
                Err(error) => drop(failed.insert(entry.name, error)),
            }
        }
        // The newest is what matters; of the others, the log has the reasons.
        match failed.pop_last() {
            None => Ok(()),
            Some((name, error)) => {
                for error in failed.values() {
                    log::error!("{}", error.report());
                }
                let what = format!("backup {name} could not be sent to {}", self.target.name);
                Err(error
                    .context(what)
                    .state("it is not listed there; the backups on this machine are unchanged"))
            }
        }
    }

    /// Removes what no rule keeps, and what others that were interrupted have left.
    fn tidy(&self, there: &Elsewhere, plan: &Plan, record: &mut Record, now: &ZonedDateTime) -> Result<()> {
        if self.target.append_only {
            return Ok(());
        }
        for (name, files) in &plan.leftovers {
            there.within(&name.to_string()).remove_files(files)?;
            there.remove_empty(&name.to_string())?;
            log::info!("removed the rest of {name} from {}, which was not sent completely", plan.path);
        }
        let pruned = prune::carry_out(there, &prune::plan(there, &self.target.keep, now)?)?;
        record.copies.retain(|copy| !pruned.contains(&copy.name));
        Ok(())
    }

    /// Sends a backup, which may be listed there already, and is not good then; returns how, in a sentence.
    fn send(
        &self,
        there: &Elsewhere,
        entry: &Entry,
        is_listed: bool,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        let name = entry.name.to_string();
        let manifest = Manifest::load(&*entry.files)?;
        // It is none until it is made good.
        if is_listed {
            there.within(&name).remove_files(&[manifest::FILE.to_owned()])?;
        }
        let transfer = Transfer {
            rclone: self.rclone,
            here: entry.files.path(),
            there: &there.path().join(&name),
            files: there.within(&name),
            own: self.own(entry, &manifest)?,
        };
        let mut sent = 0;
        for (file, found) in manifest.files().zip(transfer.compare(&manifest, progress)?) {
            interrupt::check()?;
            if found.is_none() {
                progress.begin(
                    &format!("sending {name}/{} to {}", file.file, self.target.name),
                    Some(file.bytes),
                );
                transfer.copy(&file.file)?;
                progress.end();
                sent += 1;
            }
        }
        let found: Option<Vec<_>> = transfer.compare(&manifest, progress)?.into_iter().collect();
        let Some(found) = found else {
            return Err(Error::new(
                Kind::Offsite,
                format!("{} is not what was sent there", transfer.there.display()),
            ));
        };
        transfer.copy(manifest::FILE)?;
        if transfer.read_manifest()? != std::fs::read(transfer.here.join(manifest::FILE)).unwrap_or_default()
        {
            let file = transfer.there.join(manifest::FILE);
            return Err(Error::new(Kind::Offsite, format!("{} is not what was sent there", file.display())));
        }
        let mut ways: Vec<_> = found.iter().map(|way| way.name()).collect();
        ways.sort_unstable();
        ways.dedup();
        Ok(format!(
            "backup {name} is at {}: {} files of {} sent, {}, compared by {}",
            self.target.name,
            sent,
            found.len(),
            DecimalBytes(manifest.bytes()),
            ways.join(" and ")
        ))
    }

    /// The hashes of the files here, which must be those that were written.
    fn own(&self, entry: &Entry, manifest: &Manifest) -> Result<Vec<Object>> {
        let own = self.rclone.hashes(entry.files.path())?;
        for file in manifest.files() {
            let path = entry.files.path_of(&file.file);
            let here = own.iter().find(|object| object.path == file.file);
            if here.and_then(|object| object.hashes.get(HASHES[0])) != Some(&file.sha256) {
                return Err(Error::new(
                    Kind::Damaged,
                    format!("{} is damaged: its SHA-256 checksum does not match", path.display()),
                )
                .hint(format!("matrix-postgres-backup verify {}", entry.name)));
            }
        }
        Ok(own)
    }
}

/// A backup on its way.
struct Transfer<'a> {
    rclone: &'a Rclone,
    here: &'a Path,
    there: &'a Path,
    files: Arc<dyn Store>,
    own: Vec<Object>,
}

/// How a file there was found to be the one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By this one of [`HASHES`].
    Hash(&'static str),
    /// The store has none.
    ReadBack,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Hash("sha256") => "SHA-256",
            Self::Hash("sha1") => "SHA-1",
            Self::Hash(_) => "MD5",
            Self::ReadBack => "reading them back",
        }
    }
}

impl Transfer<'_> {
    fn copy(&self, file: &str) -> Result<()> {
        self.rclone.copy(&self.here.join(file), &self.there.join(file))
    }

    /// For each file of the backup, how it was found to be there whole, if it is.
    fn compare(&self, manifest: &Manifest, progress: &mut dyn Progress) -> Result<Vec<Option<Way>>> {
        let there = self.rclone.hashes(self.there)?;
        let compare = |file: &File| match same(file, &self.own, &there) {
            Same::No => Ok(None),
            Same::By(hash) => Ok(Some(Way::Hash(hash))),
            Same::Unknown => self.read_back(file, progress).map(|same| same.then_some(Way::ReadBack)),
        };
        manifest.files().map(compare).collect()
    }

    fn read_back(&self, file: &File, progress: &mut dyn Progress) -> Result<bool> {
        let path = self.there.join(&file.file);
        progress.begin(&format!("reading back {}", path.display()), Some(file.bytes));
        let found = archive::digest_of(self.rclone.open(&path, 0)?, &path, &mut |done| {
            progress.advance(done);
            interrupt::check()
        })?;
        progress.end();
        Ok(found.sha256 == file.sha256)
    }

    fn read_manifest(&self) -> Result<Vec<u8>> {
        // Not what was there before.
        self.files.remove_files(&[])?;
        Ok(self.files.read(manifest::FILE, manifest::LONGEST)?.unwrap_or_default())
    }
}

/// Whether a file there is the one here.
#[derive(Debug, PartialEq, Eq)]
enum Same {
    No,
    By(&'static str),
    /// It is as long.
    Unknown,
}

fn same(file: &File, own: &[Object], there: &[Object]) -> Same {
    let of = |objects: &[Object]| objects.iter().find(|object| object.path == file.file).cloned();
    let (Some(own), Some(there)) = (of(own), of(there)) else { return Same::No };
    if there.size >= 0 && there.size.cast_unsigned() != file.bytes {
        return Same::No;
    }
    let known =
        |object: &Object, hash: &str| object.hashes.get(hash).filter(|hash| !hash.is_empty()).cloned();
    let both = HASHES.iter().find_map(|hash| Some((*hash, known(&own, hash)?, known(&there, hash)?)));
    match both {
        None => Same::Unknown,
        Some((hash, own, there)) if own == there => Same::By(hash),
        Some(_) => Same::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::example;

    #[test]
    fn the_best_hash_that_both_have_decides() {
        let manifest = example("20261124T030000Z");
        let file = &manifest.globals;
        let object = |size: i64, hashes: &[(&str, &str)]| {
            let hashes = hashes.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect();
            vec![Object { path: file.file.clone(), size, hashes }]
        };
        let own = object(100, &[("sha256", "a"), ("sha1", "b"), ("md5", "c")]);
        assert_eq!(same(file, &own, &[]), Same::No);
        assert_eq!(same(file, &own, &object(99, &[("md5", "c")])), Same::No);
        assert_eq!(same(file, &own, &object(100, &[("md5", "c")])), Same::By("md5"));
        assert_eq!(same(file, &own, &object(100, &[("md5", "d")])), Same::No);
        assert_eq!(same(file, &own, &object(-1, &[("sha1", "b"), ("md5", "d")])), Same::By("sha1"));
        assert_eq!(same(file, &own, &object(100, &[("sha1", "")])), Same::Unknown);
    }
}
