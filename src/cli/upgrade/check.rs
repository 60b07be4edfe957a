//! `check`: what stands in the way of an upgrade.

use std::process::ExitCode;

use crate::cli::At;
use crate::config::{Method, Settings};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::place::{Cluster, Packaging, Place};
use crate::postgres::Major;
use crate::runtime::interrupt;
use crate::upgrade::check::{self, Finding, Report, Weight, trial};

/// Looks, and tells; `possible` is whether the server is one that can be upgraded at all.
pub(super) fn check(
    settings: &Settings,
    to: Option<Major>,
    server: Option<&Place>,
    possible: &Result<()>,
    json: bool,
) -> Result<ExitCode> {
    let report = match possible {
        Ok(()) => look(settings, to)?,
        Err(error) => refusal(settings, server, error),
    };
    match (json, server) {
        (true, Some(server)) => crate::cli::print_json(&At { server, said: &report })?,
        (true, None) => crate::cli::print_json(&report)?,
        (false, _) => {
            let server = server.map(|server| format!("server: {server}\n")).unwrap_or_default();
            crate::cli::print(&format!("{server}{report}\n"))?;
        }
    }
    Ok(crate::cli::well(report.is_possible()))
}

fn look(settings: &Settings, to: Option<Major>) -> Result<Report> {
    interrupt::listen()?;
    let lock = Lock::cluster_only(settings, "check")?;
    Ok(check::check(&trial::gather(settings, &crate::cli::host(settings), to, &lock)?))
}

/// The clusters of other packages than Debian's, and servers of other machines and of containers, are not upgraded by us.
pub(super) fn require_known(place: &Place) -> Result<()> {
    if let Some(Cluster { packaging: Packaging::Debian, .. }) = place.cluster() {
        return Ok(());
    }
    if let Place::Container { container, .. } = place {
        return container.require_within_reach();
    }
    place.require_own("is not upgraded by this version").map_err(|error| {
        error.hint(match place {
            Place::External { .. } => {
                "make a backup, matrix-postgres-backup run; the server is upgraded where it runs"
            }
            _ => "make a backup, matrix-postgres-backup run, and see pg_upgrade(1)",
        })
    })
}

/// The answer to `check` where nothing else matters.
fn refusal(settings: &Settings, place: Option<&Place>, error: &Error) -> Report {
    Report {
        from: place.and_then(Place::major),
        to: settings.upgrade.to,
        method: settings.upgrade.method.unwrap_or(Method::Online),
        findings: vec![Finding {
            weight: Weight::Blocker,
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }],
    }
}
