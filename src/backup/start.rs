//! Whether a server that does not run is started for a backup. One that its administrator has stopped may be stopped for a
//! reason: its files may just be copied.

use crate::config::{Settings, StartServer};
use crate::error::{Error, Kind, Result};
use crate::systemd::{Manager, Unit};

/// Makes sure that the server's unit may be started.
///
/// # Errors
/// [`Kind::Server`] with the reason if it is not to be; [`Kind::UnitRefused`] if it is another's; others if systemd cannot be
/// asked.
pub fn require_allowed(settings: &Settings, manager: &Manager) -> Result<()> {
    let server = &settings.server;
    let unit = manager.require_ours(&server.unit, server.is_unit_named)?;
    match reason(settings.backup.start_server, server.is_unit_named, &unit) {
        None => Ok(()),
        Some(reason) => Err(Error::new(
            Kind::Server,
            format!("the server is not running, and is not started for a backup: {reason}"),
        )
        .hint(format!("systemctl start {}", server.unit))),
    }
}

/// Why it is not started, if it is not.
fn reason(asked: StartServer, is_named: bool, unit: &Unit) -> Option<String> {
    let name = &unit.id;
    match asked {
        StartServer::Never => Some("backup.start_server is false".to_owned()),
        // What is not there is told by who starts it.
        StartServer::Auto if !unit.exists() => None,
        StartServer::Auto if is_named && !unit.is_packaged() => {
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

    fn unit(file: &str, file_state: &str) -> Unit {
        Unit {
            id: "x.service".into(),
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
        let ours = "/usr/lib/systemd/system/x.service";
        let others = "/etc/systemd/system/x.service";
        for (asked, named, file, state, expected) in [
            (StartServer::Auto, false, ours, "enabled", None),
            (StartServer::Auto, false, ours, "disabled", Some("x.service is disabled")),
            (StartServer::Auto, true, ours, "enabled", None),
            (StartServer::Auto, true, others, "enabled", Some("not the package's own")),
            (StartServer::Always, true, others, "disabled", None),
            (StartServer::Always, false, ours, "disabled", None),
            (StartServer::Never, false, ours, "enabled", Some("backup.start_server is false")),
        ] {
            let found = reason(asked, named, &unit(file, state));
            let is_expected = match (&found, expected) {
                (Some(found), Some(expected)) => found.contains(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{asked:?} {named} {file} {state}: {found:?}");
        }
    }
}
