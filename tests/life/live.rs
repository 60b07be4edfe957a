//! Carries a step out.

use std::process::Child;
use std::time::Duration;

use super::steps::{Change, Method, Step, Trouble, Verb};
use super::world::{BACKUPS, Mark, PATIENCE, STATE, World};
use crate::machine::Output;
use crate::machine::upgrade::version;

/// Nothing where the step has nothing to do.
type Lived = Result<Option<()>, String>;

/// A verb, ready to be begun.
struct Prepared {
    script: String,
    before: Mark,
    /// What the verb itself announces to give up.
    gives_up: Option<Mark>,
}

/// Of the programs that a step has begun; by their ids, and only while these are still theirs.
const KILL: &str = "pid=$(cat /run/life.pid); \
    case $(cat /proc/$pid/comm 2>/dev/null) in matrix-postgres*) kill -KILL $pid;; esac; \
    for unit in backup backup-verify upgrade; do \
        systemctl kill --kill-who=main --signal=KILL matrix-postgres-$unit.service 2>/dev/null || true; done";

pub fn live(world: &mut World<'_>, step: Step) -> Lived {
    match step {
        Step::Do(verb) => with(world, verb, |world, prepared| {
            let output = world.machine.run(&prepared.script);
            match output.status {
                0 => Ok(()),
                _ => Err(format!("{verb:?} failed, and nobody disturbed it: {output}\n{}", said(world))),
            }
        }),
        Step::Killed(verb, delay) => in_the_middle(world, verb, delay, KILL),
        Step::BackupInside(verb, delay) => {
            in_the_middle(world, verb, delay, "systemctl start --no-block matrix-postgres-backup.service")
        }
        Step::BackendCrashes(None) => {
            world.machine.ok(CRASH);
            Ok(Some(()))
        }
        Step::BackendCrashes(Some((verb, delay))) => in_the_middle(world, verb, delay, CRASH),
        Step::PowerCut(None) => {
            world.machine.power_cut();
            boot(world)
        }
        Step::PowerCut(Some((verb, delay))) => {
            let cut = with(world, verb, |world, prepared| {
                let mut child = begin(world, &prepared.script)?;
                std::thread::sleep(Duration::from_millis(delay));
                world.machine.power_cut();
                child.wait().map_err(|error| error.to_string())?;
                boot(world).map(drop)
            })?;
            Ok(cut)
        }
        Step::Reboot => {
            world.machine.power_off();
            boot(world)
        }
        Step::Reinstall => succeed(
            world,
            "DEBIAN_FRONTEND=noninteractive apt-get install --yes --reinstall /root/matrix-postgres.deb 2>&1",
        ),
        Step::FromPrevious => succeed(world, PREVIOUS),
        Step::During(trouble, verb) => during(world, trouble, verb),
        Step::Configure(change) => {
            configure(world, change);
            Ok(Some(()))
        }
    }
}

/// The backend of a client. Where the server is down already, it cannot crash.
const CRASH: &str = "pid=$(matrix-postgres-cli -d postgres -XAtqc \"SELECT pid FROM pg_stat_activity \
    WHERE datname = 'homeserver' ORDER BY backend_start DESC LIMIT 1\" 2>/dev/null || true); \
    test -z \"$pid\" || kill -KILL $pid || true";

/// The same payload with a lower number, and then the present one again.
const PREVIOUS: &str = "cd /root && rm -rf previous && dpkg-deb -R matrix-postgres.deb previous && \
    sed -i 's/^Version: .*/Version: 0.0.1-1/' previous/DEBIAN/control && dpkg-deb -b previous previous.deb >/dev/null && \
    DEBIAN_FRONTEND=noninteractive dpkg -i previous.deb 2>&1 && DEBIAN_FRONTEND=noninteractive dpkg -i matrix-postgres.deb 2>&1";

fn succeed(world: &World<'_>, script: &str) -> Lived {
    let output: Output = world.machine.run(script);
    match output.status {
        0 => Ok(Some(())),
        _ => Err(format!("{output}")),
    }
}

fn boot(world: &World<'_>) -> Lived {
    world.machine.boot_again().map_err(|error| error.to_string())?;
    world.start_writer();
    Ok(Some(()))
}

fn begin(world: &World<'_>, script: &str) -> Result<Child, String> {
    let mut command = world.machine.command(&format!("echo $$ >/run/life.pid; exec {script}"));
    let quiet = || std::process::Stdio::null();
    command.stdout(quiet()).stderr(quiet()).spawn().map_err(|error| error.to_string())
}

/// The instant is the seed's: whatever is under way then.
fn in_the_middle(world: &mut World<'_>, verb: Verb, delay: u64, event: &str) -> Lived {
    with(world, verb, |world, prepared| {
        let mut child = begin(world, &prepared.script)?;
        std::thread::sleep(Duration::from_millis(delay));
        world.machine.ok(event);
        child.wait().map_err(|error| error.to_string())?;
        Ok(())
    })
}

/// Prepares a verb, lets it be carried out, and keeps the books.
fn with(
    world: &mut World<'_>,
    verb: Verb,
    act: impl FnOnce(&World<'_>, &Prepared) -> Result<(), String>,
) -> Lived {
    let Some(prepared) = prepare(world, verb) else { return Ok(None) };
    let major = version(world.machine);
    let acted = act(world, &prepared);
    if let Some(mark) = prepared.gives_up {
        world.give_up_since(mark);
    }
    acted?;
    world.settle()?;
    let names = world.machine.run(&format!("ls {BACKUPS}")).stdout;
    let names: Vec<_> = names.lines().map(str::to_owned).collect();
    world.backups.retain(|name, _| names.contains(name));
    for name in names {
        world.backups.entry(name).or_insert(prepared.before);
    }
    if version(world.machine) != major {
        world.kept = (!matches!(verb, Verb::Rollback)).then_some(prepared.before);
    }
    Ok(Some(()))
}

/// Nothing where the verb has nothing to do.
fn prepare(world: &World<'_>, verb: Verb) -> Option<Prepared> {
    let machine = world.machine;
    let before = world.mark();
    let newest = world.backups.iter().next_back();
    let mut gives_up = None;
    let script = match verb {
        Verb::Backup => "systemctl start matrix-postgres-backup.service".to_owned(),
        Verb::BackupByHand => "matrix-postgres-backup run".to_owned(),
        Verb::Trial => newest.map(|_| "systemctl start matrix-postgres-backup-verify.service".to_owned())?,
        Verb::Verify => newest.map(|_| "matrix-postgres-backup verify".to_owned())?,
        Verb::Restore => {
            let (name, mark) = newest?;
            gives_up = Some(*mark);
            format!("matrix-postgres-backup restore {name} --yes")
        }
        Verb::RestoreAs => {
            let (name, _) = newest?;
            machine.ok("matrix-postgres-cli -d postgres -Xqc 'DROP DATABASE IF EXISTS beside'");
            format!("matrix-postgres-backup restore {name} --as beside --yes")
        }
        Verb::Rehearse | Verb::Upgrade(_) | Verb::UpgradeByHand(_) if version(machine) == "17" => {
            return None;
        }
        Verb::Rehearse => "matrix-postgres-upgrade rehearse".to_owned(),
        Verb::Upgrade(method) => {
            let text = format!("[upgrade]\nmethod = \"{}\"\n", name_of(method));
            machine.ok("mkdir -p /etc/matrix-postgres/config.d");
            machine.write("/etc/matrix-postgres/config.d/method.toml", &text);
            "systemctl start matrix-postgres-upgrade.service".to_owned()
        }
        Verb::UpgradeByHand(method) => format!("matrix-postgres-upgrade run --method {}", name_of(method)),
        Verb::Rollback => {
            gives_up = Some(world.kept?);
            // What the last one has put aside is the administrator's to remove.
            machine.ok("rm -rf /matrix/postgres/data.upgrade-*");
            "matrix-postgres-upgrade rollback --yes".to_owned()
        }
        Verb::Prune => "matrix-postgres-backup prune".to_owned(),
    };
    Some(Prepared { script, before, gives_up })
}

fn name_of(method: Method) -> &'static str {
    match method {
        Method::Dump => "dump",
        Method::Online => "online",
    }
}

/// What the verb makes of it is its own; afterwards all is well again.
fn during(world: &mut World<'_>, trouble: Trouble, verb: Verb) -> Lived {
    let (begin, end) = match trouble {
        Trouble::BackupsFull => (
            format!(
                "mount -t tmpfs -o size=64k,mode=0700,uid=$(id -u matrix-postgres),gid=$(id -g matrix-postgres) full {BACKUPS}"
            ),
            format!("umount --lazy {BACKUPS}"),
        ),
        Trouble::StateFull => (
            format!(
                "mkdir -p /run/full && mount -t tmpfs -o size=1m full /run/full && cp -a {STATE}/. /run/full && \
                 chown --reference={STATE} /run/full && chmod --reference={STATE} /run/full && mount --move /run/full {STATE} 2>/dev/null \
                 || mount --bind /run/full {STATE}; cat /dev/zero >{STATE}/filler 2>/dev/null || true"
            ),
            format!(
                "rm -f {STATE}/filler; mkdir -p /run/kept && cp -a {STATE}/. /run/kept && umount --lazy {STATE}; \
                 cp -a /run/kept/. {STATE}; rm -rf /run/kept; umount --lazy /run/full 2>/dev/null || true"
            ),
        ),
        Trouble::StateReadOnly => (
            format!("mount --bind {STATE} {STATE} && mount -o remount,ro,bind {STATE}"),
            format!("umount --lazy {STATE}"),
        ),
    };
    with(world, verb, |world, prepared| {
        world.machine.ok(&begin);
        world.machine.run(&prepared.script);
        world.machine.ok(&end);
        Ok(())
    })
}

fn configure(world: &World<'_>, change: Change) {
    let text = match change {
        Change::Compression => "[backup]\ncompression = \"gzip\"\n",
        Change::Keep => "[backup.keep]\nlast = 2\ndaily = 1\n",
        Change::Listen => "[server]\nlisten = [\"127.0.0.1\"]\n",
    };
    let machine = world.machine;
    machine.ok("mkdir -p /etc/matrix-postgres/config.d");
    machine.write(&format!("/etc/matrix-postgres/config.d/{change:?}.toml"), text);
    if change == Change::Listen {
        machine.ok("systemctl restart matrix-postgres.service");
    }
    machine.wait_for("systemctl is-active matrix-postgres.service", PATIENCE);
}

fn said(world: &World<'_>) -> String {
    world.machine.run("journalctl --no-pager --output=cat --boot --unit='matrix-postgres*' --lines=25").stdout
}
