//! What is stopped, and who is connected.

use super::super::report::Weight;
use super::Findings;
use crate::upgrade::facts::Facts;
use crate::upgrade::facts::connected::Connected;
use crate::upgrade::facts::units::Units;

const WHO: &str = "matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_stat_activity' shows the sessions; ss is in the package iproute2";

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
                return self.add(
                    Weight::Warning,
                    format!("could not determine which units are connected to the server: {reason}"),
                    Some(WHO),
                );
            }
        };
        for Connected { who, unit, count } in connected {
            match unit {
                Some(unit) if !units.clients.contains(unit) && unit != server => self.add(
                    Weight::Warning,
                    format!("connected: {who}, sessions: {count}, from {unit}, not in clients.units: will be disconnected"),
                    Some("add it to clients.units in /etc/matrix-postgres/config.toml to have it stopped and started"),
                ),
                Some(unit) => self.add(Weight::Fact, format!("connected: {who}, sessions: {count}, from {unit}"), None),
                None => self.add(Weight::Fact, format!("connected: {who}, sessions: {count}"), None),
            }
        }
    }
}
