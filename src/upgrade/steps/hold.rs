//! Whether the data directory is ours to work on: nobody else's server has it, and the unit that runs it is ours.

use crate::config::Settings;
use crate::error::Result;
use crate::postgres::Occupant;
use crate::systemd::Manager;
use crate::upgrade::records::{Upgrade, Which};

/// What a unit of ours may have left there.
const OURS: &str = "matrix-postgres-";

/// Makes sure of it, before anything is done.
///
/// # Errors
/// [`crate::Kind::DataDirectory`] naming who has it; [`crate::Kind::UnitRefused`] if the unit is another's; others if that
/// cannot be asked.
pub(in crate::upgrade) fn require(settings: &Settings, upgrade: &Upgrade, manager: &Manager) -> Result<()> {
    let nothing = "nothing was stopped, and nothing was changed";
    let own = manager.unit_of(0)?;
    let container = upgrade.container.as_ref().map(|container| container.name.as_str());
    for which in [Which::Old, Which::New] {
        let (unit, home) = (upgrade.unit(which), upgrade.home(which));
        manager.require_ours(unit, settings.server.is_unit_named).map_err(|error| error.state(nothing))?;
        match Occupant::find(home)? {
            Some(occupant) if is_anothers(&occupant, unit, own.as_deref(), container) => {
                return Err(occupant.refusal(home).state(nothing));
            }
            _ => {}
        }
        if upgrade.registered.is_none() {
            break;
        }
    }
    Ok(())
}

/// A server that no unit has, or one of ours, is what a dead run has left.
fn is_anothers(occupant: &Occupant, server_unit: &str, own: Option<&str>, container: Option<&str>) -> bool {
    let is_ours = |unit: &str| unit == server_unit || unit.starts_with(OURS) || own == Some(unit);
    if container.is_some_and(|container| occupant.is_in(container)) {
        return false;
    }
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
            is_anothers(&occupant, "matrix-postgres.service", Some("ansible.service"), Some("ours"))
        };
        for ours in ["matrix-postgres.service", "matrix-postgres-upgrade.service", "ansible.service"] {
            assert!(!of(Some(1), Some(ours), false) && of(Some(1), Some(ours), true), "{ours}");
        }
        assert!(!of(Some(1), None, false) && of(None, None, false));
        assert!(of(Some(1), Some("postgresql@15-main.service"), false));
    }
}
