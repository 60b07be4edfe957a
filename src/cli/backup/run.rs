//! `run`: makes a backup.

use jiff::{Timestamp, ZonedDateTime};

use super::status;
use crate::backup::run;
use crate::config::Settings;
use crate::error::Result;
use crate::report::{self, event};
use crate::runtime::interrupt;
use crate::systemd::notify;

pub(super) fn dry_run(settings: &Settings) -> Result<()> {
    let plan = run::dry_run(settings, &crate::cli::programs(settings), Timestamp::now())?;
    crate::cli::print(&format!("{plan}\n"))
}

pub(super) fn run(settings: &Settings) -> Result<()> {
    interrupt::listen()?;
    notify::status("preparing");
    let mut progress = report::progress(crate::cli::on_terminal());
    let outcome =
        run::run(settings, &crate::cli::programs(settings), progress.as_mut(), &ZonedDateTime::now());
    // Neither good nor bad news is kept from those who watch.
    if let Ok(status) = status::now(settings) {
        status::publish(settings, &status);
        for problem in &status.problems {
            log::warn!(MESSAGE_ID = event::NOT_WELL; "{problem}");
        }
    }
    notify::status(&outcome?.summary());
    Ok(())
}
