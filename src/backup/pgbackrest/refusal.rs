//! What is refused, with what puts it right.

use super::info::Stanza;
use super::record::Gone;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::ServerFacts;

/// What puts right whether WAL is archived, where the configuration says that pgBackRest backs up.
pub const SETUP: &str = "matrix-postgres setup";

/// What makes a backup.
pub const BACK_UP: &str = "systemctl start matrix-postgres-backup.service";

/// What makes the stanza that of the cluster in place, by whatever engine or engines backups are made.
pub const AGAIN: &str = "matrix-postgres setup --upgrade-stanza";

/// Fails unless the server is of this machine, in no container.
///
/// # Errors
/// [`Kind::Config`].
pub fn require_near(settings: &Settings) -> Result<()> {
    if settings.server.remote.is_none() && settings.server.image.is_none() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        "pgBackRest reads the files of a cluster, and that of this server is on another machine or in a container",
    )
    .state("nothing was changed")
    .hint("backup.engine = \"dump\" in /etc/matrix-postgres/config.toml"))
}

/// There is no stanza, or there is none any more.
pub(super) fn missing(gone: Option<&Gone>) -> Error {
    let Some(Gone { source, backups, record }) = gone else {
        return Error::new(Kind::Config, "the stanza of pgBackRest does not exist yet").hint(SETUP);
    };
    let (stanza, repository) = (&source.stanza, source.repository.display());
    let s = if *backups == 1 { "" } else { "s" };
    Error::new(
        Kind::Config,
        format!("stanza {stanza:?} of pgBackRest, with {backups} verified backup{s}, is not in {repository} any more: is its disk mounted?"),
    )
    .hint(format!(
        "findmnt --target {repository}; if the backups are gone for good: rm {}, then {SETUP}",
        record.display()
    ))
}

/// The repository cannot be read.
pub(super) fn unreadable(reason: &str) -> Error {
    Error::new(Kind::File, "pgBackRest cannot read its repository")
        .because(reason.to_owned())
        .hint("check the owner and the mode of backup.repository; the owner of the cluster must be able to write to it")
}

/// The stanza is of a cluster that is not the server's; with the command that makes another stanza.
pub(super) fn of_another(stanza: &Stanza, server: &ServerFacts, again: &str) -> Error {
    let (identifier, version) = stanza
        .present()
        .map(|database| (database.system_identifier.to_string(), database.version.clone()))
        .unwrap_or_default();
    Error::new(
        Kind::Config,
        format!(
            "stanza {:?} is of another cluster: of PostgreSQL {version} with the system identifier {identifier}, and the server \
             has PostgreSQL {} with {}",
            stanza.name, server.version, server.system_identifier
        ),
    )
    .hint(format!("if the server was upgraded: {AGAIN}; otherwise set backup.stanza to a new name, then {again}"))
}
