//! Whether the target starts with the configuration, and reads the rules of who may log in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::account::Account;
use crate::error::{Kind, Result};
use crate::postgres::{HOME, Major, PrivateServer, Purpose, Session, Startup};
use crate::runtime::Runtime;
use crate::upgrade::facts::Obstacle;
use crate::upgrade::plan::Plan;
use crate::upgrade::records::{Which, moved};
use crate::upgrade::steps::servers::{Side, Sockets};

/// An empty cluster is ready in a moment.
const START: Duration = Duration::from_secs(120);

/// What the live server goes by.
#[derive(Debug, Deserialize)]
struct Named {
    data: PathBuf,
    hba: PathBuf,
    ident: PathBuf,
    libraries: String,
}

const NAMED: &str = "SELECT pg_catalog.json_build_object(
    'data', pg_catalog.current_setting('data_directory'), 'hba', pg_catalog.current_setting('hba_file'),
    'ident', pg_catalog.current_setting('ident_file'),
    'libraries', pg_catalog.current_setting('shared_preload_libraries'));";

/// Starts the empty cluster of `plan` with the files that were carried into it, and with every library that is loaded at the
/// start, as nobody's server.
///
/// # Errors
/// [`Kind::Server`] if the live server cannot be asked; others if nothing could be started.
pub(super) fn refused(
    runtime: &dyn Runtime,
    account: &Account,
    sockets: &Sockets,
    plan: &Plan,
    live: &Session<'_>,
) -> Result<Vec<Obstacle>> {
    let named: Named = live.query(HOME, NAMED)?;
    let carried = |file: &Path| {
        let configuration = plan.upgrade.registered.as_ref().map(|registered| &registered.old_configuration);
        let from = [Some(&named.data), Some(&plan.upgrade.data_directory), configuration];
        let from: Vec<_> = from.into_iter().flatten().map(PathBuf::as_path).collect();
        let place = moved(file, &from, &plan.upgrade.beside);
        if place.exists() { place } else { file.to_owned() }
    };
    let startup = Startup::new(Purpose::Configured, plan.upgrade.to, &plan.libraries).with([
        format!("data_directory={}", plan.upgrade.beside.display()),
        format!("hba_file={}", carried(&named.hba).display()),
        format!("ident_file={}", carried(&named.ident).display()),
        format!("shared_preload_libraries={}", named.libraries),
        "max_worker_processes=0".to_owned(),
    ]);
    let startup = startup.with(plan.upgrade.configured_by(Which::New));
    let connection = sockets.connection(Side::New, &plan.initialisation.superuser).to_server(plan.upgrade.to);
    let started = PrivateServer::start(
        runtime,
        plan.upgrade.to,
        &plan.upgrade.beside,
        &connection,
        account,
        &startup,
        START,
    );
    let (said, has_started) = match started {
        Ok(server) => (server.stop_and_tell()?, true),
        Err(error) if error.kind() == Kind::Server => (error.cause(), false),
        Err(error) => return Err(error),
    };
    let place = match &plan.upgrade.registered {
        Some(registered) => &registered.old_configuration,
        None => &plan.upgrade.data_directory,
    };
    let said = said.replace(&*plan.upgrade.beside.to_string_lossy(), &place.to_string_lossy());
    Ok(complaints(&said, has_started, plan.upgrade.to))
}

/// What it says of lines of files; of anything else, if it has not started.
fn complaints(said: &str, has_started: bool, to: Major) -> Vec<Obstacle> {
    let (mut found, mut last, mut others) = (Vec::new(), "", Vec::new());
    for line in said.lines() {
        let message = ["LOG:  ", "ERROR:  ", "FATAL:  "].iter().find_map(|level| line.strip_prefix(level));
        if let Some(message) = message {
            last = message;
            others.push(message);
        } else if let Some((number, file)) =
            line.strip_prefix("CONTEXT:  line ").and_then(|rest| rest.split_once(" of configuration file \""))
        {
            let file = file.trim_end_matches('"');
            found.push(Obstacle {
                message: format!("PostgreSQL {to} rejects line {number} of {file}: {last}"),
                hint: Some(format!("correct line {number} of {file}, then reload the server")),
            });
        }
    }
    if found.is_empty() && !has_started {
        others.retain(|message| !message.starts_with("database system is "));
        found.push(Obstacle {
            message: format!("PostgreSQL {to} does not start with the configuration: {}", others.join("; ")),
            hint: Some(match others.iter().any(|message| message.contains("parameter \"lc_")) {
                true => "install the locale on this machine: apt-get install locales-all".to_owned(),
                false => "correct the setting in postgresql.conf, or ALTER SYSTEM RESET it".to_owned(),
            }),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_rules_are_named_where_the_administrator_has_them() {
        let to = Major(19);
        let said = "LOG:  invalid authentication method \"radius\"\n\
            CONTEXT:  line 7 of configuration file \"/d/data/pg_hba.conf\"\n\
            FATAL:  could not load /d/data/pg_hba.conf\nLOG:  database system is shut down";
        let found = complaints(said, false, to);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            found[0].message,
            "PostgreSQL 19 rejects line 7 of /d/data/pg_hba.conf: invalid authentication method \"radius\""
        );
        let found = complaints("FATAL:  could not load library \"/x.so\"", false, to);
        assert!(found[0].message.ends_with("could not load library \"/x.so\""), "{found:?}");
        assert!(complaints("LOG:  some other thing", true, to).is_empty());
    }
}
