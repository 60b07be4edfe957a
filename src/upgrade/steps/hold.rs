//! Whether the data directory is ours to work on: nobody else's server has it, and the unit that runs it is ours.

use crate::config::Settings;
use crate::error::Result;
use crate::postgres::Occupant;
use crate::systemd::Manager;

/// What a unit of ours may have left there.
const OURS: &str = "matrix-postgres-";

/// Makes sure of it, before anything is done.
///
/// # Errors
/// [`crate::Kind::DataDirectory`] naming who has it; [`crate::Kind::UnitRefused`] if the unit is another's; others if that
/// cannot be asked.
pub(in crate::upgrade) fn require(settings: &Settings, manager: &Manager) -> Result<()> {
    let server = &settings.server;
    let nothing = "nothing was stopped, and nothing was changed";
    manager.require_ours(&server.unit, server.is_unit_named).map_err(|error| error.state(nothing))?;
    let own = manager.unit_of(0)?;
    match Occupant::find(&settings.data_directory)? {
        Some(occupant) if is_anothers(&occupant, &server.unit, own.as_deref()) => {
            Err(occupant.refusal(&settings.data_directory).state(nothing))
        }
        _ => Ok(()),
    }
}

/// A server that no unit has, or one of ours, is what a dead run has left.
fn is_anothers(occupant: &Occupant, server_unit: &str, own: Option<&str>) -> bool {
    let is_ours = |unit: &str| unit == server_unit || unit.starts_with(OURS) || own == Some(unit);
    occupant.container.is_some()
        || occupant.unit.as_deref().map_or(occupant.pid.is_none(), |unit| !is_ours(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::occupant::Container;

    #[test]
    fn what_a_dead_run_has_left_is_ours() {
        let of = |pid: Option<i32>, unit: Option<&str>, is_apart: bool| {
            let container = is_apart.then_some(Container { name: None, program: None });
            let occupant = Occupant { pid, unit: unit.map(str::to_owned), container, program: None };
            is_anothers(&occupant, "matrix-postgres.service", Some("ansible.service"))
        };
        for ours in ["matrix-postgres.service", "matrix-postgres-upgrade.service", "ansible.service"] {
            assert!(!of(Some(1), Some(ours), false) && of(Some(1), Some(ours), true), "{ours}");
        }
        assert!(!of(Some(1), None, false) && of(None, None, false));
        assert!(of(Some(1), Some("postgresql@15-main.service"), false));
    }
}
