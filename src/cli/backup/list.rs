//! `list`: the backups, as a table or as JSON.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::backup::catalogue::{self, Entry};
use crate::backup::manifest::{Encrypted, Manifest, Omitted, Trial};
use crate::backup::pgbackrest::status::{Listed as Backup, State};
use crate::backup::store::Store;
use crate::error::Result;
use crate::report::{DecimalBytes, HumanCount, columns};

/// A line of `list --json`. Keys are only ever added.
#[derive(Serialize)]
struct Listed<'a> {
    engine: &'static str,
    name: String,
    time: Timestamp,
    path: &'a Path,
    verified: bool,
    bytes: Option<u64>,
    rows: Option<u64>,
    server_version: Option<&'a str>,
    databases: Vec<&'a str>,
    omitted: &'a [Omitted],
    encryption: Option<&'a Encrypted>,
    trial: Option<&'a Trial>,
    problem: Option<String>,
}

/// `others` are those of pgBackRest, where that is the engine.
pub(super) fn list(store: &dyn Store, others: Option<&State>, json: bool) -> Result<()> {
    let entries = catalogue::list(store)?;
    let of_pgbackrest = others.map_or(&[][..], |state| &state.backups);
    if json {
        let dumps = entries.iter().map(|entry| OfAny::Dump(Box::new(listed(entry))));
        let backups = of_pgbackrest.iter().map(|backup| OfAny::Other { engine: "pgbackrest", backup });
        return crate::cli::print_json(&dumps.chain(backups).collect::<Vec<_>>());
    }
    if !of_pgbackrest.is_empty() {
        crate::cli::print(&table(of_pgbackrest))?;
        if entries.is_empty() {
            return Ok(());
        }
        crate::cli::print("\n")?;
    }
    if entries.is_empty() {
        return crate::cli::print(&format!("no backups in {}\n", store.path().display()));
    }
    let zone = TimeZone::system();
    let heading = ["NAME", "STARTED", "SIZE", "DBS", "ROWS", "VERIFIED BY"].map(str::to_owned).to_vec();
    let rows = entries.iter().map(|entry| row(entry, &zone));
    crate::cli::print(&columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()))
}

/// A line of either engine.
#[derive(Serialize)]
#[serde(untagged)]
enum OfAny<'a> {
    Dump(Box<Listed<'a>>),
    Other {
        engine: &'static str,
        #[serde(flatten)]
        backup: &'a Backup,
    },
}

/// The backups of pgBackRest.
fn table(backups: &[Backup]) -> String {
    let zone = TimeZone::system();
    let heading = ["LABEL", "STARTED", "TYPE", "STORED", "VERIFIED"].map(str::to_owned).to_vec();
    let rows = backups.iter().map(|backup| {
        let verified = match (&backup.problem, backup.present) {
            (_, Some(false)) => "OF ANOTHER CLUSTER",
            (None, _) if backup.tried => "trial restore",
            (None, _) => "yes",
            (Some(_), _) => "NO",
        };
        let begun = backup.time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
        let stored = DecimalBytes(backup.stored_bytes).to_string();
        vec![backup.name.clone(), begun, backup.kind.clone(), stored, verified.to_owned()]
    });
    columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn listed(entry: &Entry) -> Listed<'_> {
    let manifest = entry.manifest.as_ref().ok();
    Listed {
        engine: "dump",
        name: entry.name.to_string(),
        time: entry.name.time(),
        path: entry.files.path(),
        verified: entry.is_verified(),
        bytes: manifest.map(Manifest::bytes),
        rows: manifest.and_then(Manifest::rows),
        server_version: manifest.map(|manifest| manifest.server.version.as_str()),
        databases: manifest
            .map(|manifest| manifest.databases.iter().map(|dump| dump.database.name.as_str()).collect())
            .unwrap_or_default(),
        omitted: manifest.map_or(&[], |manifest| &manifest.omitted),
        encryption: manifest.and_then(|manifest| manifest.encryption.as_ref()),
        trial: manifest.and_then(|manifest| manifest.trial.as_ref()),
        problem: entry.problem(),
    }
}

fn row(entry: &Entry, zone: &TimeZone) -> Vec<String> {
    let begun = entry.name.time().to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let cells = match &entry.manifest {
        Ok(manifest) => [
            DecimalBytes(manifest.bytes()).to_string(),
            databases(manifest),
            manifest.rows().map_or_else(|| "?".into(), |rows| HumanCount(rows).to_string()),
            proved_by(manifest).to_owned(),
        ],
        Err(_) => ["?".into(), "?".into(), "?".into(), "UNREADABLE".into()],
    };
    [entry.name.to_string(), begun].into_iter().chain(cells).collect()
}

/// How many are in it, and of how many where some were left out.
fn databases(manifest: &Manifest) -> String {
    let (there, omitted) = (manifest.databases.len(), manifest.omitted.len());
    if omitted == 0 { there.to_string() } else { format!("{there}/{}", there + omitted) }
}

fn proved_by(manifest: &Manifest) -> &'static str {
    match (&manifest.read_back, &manifest.trial) {
        (Some(read_back), _) if read_back.damage.is_some() => "DAMAGED",
        (_, Some(trial)) if trial.damage.is_some() => "FAILED",
        (_, Some(_)) => "trial restore",
        (Some(_), None) => "read-back",
        (None, None) => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::directory::Directory;
    use crate::backup::manifest::Omission;
    use crate::backup::manifest::tests::example;
    use crate::error::{Error, Kind};
    use std::sync::Arc;

    #[test]
    fn what_was_left_out_counts() {
        let mut manifest = example("20261124T030000Z");
        assert_eq!(databases(&manifest), "1");
        manifest.omitted = vec![Omitted { name: "x".into(), reason: Omission::Excluded }; 2];
        assert_eq!(databases(&manifest), "1/3");
    }

    #[test]
    fn long_values_fit_a_terminal() {
        let mut manifest = example("20261124T030000Z");
        manifest.databases = vec![manifest.databases[0].clone(); 100];
        manifest.databases[0].dump.bytes = 999_989_000_000_000;
        manifest.databases[0].contents.as_mut().unwrap().tables.insert("x".into(), 98_765_432_100);
        manifest.read_back.as_mut().unwrap().damage = Some("x".into());
        let unreadable = Err(Error::new(Kind::Damaged, "x"));
        let files = || -> Arc<dyn Store> { Arc::new(Directory::new(Path::new("x"))) };
        let entries = [
            Entry { name: manifest.name, files: files(), manifest: Ok(manifest.clone()) },
            Entry { name: manifest.name, files: files(), manifest: unreadable },
        ];
        let zone = TimeZone::fixed(jiff::tz::offset(5));
        let rows: Vec<_> = entries.iter().map(|entry| row(entry, &zone)).collect();
        assert_eq!(rows[0][1], "2026-11-24 08:00");
        for line in columns(&rows).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
