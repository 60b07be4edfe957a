//! What is stopped, and who is connected.

use super::super::report::Weight;
use super::Findings;
use crate::upgrade::facts::Facts;
use crate::upgrade::facts::connected::Connected;
use crate::upgrade::facts::units::Units;

const WHO: &str = "matrix-postgres-cli -c 'SELECT * FROM pg_catalog.pg_stat_activity' shows the sessions; iproute2 brings ss";

impl Findings {
    pub(in crate::upgrade::check) fn units(&mut self, facts: &Facts) {
        let units = match &facts.units {
            Ok(units) => units,
            Err(reason) => {
                return self.add(
                    Weight::Blocker,
                    format!("systemd cannot be asked which units there are, and which of them run: {reason}"),
                    Some("systemctl status dbus.service"),
                );
            }
        };
        self.sessions(units, &facts.server_unit);
        for unit in &units.missing {
            self.add(
                Weight::Blocker,
                format!("there is no unit {unit}"),
                Some("clients and server.unit in /etc/matrix-postgres/config.toml name units"),
            );
        }
        for shadowed in &units.shadowed {
            self.add(Weight::Blocker, shadowed.to_string(), Some(&shadowed.hint()));
        }
        match units.clients.is_empty() {
            true => self.add(
                Weight::Warning,
                "no unit of a client runs; those that are started by other means must be stopped by hand",
                Some("clients in /etc/matrix-postgres/config.toml names their units"),
            ),
            false => {
                self.add(
                    Weight::Fact,
                    format!("to be stopped and started: {}", units.clients.join(", ")),
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
                    format!("it is not known which units are connected to the server: {reason}"),
                    Some(WHO),
                );
            }
        };
        for Connected { who, unit, count } in connected {
            match unit {
                Some(unit) if !units.clients.contains(unit) && unit != server => self.add(
                    Weight::Warning,
                    format!("connected: {who}, {count} times, of {unit}, which nobody stops: it will be cut off"),
                    Some("clients.units in /etc/matrix-postgres/config.toml names what is stopped and started again"),
                ),
                Some(unit) => self.add(Weight::Fact, format!("connected: {who}, {count} times, of {unit}"), None),
                None => self.add(Weight::Fact, format!("connected: {who}, {count} times"), None),
            }
        }
    }
}
