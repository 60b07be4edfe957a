//! What reading a backup back has shown, in its manifest.

use jiff::Timestamp;

use super::manifest::{How, Manifest, ReadBack};
use super::read_back::Findings;
use super::store::Store;
use crate::error::{Kind, Result};

/// Records what [`super::read_back::examine`] has found, good or bad, in the manifest.
///
/// # Errors
/// What was found, and [`Kind::Damaged`] once that is recorded. When the backup could not be read for another reason, a full
/// disk or a signal, nothing is recorded: it is then as little verified as before.
pub fn record(files: &dyn Store, mut manifest: Manifest, found: Result<Findings>) -> Result<Manifest> {
    match found {
        Ok(Findings { how, contents }) => {
            // A full reading is not forgotten for one of digests alone.
            let decrypted =
                matches!(manifest.read_back, Some(ReadBack { damage: None, how: How::Decrypted, .. }));
            if how == How::Stream && decrypted {
                return Ok(manifest);
            }
            for (dump, contents) in manifest.databases.iter_mut().zip(contents.into_iter().flatten()) {
                dump.contents = Some(contents);
            }
            manifest.read_back = Some(ReadBack { at: Timestamp::now(), damage: None, how });
            manifest.save(files)?;
            Ok(manifest)
        }
        Err(error) if error.kind() == Kind::Damaged => {
            let how = manifest.read_back.map(|read_back| read_back.how).unwrap_or_default();
            manifest.read_back =
                Some(ReadBack { at: Timestamp::now(), damage: Some(error.to_string()), how });
            manifest.save(files)?;
            Err(error
                .state("the backup was marked as damaged; older backups are unchanged")
                .hint("make a new one: systemctl start matrix-postgres-backup.service"))
        }
        Err(error) => Err(error),
    }
}
