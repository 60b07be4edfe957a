//! A playbook's unit runs the image of the version that is in place: a drop-in of ours beside its file says so where that does not,
//! and lets nothing start the unit while there may be none in place.

use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{beneath, exists};
use crate::place::image::{self, Run};
use crate::systemd::Manager;
use crate::upgrade::records::{Container, Upgrade, Which};
use crate::upgrade::steps::unit_file::{self, WRITTEN};

/// A unit's file is no longer than that.
const MODEST: u64 = 1 << 16;

/// The drop-in of an upgrade of a server in a container.
pub(in crate::upgrade) fn file(upgrade: &Upgrade) -> Option<PathBuf> {
    upgrade.container.as_ref().map(|_| image::drop_in_of(Path::new("/"), &upgrade.server_unit))
}

/// From here on nobody starts the unit, on a cluster that servers of ours may work on: they would not see each other.
///
/// # Errors
/// [`Kind::File`]; those of systemd.
pub(in crate::upgrade) fn bar(upgrade: &Upgrade, manager: &Manager) -> Result<()> {
    let Some(file) = file(upgrade) else { return Ok(()) };
    require_ours(&file)?;
    let shown = file.display();
    let text = format!(
        "{WRITTEN} an upgrade is under way, and this unit is not to be started.\n\
         # \"matrix-postgres-upgrade recover\" replaces this file.\n[Unit]\nAssertPathExists=!{shown}\n"
    );
    unit_file::write(&file, &text)?;
    manager.reload()
}

/// Lets the unit run the image for the cluster that is in place. It can be repeated.
///
/// # Errors
/// [`Kind::File`]; [`Kind::UnitRefused`] if the unit's file is another one than it was, and says nothing that could be changed;
/// those of systemd.
pub(in crate::upgrade) fn settle(upgrade: &Upgrade, which: Which, manager: &Manager) -> Result<()> {
    let (Some(file), Some(run)) = (file(upgrade), upgrade.run(which)) else { return Ok(()) };
    require_ours(&file)?;
    match said(upgrade, run, which, manager)? {
        Some(text) => unit_file::write(&file, &text)?,
        None => unit_file::remove(&file)?,
    }
    manager.reload()
}

/// The drop-in's text, if there must be one.
fn said(upgrade: &Upgrade, run: &Run, which: Which, manager: &Manager) -> Result<Option<String>> {
    let unit = &upgrade.server_unit;
    let (path, text) = unit_text(unit, manager)?;
    let commands = image::drop_in(&text, unit, run).map_err(|reason| {
        Error::new(
            Kind::UnitRefused,
            format!("{} cannot be made to run {}: {reason}", path.display(), run.image),
        )
        .hint(format!("let {} name this image, then: matrix-postgres-upgrade recover", path.display()))
    })?;
    let major = match which {
        Which::Old => upgrade.from,
        Which::New => upgrade.to,
    };
    Ok(commands.map(|commands| {
        format!(
            "{WRITTEN} the cluster in {} is of PostgreSQL {major},\n\
             # and {unit} runs {image}. \"matrix-postgres-upgrade rollback\" removes this file. Once {path} itself names an image\n\
             # of PostgreSQL {major}, as the playbook writes it the next time, remove it, and: systemctl daemon-reload\n{commands}",
            upgrade.home(which).display(),
            image = run.image,
            path = path.display(),
        )
    }))
}

fn unit_text(unit: &str, manager: &Manager) -> Result<(PathBuf, String)> {
    let path = manager.unit(unit)?.fragment_path;
    let path = path.ok_or_else(|| Error::new(Kind::NoUnit, format!("{unit} has no file")))?;
    let text = beneath::read(&path, MODEST).at("read", &path)?;
    Ok((path, String::from_utf8_lossy(&text).into_owned()))
}

fn require_ours(file: &Path) -> Result<()> {
    match exists(file) && !unit_file::is_ours(file)? {
        false => Ok(()),
        true => Err(Error::new(
            Kind::UnitRefused,
            format!("{} is not from matrix-postgres-upgrade", file.display()),
        )
        .hint(format!("give it another name: {}", file.display()))),
    }
}

/// What to say of the drop-in while the new cluster is in place.
pub(in crate::upgrade) fn told(upgrade: &Upgrade) -> Option<String> {
    let (Upgrade { server_unit, to, .. }, Container { old, new, .. }) =
        (upgrade, upgrade.container.as_ref()?);
    let file = file(upgrade).filter(|file| exists(file))?;
    let now = Manager::connect().and_then(|manager| unit_text(server_unit, &manager));
    let shown = file.display();
    Some(match now.map(|(path, text)| (path, image::drop_in(&text, server_unit, old))) {
        // Its own file names the old image no more.
        Ok((path, Ok(Some(_)))) => format!(
            "{} was written anew since the upgrade; if it names an image of PostgreSQL {to}, remove {shown}, then: \
             systemctl daemon-reload",
            path.display()
        ),
        _ => format!(
            "{shown} lets {server_unit} run {}, until the playbook writes an image of PostgreSQL {to} into the unit itself",
            new.image
        ),
    })
}
