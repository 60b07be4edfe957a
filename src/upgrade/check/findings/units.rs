//! What is stopped, and who is connected.

use super::super::report::Weight;
use super::Findings;
use crate::clients::{Connected, Origin, UNKNOWN};
use crate::upgrade::facts::Facts;
use crate::upgrade::facts::units::Units;

const WHO: &str = "matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_stat_activity' shows the sessions";

impl Findings {
    pub(in crate::upgrade::check) fn units(&mut self, facts: &Facts) {
        let units = match &facts.units {
            Ok(units) => units,
            Err(reason) => {
                return self.add(
                    Weight::Blocker,
                    format!("could not ask systemd for its units: {reason}"),
                    Some("systemctl status dbus.service"),
                );
            }
        };
        self.sessions(units, &facts.server_unit);
        for unit in &units.missing {
            self.add(
                Weight::Blocker,
                format!("unit {unit} not found"),
                Some("check clients.units and server.unit in /etc/matrix-postgres/config.toml"),
            );
        }
        for shadowed in &units.shadowed {
            self.add(Weight::Blocker, shadowed.to_string(), Some(&shadowed.hint()));
        }
        match units.clients.is_empty() {
            true => self.add(
                Weight::Warning,
                "no service of clients.units is running; programs that were started by other means must be stopped by hand",
                Some("list the services in clients.units in /etc/matrix-postgres/config.toml"),
            ),
            false => {
                self.add(
                    Weight::Fact,
                    format!("services to be stopped and started: {}", units.clients.join(", ")),
                    None,
                );
            }
        }
    }

    /// Who is not stopped is cut off; that it cannot be told who that is, is told.
    fn sessions(&mut self, units: &Units, server: &str) {
        let connected = match &units.connected {
            Ok(connected) => connected,
            Err(reason) => {
                return self.add(Weight::Warning, format!("{UNKNOWN}: {reason}"), Some(WHO));
            }
        };
        for sessions in connected {
            let described = sessions.describe();
            match sessions.is_stopped(&units.clients, server) {
                true => self.add(Weight::Fact, format!("connected: {described}"), None),
                false => self.add(
                    Weight::Warning,
                    format!("connected: {described}: will be disconnected"),
                    Some(&hint(sessions)),
                ),
            }
        }
    }
}

/// What may be done about sessions that no unit that is stopped has.
fn hint(sessions: &Connected) -> String {
    match sessions.origins.first() {
        Some(Origin::Unit(unit)) => {
            format!("stop it by hand; or add {unit} to clients.units in /etc/matrix-postgres/config.toml")
        }
        Some(Origin::Container { name, program }) => {
            format!("{program} stop {name}, and start it again afterwards; or run it by a unit")
        }
        Some(Origin::Address(_)) | None => "stop it by hand, and start it again afterwards".to_owned(),
    }
}
