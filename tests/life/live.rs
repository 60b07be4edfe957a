//! Carries a step out.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::deed::{Deed, Fate};
use super::steps::{Change, Method, Step, Target, Trouble, Verb, Victim};
use super::world::{BACKUPS, STATE, World};
use crate::machine::Output;

/// What was done; nothing where the step has nothing to do.
type Lived = Result<Option<Deed>, String>;

/// A verb, ready to be begun.
struct Prepared {
    script: String,
    backup: Option<String>,
    target: u64,
}

/// Of the programs that a step has begun; by their ids, and only while these are still theirs.
const KILL: &str = "pid=$(cat /run/life.pid); \
    case $(cat /proc/$pid/comm 2>/dev/null) in matrix-postgres*) kill -KILL $pid;; esac; \
    for unit in backup backup-verify upgrade; do \
        systemctl kill --kill-whom=WHOM --signal=KILL matrix-postgres-$unit.service 2>/dev/null || true; done";

const BACKUP: &str = "systemctl start --no-block matrix-postgres-backup.service";

/// The backend of a client. Where the server is down already, it cannot crash.
const CRASH: &str = "pid=$(matrix-postgres-cli -d postgres -XAtqc \"SELECT pid FROM pg_stat_activity \
    WHERE datname = 'homeserver' ORDER BY backend_start DESC LIMIT 1\" 2>/dev/null || true); \
    test -z \"$pid\" || kill -KILL $pid || true";

const REINSTALL: &str =
    "DEBIAN_FRONTEND=noninteractive apt-get install --yes --reinstall /root/matrix-postgres.deb 2>&1";

/// The package before this one, or the same payload with a lower number, and then the present one again.
const PREVIOUS: &str = "cd /root; export DEBIAN_FRONTEND=noninteractive; \
    if ! test -e previous.deb; then \
        dpkg-deb -R matrix-postgres.deb previous && sed -i 's/^Version: .*/Version: 0.0.1-1/' previous/DEBIAN/control && \
        dpkg-deb -Znone -b previous previous.deb >/dev/null && rm -r previous; fi; \
    dpkg -i previous.deb 2>&1 && dpkg -i matrix-postgres.deb 2>&1";

pub fn live(world: &World<'_>, step: Step) -> Lived {
    match step {
        Step::Do(verb) => {
            let act = |prepared: &Prepared| Ok(Some(world.machine.run(&prepared.script)));
            with(world, verb, Fate::Undisturbed, act)
        }
        Step::Killed(verb, victim, delay) => {
            let whom = if victim == Victim::All { "all" } else { "main" };
            in_the_middle(world, verb, delay, &KILL.replace("WHOM", whom), Fate::Killed)
        }
        Step::BackupInside(verb, delay) => in_the_middle(world, verb, delay, BACKUP, Fate::Undisturbed),
        Step::BackendCrashes(None) => {
            world.machine.ok(CRASH);
            Ok(Some(Deed::nothing()))
        }
        Step::BackendCrashes(Some((verb, delay))) => in_the_middle(world, verb, delay, CRASH, Fate::Troubled),
        Step::PowerCut(None) => {
            world.machine.power_cut();
            boot(world)
        }
        Step::PowerCut(Some((verb, delay))) => with(world, verb, Fate::CutOff, |prepared| {
            let child = begin(world, &prepared.script)?;
            std::thread::sleep(Duration::from_millis(delay));
            world.machine.power_cut();
            ended(child)?;
            boot(world).map(|_| None)
        }),
        Step::Reboot => {
            world.machine.power_off();
            boot(world)
        }
        Step::Reinstall => install(world, REINSTALL),
        Step::FromPrevious => {
            if let Some(package) = std::env::var_os("LIFE_PREVIOUS") {
                world.machine.copy_in(package.as_ref(), "/root/previous.deb");
            }
            install(world, PREVIOUS)
        }
        Step::During(trouble, verb) => during(world, trouble, verb),
        Step::Configure(change) => {
            configure(world, change);
            Ok(Some(Deed::nothing()))
        }
    }
}

fn install(world: &World<'_>, script: &str) -> Lived {
    let output = world.machine.run(script);
    match output.status {
        0 => Ok(Some(Deed::nothing())),
        _ => Err(format!("the package cannot be installed\n{output}")),
    }
}

fn boot(world: &World<'_>) -> Lived {
    world.machine.boot_again().map_err(|error| format!("the machine does not boot\n{error}"))?;
    world.start_writer();
    Ok(Some(Deed::nothing()))
}

fn begin(world: &World<'_>, script: &str) -> Result<Child, String> {
    let mut command = world.machine.command(&format!("echo $$ >/run/life.pid; exec {script}"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())
}

fn ended(child: Child) -> Result<Output, String> {
    child.wait_with_output().map(Output::from).map_err(|error| error.to_string())
}

/// The instant is the seed's: whatever is under way then.
fn in_the_middle(world: &World<'_>, verb: Verb, delay: u64, event: &str, fate: Fate) -> Lived {
    with(world, verb, fate, |prepared| {
        let child = begin(world, &prepared.script)?;
        std::thread::sleep(Duration::from_millis(delay));
        world.machine.ok(event);
        ended(child).map(Some)
    })
}

fn with(
    world: &World<'_>,
    verb: Verb,
    fate: Fate,
    act: impl FnOnce(&Prepared) -> Result<Option<Output>, String>,
) -> Lived {
    let Some(prepared) = prepare(world, verb) else { return Ok(None) };
    let output = act(&prepared)?;
    let Prepared { backup, target, .. } = prepared;
    Ok(Some(Deed { verb: Some(verb), fate, output, backup, target }))
}

/// Nothing where the verb has nothing to do.
fn prepare(world: &World<'_>, verb: Verb) -> Option<Prepared> {
    let seen = &world.seen;
    let verified: Vec<_> =
        seen.backups.iter().filter(|(_, backup)| backup.verified).map(|(name, _)| name).collect();
    let newest = seen.backups.keys().next_back();
    let mut backup = None;
    let mut target = 0;
    let script = match verb {
        Verb::Backup => "systemctl start matrix-postgres-backup.service".to_owned(),
        Verb::BackupByHand => "matrix-postgres-backup run".to_owned(),
        Verb::Trial => newest.map(|_| "systemctl start matrix-postgres-backup-verify.service".to_owned())?,
        Verb::Verify => newest.map(|_| "matrix-postgres-backup verify".to_owned())?,
        Verb::Restore(back) => {
            let name = verified.iter().rev().cycle().nth(back)?;
            backup = Some((*name).clone());
            // What the last one has put aside is the administrator's to remove.
            drop_databases(world, &seen.restored());
            format!("matrix-postgres-backup restore {name} --yes")
        }
        Verb::RestoreAs(back) => {
            let name = verified.iter().rev().cycle().nth(back)?;
            backup = Some((*name).clone());
            drop_databases(
                world,
                &seen.databases.iter().filter(|name| *name == "beside").collect::<Vec<_>>(),
            );
            format!("matrix-postgres-backup restore {name} --as beside --yes")
        }
        Verb::Rehearse => {
            to(seen.major, Target::Newest)?;
            "matrix-postgres-upgrade rehearse".to_owned()
        }
        Verb::Upgrade(method, wanted) => {
            target = to(seen.major, wanted)?;
            let text = format!("[upgrade]\nmethod = \"{}\"\nto = {target}\n", name_of(method));
            world.machine.ok("mkdir -p /etc/matrix-postgres/config.d");
            world.machine.write("/etc/matrix-postgres/config.d/life.toml", &text);
            "systemctl start matrix-postgres-upgrade.service".to_owned()
        }
        Verb::UpgradeByHand(method, wanted) => {
            target = to(seen.major, wanted)?;
            format!("matrix-postgres-upgrade run --method {} --to {target}", name_of(method))
        }
        Verb::Rollback => {
            seen.way_back()?;
            // This, too.
            world.machine.ok("rm -rf /matrix/postgres/data.upgrade-*");
            "matrix-postgres-upgrade rollback --yes".to_owned()
        }
        Verb::Prune => "matrix-postgres-backup prune".to_owned(),
    };
    if !matches!(verb, Verb::Upgrade(..)) {
        world.machine.ok("rm -f /etc/matrix-postgres/config.d/life.toml");
    }
    Some(Prepared { script, backup, target })
}

/// The versions that are installed in the machine.
fn to(major: u64, target: Target) -> Option<u64> {
    match (major, target) {
        (17.., _) => None,
        (..15, Target::Next) => Some(15),
        _ => Some(17),
    }
}

fn drop_databases(world: &World<'_>, names: &[&String]) {
    for name in names {
        world.machine.ok(&format!("matrix-postgres-cli -d postgres -Xqc 'DROP DATABASE \"{name}\"'"));
    }
}

fn name_of(method: Method) -> &'static str {
    match method {
        Method::Dump => "dump",
        Method::Online => "online",
    }
}

/// A file system that is full or read-only is laid over the directory; what was written to the first goes over.
fn during(world: &World<'_>, trouble: Trouble, verb: Verb) -> Lived {
    let (begin, relieve, end) = match trouble {
        Trouble::BackupsFull => (
            format!(
                "mount -t tmpfs -o size=64k,mode=0700,uid=$(id -u matrix-postgres),gid=$(id -g matrix-postgres) full {BACKUPS}"
            ),
            format!("umount --lazy {BACKUPS}"),
            String::new(),
        ),
        Trouble::StateFull => (
            format!(
                "mkdir -p /run/life-full && mount -t tmpfs -o size=1m full /run/life-full && cp -a {STATE}/. /run/life-full && \
                 mount --bind /run/life-full {STATE}; cat /dev/zero >{STATE}/filler 2>/dev/null || true"
            ),
            format!("rm -f {STATE}/filler"),
            format!(
                "umount --lazy {STATE} && find {STATE} -mindepth 1 -delete && cp -a /run/life-full/. {STATE} && umount /run/life-full"
            ),
        ),
        Trouble::StateReadOnly => (
            format!("mount --bind {STATE} {STATE} && mount -o remount,ro,bind {STATE}"),
            format!("umount --lazy {STATE}"),
            String::new(),
        ),
    };
    with(world, verb, Fate::Troubled, |prepared| {
        world.machine.ok(&begin);
        let output = world.machine.run(&prepared.script);
        world.machine.ok(&relieve);
        world.settle()?;
        world.machine.ok(&end);
        Ok(Some(output))
    })
}

fn configure(world: &World<'_>, change: Change) {
    let text = match change {
        Change::Compression => "[backup]\ncompression = \"gzip\"\n",
        Change::Keep => "[backup.keep]\nlast = 2\ndaily = 1\nweekly = 0\nmonthly = 0\n",
        Change::Listen => "[server]\nlisten = [\"127.0.0.1\"]\n",
        Change::Content => "[upgrade]\ncompare = \"content\"\n",
    };
    let file = format!("/etc/matrix-postgres/config.d/{change:?}.toml");
    world.machine.ok(&format!(
        "mkdir -p /etc/matrix-postgres/config.d; if test -e {file}; then rm {file}; else printf %s {} >{file}; fi",
        crate::machine::synapse::quote(text)
    ));
    if change == Change::Listen {
        world.machine.ok("systemctl restart matrix-postgres.service");
    }
}
