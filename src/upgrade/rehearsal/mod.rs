//! The whole upgrade but the cut, on a copy that is thrown away, while the homeserver runs.

mod stage;
mod structure;

use std::path::Path;

use jiff::Timestamp;

use self::stage::OnCopy;
use crate::config::{Method, Settings};
use crate::error::{Error, Kind, Result};
use crate::files::{exists, size_of};
use crate::lock::Lock;
use crate::postgres::{DataDirectory, Major};
use crate::report::DecimalBytes;
use crate::report::Progress;
use crate::runtime::Runtime;
use crate::upgrade::facts::Facts;
use crate::upgrade::plan::Plan;
use crate::upgrade::plan::choice::server_obstacles;
use crate::upgrade::records::{Rehearsal, Upgrade, named_after};
use crate::upgrade::steps::site::Site;
use crate::upgrade::steps::temporary::{REHEARSAL, TemporaryClusters, clear_abandoned};
use crate::upgrade::steps::work::owner;
use crate::upgrade::{check, methods};

/// Where a rehearsal works: beside the data directory, under names of its own.
fn place(mut plan: Plan) -> Plan {
    let Upgrade { id, data_directory, dump_directory, .. } = &plan.upgrade;
    let place = |suffix: &str| named_after(data_directory, &format!("{REHEARSAL}{id}{suffix}"));
    let beside = place("");
    plan.upgrade = Upgrade {
        copy: Some(place("-copy")),
        dump_directory: dump_directory.with_file_name(format!("{REHEARSAL}{id}")),
        ..plan.upgrade.thrown_away(beside)
    };
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
    let account = owner(&DataDirectory::read(&plan.upgrade.data_directory, Path::new("/proc"))?)?;
    let directories = vec![plan.upgrade.copy()?.to_owned(), plan.upgrade.beside.clone()];
    let clusters = TemporaryClusters::set(settings, &plan.upgrade.id, directories)?;
    let mut rehearsal = Rehearsal {
        at: Timestamp::now(),
        from: plan.upgrade.from,
        to: plan.upgrade.to,
        method: plan.upgrade.method,
        durations: Vec::new(),
        bytes: 0,
        data_bytes: Some(plan.bytes),
        compared: None,
        problem: None,
    };
    let mut stage = OnCopy::new(&mut rehearsal, progress, settings.upgrade.compare);
    let site = Site { settings, runtime, account: &account, plan: &plan };
    let tried = methods::build(&mut stage, &site);
    stage.end();
    let tried = tried.and_then(|()| size(&plan.upgrade));
    drop(clusters);
    let tried = tried.map(|bytes| rehearsal.bytes = bytes);
    if let Err(error) = tried {
        let error = error.state("the homeserver was not affected; the copy was removed");
        if error.kind() != Kind::Interrupted {
            rehearsal.problem = Some(error.one_line());
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
         and remove it; nothing is stopped",
        plan.upgrade.from,
        plan.upgrade.to,
        plan.upgrade.method,
        DecimalBytes(plan.bytes),
        plan.upgrade.copy.as_deref().unwrap_or(Path::new("?")).display()
    )
}

/// Bytes that it has taken on the disk.
fn size(upgrade: &Upgrade) -> Result<u64> {
    let bytes = |path: &Path| if exists(path) { size_of(path) } else { Ok(0) };
    let (copy, new) = (bytes(upgrade.copy()?)?, bytes(&upgrade.beside)?);
    Ok(match upgrade.method {
        // They share their files.
        Method::Online => copy.max(new),
        Method::Dump => copy + new,
    })
}

/// The plan of a rehearsal; nothing is changed. The caller holds the lock of the cluster.
///
/// # Errors
/// [`Kind::NotWell`].
pub fn prepare(settings: &Settings, runtime: &dyn Runtime, to: Option<Major>, lock: &Lock) -> Result<Plan> {
    let (plan, facts) = check::prepare(settings, runtime, to, lock)?;
    require_copy(&facts, plan.upgrade.method).map(|()| place(plan))
}

/// Method `dump` does not need one, and its rehearsal does: of a server that goes on there is nothing to compare with.
fn require_copy(facts: &Facts, method: Method) -> Result<()> {
    if method == Method::Online {
        return Ok(());
    }
    let refuse = |message: String, hint: String| {
        let message = format!("the rehearsal needs a physical copy: {message}");
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
