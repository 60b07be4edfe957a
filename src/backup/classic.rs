//! A dump that another tool wrote: one file of pg_dump, plain or custom, or of pg_dumpall, packed by gzip, zstd or not
//! at all, whatever its name.
//!
//! It has no manifest. It is read whole once, which finds one that was cut off, and what was counted then stands in
//! for the manifest, so that the restore itself is that of any backup.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::catalogue::Entry;
use super::companions::Companions;
use super::custom::{EntryBorders, Toc};
use super::directory::Directory;
use super::manifest::{self, DatabaseDump, File, Foreign, Manifest};
use super::name::BackupName;
use super::read_back::{Counting, copy, damaged};
use super::rows::Contents;
use super::section::{Found, Missing, Section};
use super::wrapping::{self, FIRST, Other, Wrapping, quoted};
use crate::archive::{self, Codec, Digest, Part, Stored};
use crate::config::Compression;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::postgres::{BackupFormat, Database, Libraries, Properties, ServerFacts, identifier};
use crate::report::Progress;
use crate::runtime::Runtime;

/// Where a dump is to go.
#[derive(Debug, Clone, Copy)]
pub struct Goal<'a> {
    /// The database in it.
    pub database: &'a str,
    /// Whose it will be.
    pub owner: &'a str,
    /// As whom it is loaded.
    pub superuser: &'a str,
    /// The server.
    pub server: &'a ServerFacts,
    /// All roles that there are.
    pub roles: &'a [String],
}

/// Reads the dump in `path` whole, to be restored.
///
/// # Errors
/// [`Kind::Damaged`] if it was cut off or does not unpack, [`Kind::File`] if it is of a kind that is not read or has
/// statements that are not for one database, [`Kind::NoBackup`] if it has no such database, [`Kind::Server`] if roles are
/// missing; nothing has been changed then.
pub fn read(
    path: &Path,
    goal: Goal<'_>,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Entry> {
    let nothing_changed = |error: Error| error.state("nothing was changed");
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let meta = path.metadata().at("read", path).map_err(nothing_changed)?;
    let (format, codec) = look(path, meta.is_dir()).map_err(nothing_changed)?;
    progress.begin(&format!("reading {file}"), None);
    let read = match format {
        BackupFormat::Custom => custom(path, codec, goal, runtime, progress),
        BackupFormat::Plain => section(path, codec, goal.database, progress),
    };
    progress.end();
    let Read { stored, contents, parts, roles, owners } = read.map_err(nothing_changed)?;
    check_roles(&roles, goal.roles).map_err(nothing_changed)?;
    let gives_owner = !owners.contains(goal.superuser) && goal.owner != goal.superuser;
    let begun =
        meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let name = BackupName::at(begun);
    let nothing = Digest { bytes: 0, sha256: String::new() };
    let manifest = Manifest {
        format: manifest::FORMAT,
        name,
        writer: "another tool".to_owned(),
        finished: begun,
        server: goal.server.clone(),
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
                name: goal.database.to_owned(),
                owner: goal.owner.to_owned(),
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
            foreign: Some(Foreign { gives_owner }),
        }],
        omitted: Vec::new(),
        companions: Companions::default(),
        without_passwords: false,
        read_back: None,
        trial: None,
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok(Entry { name, files: Arc::new(Directory::new(directory)), manifest: Ok(manifest) })
}

/// What was found in a dump.
struct Read {
    stored: Stored,
    contents: Contents,
    parts: Vec<Part>,
    roles: BTreeSet<String>,
    owners: BTreeSet<String>,
}

/// What the file is, and how it is packed.
fn look(path: &Path, is_directory: bool) -> Result<(BackupFormat, Codec)> {
    if is_directory {
        return Err(match path.join("toc.dat").exists() {
            true => unreadable(path, Other::DumpDirectory, None),
            false => Error::new(Kind::File, format!("{} is a directory and not a dump", path.display())),
        });
    }
    let packed = wrapping::of(&first(path, Codec::None)?);
    let (codec, unpack) = match packed {
        Wrapping::Gzip => (Codec::GZIP, Some("gzip -dc")),
        Wrapping::Zstd => (Codec::ZSTD, Some("zstd -dc")),
        _ => (Codec::None, None),
    };
    let content = match unpack {
        Some(_) => wrapping::of(&first(path, codec)?),
        None => packed,
    };
    match content {
        Wrapping::Custom => Ok((BackupFormat::Custom, codec)),
        Wrapping::Text => Ok((BackupFormat::Plain, codec)),
        Wrapping::Empty => Err(cut_off(damaged(path, "it is empty"))),
        Wrapping::Other(other) => Err(unreadable(path, other, unpack)),
        Wrapping::Gzip | Wrapping::Zstd => {
            Err(Error::new(Kind::File, format!("{} is compressed more than once", path.display())).hint(
                format!("{} {} >unpacked", unpack.unwrap_or_default(), quoted(&path.to_string_lossy())),
            ))
        }
    }
}

fn first(path: &Path, codec: Codec) -> Result<Vec<u8>> {
    let mut first = Vec::new();
    archive::open_stored(path, codec)?
        .take(FIRST as u64)
        .read_to_end(&mut first)
        .map_err(archive::into_error)?;
    Ok(first)
}

fn unreadable(path: &Path, other: Other, unpack: Option<&str>) -> Error {
    Error::new(Kind::File, format!("{} is {}, which is not supported", path.display(), other.name()))
        .hint(format!("convert it and restore the result: {}", other.command(path, unpack)))
}

/// What the archive holds.
fn custom(
    path: &Path,
    codec: Codec,
    goal: Goal<'_>,
    runtime: &dyn Runtime,
    progress: &mut dyn Progress,
) -> Result<Read> {
    let toc = Toc::read(archive::open_stored(path, codec)?)
        .map_err(|error| cut_off(error.context(format!("{} is damaged", path.display()))))?;
    let (roles, mut owners) = toc.roles();
    if !toc.is_known() {
        // Nor who is named in it.
        owners.insert(goal.superuser.to_owned());
    }
    let counting = Counting { format: BackupFormat::Custom, major: goal.server.major()?, runtime };
    let (stored, contents) = counting.count(archive::open_stored(path, codec)?, path, progress)?;
    let parts = match codec {
        Codec::None => std::fs::File::open(path)
            .and_then(|file| archive::parts_of(file, &mut EntryBorders::default()))
            .at("read", path)?,
        Codec::Zstd { .. } | Codec::Gzip { .. } => Vec::new(),
    };
    Ok(Read { stored, contents: contents.map_err(cut_off)?, parts, roles, owners })
}

fn cut_off(error: Error) -> Error {
    error.hint("the file is truncated or damaged: use another copy or another dump")
}

/// What the SQL holds of the wanted database.
fn section(path: &Path, codec: Codec, database: &str, progress: &mut dyn Progress) -> Result<Read> {
    let mut content = archive::open_stored(path, codec)?;
    let (mut section, mut kept) = (Section::new(database), Vec::new());
    copy(&mut content, progress, |piece| {
        kept.clear();
        section.feed(piece, &mut kept);
        Ok(())
    })?;
    let stored = content.finish()?;
    let Found { contents, roles, owners } =
        section.finish().map_err(|missing| explain(missing, path, database))?;
    Ok(Read { stored, contents, parts: Vec::new(), roles, owners })
}

fn explain(missing: Missing, path: &Path, database: &str) -> Error {
    let refused = |reason: &str| {
        Error::new(Kind::File, format!("{} cannot be restored: {reason}", path.display()))
            .hint("use a dump of this database by pg_dump, or of all databases by pg_dumpall")
    };
    match missing {
        Missing::End(reason) => cut_off(damaged(path, reason)),
        Missing::Rows(reason) => cut_off(damaged(path, &reason)),
        Missing::One => {
            refused("it contains more than one dump of the database; split it into one file for each dump")
        }
        Missing::Dump => refused("it was not written by pg_dump"),
        Missing::Refused(line, refusal) => refused(&format!("line {line}: {refusal}")),
        Missing::AnyDatabase => {
            Error::new(Kind::NoBackup, format!("{} contains roles only and no database", path.display()))
                .hint("use a dump by pg_dump, or by pg_dumpall without --globals-only")
        }
        Missing::Database(others) => {
            let names: Vec<_> = others.iter().map(|name| quoted(name)).collect();
            Error::new(Kind::NoBackup, format!("{} does not contain database {database:?}", path.display()))
                .hint(format!("it contains {}: --database", names.join(", ")))
        }
    }
}

/// All that are missing are named at once.
fn check_roles(named: &BTreeSet<String>, existing: &[String]) -> Result<()> {
    let missing: Vec<_> = named.iter().filter(|role| !existing.contains(role)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let simple = |role: &str| {
        role.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && role.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let written = |role: &&String| if simple(role) { (*role).clone() } else { identifier(role) };
    let names: Vec<_> = missing.iter().map(written).collect();
    let message = format!(
        "roles that own objects of the dump, or have privileges on them, do not exist: {}",
        names.join(", ")
    );
    // Those are made by the server, and by a newer one only.
    let newer: Vec<_> = names.iter().filter(|name| name.starts_with("pg_")).map(String::as_str).collect();
    // In quotes: current_user without them is somebody else.
    let make: Vec<_> = missing.iter().map(|name| format!("CREATE ROLE {}", identifier(name))).collect();
    let error = Error::new(Kind::Server, message);
    Err(match newer.is_empty() {
        true => error.hint(format!("create them first: matrix-postgres-cli -c {}", quoted(&make.join("; ")))),
        false => error
            .hint(format!("restore it into a newer version of PostgreSQL, which has {}", newer.join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_roles_that_are_missing_are_named() {
        let roles = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let named: BTreeSet<_> =
            roles(&["synapse", "current_user", "o'brien", "pg_read_all_data"]).into_iter().collect();
        check_roles(&named, &roles(&["synapse", "current_user", "o'brien", "pg_read_all_data"])).unwrap();
        let error = check_roles(&named, &roles(&["synapse", "pg_read_all_data"])).unwrap_err();
        assert_eq!(error.kind(), Kind::Server);
        assert!(
            error
                .hint_text()
                .unwrap()
                .ends_with(r#"-c 'CREATE ROLE "current_user"; CREATE ROLE "o'\''brien"'"#),
            "{}",
            error.report()
        );
        let error = check_roles(&named, &roles(&["synapse", "current_user", "o'brien"])).unwrap_err();
        assert!(
            error.hint_text().unwrap().starts_with("restore it into a newer version"),
            "{}",
            error.report()
        );
    }

    #[test]
    fn what_a_file_is_does_not_depend_on_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.dump");
        let kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            look(&path, false)
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let text = b"--\n-- PostgreSQL database dump\n--\n";
        assert_eq!(kind(b"PGDMP\x01").unwrap(), (BackupFormat::Custom, Codec::None));
        assert_eq!(kind(text).unwrap(), (BackupFormat::Plain, Codec::None));
        assert_eq!(kind(&zstd(text)).unwrap(), (BackupFormat::Plain, Codec::ZSTD));
        assert_eq!(kind(&zstd(b"PGDMP\x01")).unwrap(), (BackupFormat::Custom, Codec::ZSTD));
        let error = kind(&zstd(b"\xff\xfe-\0")).unwrap_err();
        assert!(
            error.kind() == Kind::File && error.hint_text().unwrap().contains("zstd -dc"),
            "{}",
            error.report()
        );
        assert_eq!(kind(&zstd(&zstd(text))).unwrap_err().kind(), Kind::File);
        assert_eq!(kind(b"").unwrap_err().kind(), Kind::Damaged);
        let error = look(directory.path(), true).unwrap_err();
        assert!(error.report().contains("is a directory and not a dump"), "{}", error.report());
        std::fs::write(directory.path().join("toc.dat"), "").unwrap();
        let error = look(directory.path(), true).unwrap_err();
        assert!(error.hint_text().unwrap().contains("pg_restore -f"), "{}", error.report());
    }
}
