//! Whether a server that does not run is started for a backup. One that its administrator has stopped may be stopped for a
//! reason: its files may just be copied.

use crate::config::{Settings, StartServer};
use crate::error::{Error, Kind, Result};
use crate::systemd::{Manager, Unit};

/// The package's own unit.
const OWN: &str = "matrix-postgres.service";

/// Makes sure that the server's unit may be started.
///
/// # Errors
/// [`Kind::Server`] with the reason if it is not to be; [`Kind::UnitRefused`] if it is another's; others if systemd cannot be
/// asked.
pub fn require_allowed(settings: &Settings, manager: &Manager) -> Result<()> {
    let server = &settings.server;
    let unit = manager.require_ours(&server.unit, server.is_unit_named)?;
    match reason(settings.backup.start_server, &unit) {
        None => Ok(()),
        Some(reason) => Err(Error::new(
            Kind::Server,
            format!("the server is not running, and is not started for a backup: {reason}"),
        )
        .hint(format!("systemctl start {}", server.unit))),
    }
}

/// Why it is not started, if it is not.
fn reason(asked: StartServer, unit: &Unit) -> Option<String> {
    let name = &unit.id;
    match asked {
        StartServer::Never => Some("backup.start_server is false".to_owned()),
        // What is not there is told by who starts it.
        StartServer::Auto if !unit.exists() => None,
        StartServer::Auto if name != OWN || !unit.is_packaged() => {
            Some(format!("{name} is not the package's own, and backup.start_server is not true"))
        }
        StartServer::Auto if !unit.is_enabled() => {
            Some(format!("{name} is {}, and backup.start_server is not true", unit.file_state))
        }
        StartServer::Auto | StartServer::Always => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(id: &str, file: &str, file_state: &str) -> Unit {
        Unit {
            id: id.into(),
            load_state: "loaded".into(),
            active_state: "inactive".into(),
            sub_state: "dead".into(),
            fragment_path: Some(file.into()),
            file_state: file_state.into(),
            condition_met: true,
            result: None,
            said: None,
            main_pid: None,
            control_group: None,
        }
    }

    #[test]
    fn by_itself_only_the_packages_own_is_started_if_it_is_enabled() {
        let ours = "/usr/lib/systemd/system/matrix-postgres.service";
        let others = "/etc/systemd/system/x.service";
        let debian = "/usr/lib/systemd/system/postgresql@.service";
        for (asked, id, file, state, expected) in [
            (StartServer::Auto, OWN, ours, "enabled", None),
            (StartServer::Auto, OWN, ours, "disabled", Some("matrix-postgres.service is disabled")),
            (StartServer::Auto, "x.service", others, "enabled", Some("not the package's own")),
            (StartServer::Auto, OWN, others, "enabled", Some("not the package's own")),
            (
                StartServer::Auto,
                "postgresql@15-main.service",
                debian,
                "enabled",
                Some("not the package's own"),
            ),
            (StartServer::Always, "postgresql@15-main.service", debian, "enabled", None),
            (StartServer::Always, "x.service", others, "disabled", None),
            (StartServer::Always, OWN, ours, "disabled", None),
            (StartServer::Never, OWN, ours, "enabled", Some("backup.start_server is false")),
        ] {
            let found = reason(asked, &unit(id, file, state));
            let is_expected = match (&found, expected) {
                (Some(found), Some(expected)) => found.contains(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{asked:?} {id} {file} {state}: {found:?}");
        }
    }
}
