//! A dump that another tool wrote: one file of pg_dump, plain or custom, or of pg_dumpall, packed by gzip, zstd or not
//! at all.
//!
//! It has no manifest. It is read whole once, which finds one that was cut off, and what was counted then stands in
//! for the manifest, so that the restore itself is that of any backup.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;

use super::catalogue::Entry;
use super::custom::{self, EntryBorders};
use super::globals::unquoted;
use super::manifest::{self, DatabaseDump, File, Manifest};
use super::name::BackupName;
use super::read_back::{Counting, copy, damaged};
use super::section::{Found, Missing, Section};
use crate::archive::{self, Codec, Digest, Stored, StoredReader};
use crate::config::{BackupFormat, Compression};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::{Database, Libraries, Properties, ServerFacts};
use crate::report::Progress;
use crate::runtime::Runtime;
use crate::sql::Guard;

/// Reads the dump in `path` whole, to be restored as `database` of `owner` into `server`.
///
/// # Errors
/// [`Kind::Damaged`] if it was cut off or does not unpack, [`Kind::NoBackup`] if it has no such database,
/// [`Kind::Server`] if roles are missing; nothing has been changed then.
pub fn read(
    path: &Path,
    database: &str,
    owner: &str,
    server: ServerFacts,
    roles: &[String],
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Entry> {
    let nothing_changed = |error: Error| error.state("nothing was changed");
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let codec = Codec::of_file_name(&file);
    let meta = path.metadata().at("read", path)?;
    let format = format_of(path, codec).map_err(nothing_changed)?;
    progress.begin(&format!("reading {file}"), None);
    let content = archive::open_stored(path, codec)?;
    let (stored, contents, parts) = match format {
        BackupFormat::Custom => {
            let counting = Counting { format, major: server.major()?, runtime };
            let (stored, contents) = counting.count(content, path, progress)?;
            let parts = match codec {
                Codec::None => std::fs::File::open(path)
                    .and_then(|file| archive::parts_of(file, &mut EntryBorders::default()))
                    .at("read", path)?,
                Codec::Zstd { .. } | Codec::Gzip { .. } => Vec::new(),
            };
            (stored, contents.map_err(cut_off)?, parts)
        }
        BackupFormat::Plain => {
            let (stored, found) = section(content, path, database, progress)?;
            check_owners(&found.owners, roles)?;
            (stored, found.contents, Vec::new())
        }
    };
    progress.end();
    let begun =
        meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let name = BackupName::at(begun);
    let nothing = Digest { bytes: 0, sha256: String::new() };
    let manifest = Manifest {
        format: manifest::FORMAT,
        name,
        writer: "another tool".to_owned(),
        finished: begun,
        server,
        libraries: Libraries::default(),
        dump_format: format,
        compression: match codec {
            Codec::Zstd { .. } => Compression::Zstd,
            Codec::Gzip { .. } => Compression::Gzip,
            Codec::None => Compression::None,
        },
        encryption: None,
        globals: File::new("", Stored { file: nothing.clone(), content: nothing }),
        databases: vec![DatabaseDump {
            database: Database {
                name: database.to_owned(),
                owner: owner.to_owned(),
                encoding: "UTF8".to_owned(),
                collate: "C".to_owned(),
                ctype: "C".to_owned(),
                // With its indexes; a custom dump may be packed itself.
                size: stored.content.bytes.saturating_mul(2),
            },
            properties: Properties::default(),
            dump: File::new(&file, stored),
            parts,
            started: begun,
            milliseconds: 0,
            without_rows_of: Vec::new(),
            contents: Some(contents),
        }],
        omitted: Vec::new(),
        read_back: None,
        trial: None,
    };
    Ok(Entry { name, path: path.parent().unwrap_or(Path::new("/")).to_owned(), manifest: Ok(manifest) })
}

fn cut_off(error: Error) -> Error {
    error
        .state("nothing was changed")
        .hint("it was not written to its end, or not kept whole: take another one")
}

/// What the SQL holds of the wanted database.
fn section(
    mut content: StoredReader,
    path: &Path,
    database: &str,
    progress: &mut dyn Progress,
) -> Result<(Stored, Found)> {
    let (mut section, mut guard) = (Section::new(database), Guard::default());
    let (mut kept, mut loaded) = (Vec::new(), Vec::new());
    copy(&mut content, progress, |piece| {
        kept.clear();
        loaded.clear();
        section.feed(piece, &mut kept);
        // What will reach the server.
        guard.feed(&kept, &mut loaded);
        Ok(())
    })
    .map_err(|error| error.state("nothing was changed"))?;
    let stored = content.finish()?;
    let refused = |reason: String| {
        Error::new(Kind::File, format!("{} is not restored: {reason}", path.display()))
            .state("nothing was changed")
            .hint("take a file that pg_dump has written of this one database, or pg_dumpall of them all")
    };
    if let Some((_, refusal)) = guard.finish() {
        return Err(refused(refusal.to_string()));
    }
    match section.finish() {
        Ok(found) => Ok((stored, found)),
        Err(Missing::End(reason)) => Err(cut_off(damaged(path, reason))),
        Err(Missing::Rows(reason)) => Err(cut_off(damaged(path, &reason))),
        Err(Missing::One) => {
            Err(refused("there is more than one dump in it; put each into a file of its own".into()))
        }
        Err(Missing::Database(others)) => {
            Err(Error::new(Kind::NoBackup, format!("{} has no database {database:?}", path.display()))
                .state("nothing was changed")
                .hint(format!("it has {}: --database", others.join(", "))))
        }
    }
}

fn check_owners(owners: &BTreeSet<String>, roles: &[String]) -> Result<()> {
    let missing: Vec<_> = owners.iter().filter(|owner| !roles.contains(&unquoted(owner))).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let names = missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    Err(Error::new(Kind::Server, format!("roles that own what is in the dump are not there: {names}"))
        .state("nothing was changed")
        .hint(format!("make them first: matrix-postgres-cli -c 'CREATE ROLE {first}'")))
}

fn format_of(path: &Path, codec: Codec) -> Result<BackupFormat> {
    let mut start = Vec::new();
    let content = archive::open_stored(path, codec)?;
    content.take(256).read_to_end(&mut start).map_err(archive::into_error)?;
    if start.starts_with(custom::MAGIC) {
        return Ok(BackupFormat::Custom);
    }
    Ok(BackupFormat::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_missing_is_named() {
        let owners = ["synapse", "\"we ird\""].map(str::to_owned).into();
        check_owners(&owners, &["synapse".into(), "we ird".into()]).unwrap();
        let error = check_owners(&owners, &["synapse".into()]).unwrap_err();
        assert!(error.hint_text().unwrap().contains("'CREATE ROLE \"we ird\"'"), "{}", error.report());
    }

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.dump");
        let kind = |text: &str| {
            std::fs::write(&path, text).unwrap();
            format_of(&path, Codec::None)
        };
        assert_eq!(kind("PGDMP\u{1}").unwrap(), BackupFormat::Custom);
        assert_eq!(kind("--\n-- PostgreSQL database dump\n--\n").unwrap(), BackupFormat::Plain);
        assert_eq!(kind("--\n-- PostgreSQL database cluster dump\n--\n").unwrap(), BackupFormat::Plain);
    }
}
