//! What a restore does, before it does it.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::backup::catalogue::Entry;
use crate::backup::leftovers;
use crate::backup::manifest::{DatabaseDump, Manifest};
use crate::backup::target::Authority;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Apart, BackupFormat};

/// What is asked for.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// The backup.
    pub entry: &'a Entry,
    /// The database in it; by default that of the homeserver.
    pub database: Option<&'a str>,
    /// The name of the new database, beside the live one.
    pub new_name: Option<&'a str>,
    /// The private key of an encrypted backup.
    pub identity: Option<&'a Path>,
    /// With whose rights rows are loaded.
    pub authority: Authority,
    /// Whether tables stay empty whose rows the server does not take, and all else is restored.
    pub skip_broken: bool,
    /// Extensions that the live server can make in one of its databases only.
    pub apart: &'a [Apart],
}

/// What a restore does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the backup is.
    pub backup: PathBuf,
    /// What is restored.
    pub dump: DatabaseDump,
    /// The name that the database will have.
    pub name: String,
    /// Its name until it has been compared.
    pub unfinished: String,
    /// Under which name the database stays that has the name now.
    pub kept: Option<String>,
    /// Where a small part of the dump is unpacked.
    pub scratch: PathBuf,
    /// Whether clients are stopped for the exchange.
    pub stops_clients: bool,
    /// Whether all rows are loaded as who we are: the superuser, but for some servers on the network.
    pub as_superuser: bool,
    /// The role that we are there, if that is no superuser.
    pub ordinary_role: Option<String>,
    /// Whether tables stay empty whose rows the server does not take.
    pub skip_broken: bool,
    /// Extensions that cannot be made in a database of another name. They are made when it has its own, or not at all.
    pub apart: Vec<Apart>,
}

/// The plan: pure in the backup, the names of the databases that there are, and the time.
///
/// # Errors
/// [`Kind::NoBackup`] if the backup has no such database, [`Kind::Config`] for a name that is taken or too long.
pub fn plan(
    settings: &Settings,
    request: &RestoreRequest<'_>,
    existing: &[String],
    now: Timestamp,
) -> Result<Plan> {
    let manifest = trusted(request.entry)?;
    let source = request.database.unwrap_or(&settings.server.database);
    let dump = find(manifest, source)?.clone();
    let name = request.new_name.unwrap_or(source).to_owned();
    let taken = existing.contains(&name);
    if taken && request.new_name.is_some() {
        return Err(Error::new(Kind::Config, format!("database {name:?} already exists"))
            .state("nothing was changed")
            .hint("use another name: --as"));
    }
    let plan = Plan {
        backup: request.entry.files.path().to_owned(),
        unfinished: leftovers::unfinished_name(&name, now),
        kept: taken.then(|| leftovers::name(&name, now)),
        scratch: scratch(settings),
        stops_clients: request.new_name.is_none(),
        // A script in SQL makes and fills its tables as it goes.
        ordinary_role: ordinary_role(settings),
        as_superuser: authority(settings, request) == Authority::Superuser
            || manifest.dump_format == BackupFormat::Plain,
        skip_broken: request.skip_broken,
        // A script in SQL is loaded as a whole.
        apart: match manifest.dump_format {
            BackupFormat::Custom => request.apart.to_vec(),
            BackupFormat::Plain => Vec::new(),
        },
        dump,
        name,
    };
    if plan.skip_broken && manifest.dump_format == BackupFormat::Plain {
        return Err(Error::new(
            Kind::Config,
            "a dump in plain format is loaded as a whole: no table of it can be skipped",
        )
        .state("nothing was changed")
        .hint("leave --skip-broken out"));
    }
    // PostgreSQL would cut it, silently (chapter "Lexical Structure").
    if plan.name.len() > leftovers::LONGEST_NAME {
        return Err(Error::new(Kind::Config, format!("the name {:?} is too long", plan.name))
            .state("nothing was changed")
            .hint("use a shorter name: --as"));
    }
    Ok(plan)
}

/// Whoever has no privileges but a role's own lends none to anybody's functions.
pub(super) fn authority(settings: &Settings, request: &RestoreRequest<'_>) -> Authority {
    match ordinary_role(settings) {
        Some(_) => Authority::Superuser,
        None => request.authority,
    }
}

fn ordinary_role(settings: &Settings) -> Option<String> {
    let remote = settings.server.remote.as_ref().filter(|remote| !remote.is_superuser);
    remote.map(|_| settings.server.superuser.clone())
}

/// A restore is root's, who shares no directory with the user of trials.
fn scratch(settings: &Settings) -> PathBuf {
    let mut path = settings.backup.scratch_directory.clone().into_os_string();
    path.push("-restore");
    path.into()
}

fn find<'a>(manifest: &'a Manifest, database: &str) -> Result<&'a DatabaseDump> {
    manifest.databases.iter().find(|dump| dump.database.name == database).ok_or_else(|| {
        let names: Vec<_> = manifest.databases.iter().map(|dump| dump.database.name.as_str()).collect();
        let omitted = manifest.omitted.iter().find(|omitted| omitted.name == database);
        let why = omitted.map_or_else(String::new, |omitted| format!(": it was omitted: {}", omitted.reason));
        Error::new(
            Kind::NoBackup,
            format!("backup {} does not contain database {database:?}{why}", manifest.name),
        )
        .state("nothing was changed")
        .hint(format!("it contains {}: --database", names.join(", ")))
    })
}

impl Plan {
    /// Those of the extensions that are made once the database has its name, or those that are not made at all.
    pub(super) fn apart(&self, made: bool) -> Vec<Apart> {
        let is = |apart: &&Apart| (apart.database.as_deref() == Some(&*self.name)) == made;
        self.apart.iter().filter(is).cloned().collect()
    }

    /// A sentence for each that the backup has and that will be missing.
    pub(super) fn left_out(&self) -> Vec<String> {
        let there = |apart: &Apart| self.dump.properties.extensions.contains(&apart.extension);
        let told = |Apart { extension, schema, database }: Apart| {
            let why = match database {
                Some(database) => format!("on this server it can be created in database {database:?} only"),
                None => "its library is not in shared_preload_libraries of this server".to_owned(),
            };
            format!("extension {extension:?} and its schema {schema:?} are skipped: {why}")
        };
        self.apart(false).into_iter().filter(there).map(told).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backup, dump, name, kept, .. } = self;
        writeln!(f, "restore database {name:?} from {}", backup.join(&dump.dump.file).display())?;
        writeln!(f, "  load it into a new database, {:?}, while everything runs", self.unfinished)?;
        if let Some(role) = &self.ordinary_role {
            writeln!(
                f,
                "  as role {role:?}, which must have CREATEDB and be a member of the owner {:?}",
                dump.database.owner
            )?;
        } else if self.as_superuser {
            writeln!(f, "  as superuser: functions in table constraints run with superuser privileges")?;
        }
        writeln!(
            f,
            "  compare {}",
            match dump.foreign {
                Some(_) => "the rows of every table and every sequence with the content of the file",
                None =>
                    "its checksums, the rows of every table and every sequence with the manifest of the backup",
            }
        )?;
        for sentence in self.left_out() {
            writeln!(f, "  {sentence}")?;
        }
        if self.skip_broken {
            writeln!(f, "  leave tables empty whose rows the server rejects, and restore everything else")?;
        }
        if self.stops_clients {
            writeln!(
                f,
                "  stop the running services of clients.units and those that are connected to it, and start them again afterwards"
            )?;
        }
        match kept {
            Some(kept) => {
                write!(f, "  rename {name:?} to {kept:?}, which is kept, and the new database to {name:?}")
            }
            None => write!(f, "  rename the new database to {name:?}"),
        }
    }
}

/// What the backup says of itself.
///
/// # Errors
/// [`Kind::Damaged`] if that cannot be read.
pub fn trusted(entry: &Entry) -> Result<&Manifest> {
    entry.manifest.as_ref().map_err(|error| {
        Error::new(Kind::Damaged, format!("backup {} is not usable: {error}", entry.name))
            .state("nothing was changed")
            .hint("matrix-postgres-backup list shows the other backups")
    })
}
