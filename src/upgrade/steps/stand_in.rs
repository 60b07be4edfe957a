//! Units that name the server of an old cluster get that of the new one: a unit of ours stands for the one that they name.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files::exists;
use crate::systemd::Manager;
use crate::upgrade::records::{Registered, Upgrade, Which};
use crate::upgrade::steps::unit_file::{self, WRITTEN};

/// Where an administrator has units, and those that come before the package's.
const UNITS: &str = "/etc/systemd/system";

/// The two files, which are there as long as the new cluster is in place, for units that name the old one's. systemd reads
/// its units anew where it must: it starts other clusters at boot now, too.
///
/// # Errors
/// [`crate::Kind::File`]; those of systemd.
pub(in crate::upgrade) fn settle(upgrade: &Upgrade, which: Which, manager: &Manager) -> Result<()> {
    let Some(registered) = &upgrade.registered else { return Ok(()) };
    for (file, text) in files(upgrade, registered) {
        let is_ours = unit_file::is_ours(&file)?;
        match which {
            Which::New if registered.dependents.is_empty() => {}
            Which::New if exists(&file) && !is_ours => {
                log::warn!("{} is not from matrix-postgres-upgrade, and stays as it is", file.display());
            }
            Which::New => unit_file::write(&file, &text)?,
            Which::Old if is_ours => unit_file::remove(&file)?,
            Which::Old => {}
        }
    }
    manager.reload()
}

/// The file of the unit that is named, if there is one for it.
pub(in crate::upgrade) fn file(upgrade: &Upgrade) -> Option<PathBuf> {
    let registered = upgrade.registered.as_ref()?;
    (!registered.dependents.is_empty()).then(|| Path::new(UNITS).join(&upgrade.server_unit))
}

fn files(upgrade: &Upgrade, registered: &Registered) -> [(PathBuf, String); 2] {
    let Upgrade { from, to, server_unit: old, .. } = upgrade;
    let Registered { name, server_unit: new, .. } = registered;
    let units = Path::new(UNITS);
    let stand_in = format!(
        "{WRITTEN} the cluster {from}/{name} was upgraded to {to}/{name}. Units that\n\
         # name this one get the server of {to}/{name}; \"matrix-postgres-upgrade rollback\" removes this file. The server of\n\
         # {from}/{name} is started by: pg_ctlcluster --skip-systemctl-redirect {from} {name} start\n\
         [Unit]\nDescription=PostgreSQL cluster {from}/{name}, upgraded to {to}/{name}\n\
         Documentation=man:matrix-postgres-upgrade(1)\nBindsTo={new}\nAfter={new}\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    );
    let wish = format!("{WRITTEN} see {old}.\n[Unit]\nWants={old}\n");
    [(units.join(old), stand_in), (units.join(format!("{new}.d/50-matrix-postgres-upgrade.conf")), wish)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::records::registered::tests::registered;

    #[test]
    fn it_stands_for_the_unit_that_is_named_only_where_one_names_it() {
        let mut upgrade = registered();
        assert_eq!(file(&upgrade), None);
        upgrade.registered.as_mut().unwrap().dependents.push("matrix-synapse.service".into());
        let unit = Path::new("/etc/systemd/system/postgresql@15-main.service");
        assert_eq!(file(&upgrade).as_deref(), Some(unit));
        let [(stand_in, text), (drop_in, wish)] = files(&upgrade, upgrade.registered.as_ref().unwrap());
        assert_eq!(stand_in, unit);
        assert!(
            text.contains("\nBindsTo=postgresql@17-main.service\nAfter=postgresql@17-main.service\n"),
            "{text}"
        );
        let expected = "/etc/systemd/system/postgresql@17-main.service.d/50-matrix-postgres-upgrade.conf";
        assert_eq!(drop_in, Path::new(expected));
        assert!(wish.ends_with("Wants=postgresql@15-main.service\n"), "{wish}");
    }
}
