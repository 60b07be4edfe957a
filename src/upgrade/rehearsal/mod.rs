//! The whole upgrade but the cut, on a copy that is thrown away, while the homeserver runs.

mod attempt;

use std::path::Path;

use indicatif::DecimalBytes;
use jiff::Timestamp;

use self::attempt::{Parts, attempt};
use super::facts;
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::postgres::{DataDirectory, Major};
use crate::report::Progress;
use crate::runtime::Runtime;
use crate::upgrade::check;
use crate::upgrade::plan::Plan;
use crate::upgrade::plan::choice::server_obstacles;
use crate::upgrade::records::Rehearsal;
use crate::upgrade::records::named_after;
use crate::upgrade::steps::temporary::{REHEARSAL, TemporaryClusters, clear_abandoned};
use crate::upgrade::steps::work::owner;

/// Where a rehearsal works: beside the data directory, under a name of its own.
fn place(mut plan: Plan) -> Plan {
    plan.beside = named_after(&plan.data_directory, &format!("{REHEARSAL}{}", plan.id));
    plan.copy = named_after(&plan.data_directory, &format!("{REHEARSAL}{}-copy", plan.id));
    plan.dump_directory = plan.dump_directory.with_file_name(format!("{REHEARSAL}{}", plan.id));
    plan
}

/// Tries the upgrade on a copy, writes down what it has shown, and throws the copy away.
///
/// # Errors
/// [`Kind::NotWell`] if an upgrade is not possible, or a copy is not; whatever the upgrade would fail with.
pub fn rehearse(
    settings: &Settings,
    runtime: &dyn Runtime,
    to: Option<Major>,
    progress: &mut dyn Progress,
) -> Result<Rehearsal> {
    let lock = Lock::take_cluster(settings, "rehearsal")?;
    clear_abandoned(settings)?;
    let plan = prepare(settings, runtime, to, &lock)?;
    log::info!("{}", describe(&plan));
    let account = owner(&DataDirectory::read(&plan.data_directory, Path::new("/proc"))?)?;
    let stage = TemporaryClusters::set(settings, &plan.id, vec![plan.copy.clone(), plan.beside.clone()])?;
    let mut rehearsal = Rehearsal {
        at: Timestamp::now(),
        from: plan.from,
        to: plan.to,
        method: plan.method,
        durations: Vec::new(),
        bytes: 0,
        data_bytes: Some(plan.bytes),
        problem: None,
    };
    let mut parts = Parts::of(&mut rehearsal);
    let tried = attempt(settings, runtime, &account, &plan, &mut parts, progress);
    parts.end();
    drop(stage);
    if let Err(error) = tried {
        let error = error.state("the homeserver has not noticed anything; the copy was thrown away");
        if error.kind() != Kind::Interrupted {
            let report = error.report();
            let lines: Vec<_> =
                report.lines().take(3).map(|line| line.trim_start_matches(" -> ").trim()).collect();
            rehearsal.problem = Some(lines.join(": "));
            rehearsal.write(&settings.state_directory)?;
        }
        return Err(error);
    }
    rehearsal.write(&settings.state_directory)?;
    Ok(rehearsal)
}

/// What a rehearsal does.
pub fn describe(plan: &Plan) -> String {
    format!(
        "rehearse the upgrade from PostgreSQL {} to {} by method {}: copy {} to {}, upgrade the copy, compare every row, \
         and throw it away; nothing is stopped",
        plan.from,
        plan.to,
        plan.method,
        DecimalBytes(plan.bytes),
        plan.copy.display()
    )
}

/// The plan of a rehearsal; nothing is changed. The caller holds the lock of the cluster.
///
/// # Errors
/// [`Kind::NotWell`].
pub fn prepare(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>, lock: &Lock) -> Result<Plan> {
    let plan = place(check::prepare(settings, runtime, to, lock)?);
    require_copy(settings, runtime, to, &plan).map(|()| plan)
}

/// Method `dump` does not need one, and its rehearsal does: of a server that goes on there is nothing to compare with.
fn require_copy(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>, plan: &Plan) -> Result<()> {
    if plan.method == Method::Online {
        return Ok(());
    }
    let facts = facts::gather(settings, runtime, to)?;
    let refuse = |message: String, hint: String| {
        let message = format!("a rehearsal works on a copy: {message}");
        Err(Error::new(Kind::NotWell, message).state("nothing was changed").hint(hint))
    };
    if let Some(cluster) = &facts.cluster
        && let Some(obstacle) =
            server_obstacles(cluster, facts.replication_refused.as_deref()).into_iter().next()
    {
        return refuse(
            obstacle.message,
            obstacle.hint.unwrap_or_else(|| "matrix-postgres-upgrade check".to_owned()),
        );
    }
    // The copy comes to all that the upgrade needs.
    facts.space.copy(2 * facts.data_bytes).or_else(|shortage| refuse(shortage, "df -h".to_owned()))
}
