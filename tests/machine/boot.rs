//! Booting a root under `systemd-nspawn`, and running commands in it.
//!
//! A machine is an overlay on the built root. The overlay is mounted in a mount namespace of its own, and
//! all processes are in a control group of their own: whatever happens to the test, killing the one takes
//! the other with it, and no mount stays behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::image::{self, Image};

/// Directories that are on a real file system and not on the overlay, as they would be on a server:
/// overlays lack `renameat2(RENAME_EXCHANGE)`, and Docker refuses them.
const REAL: [&str; 4] = ["/matrix", "/var/backups", "/var/lib/docker", "/var/lib/containers"];

/// What has not come by then never will, however busy the host is.
const HOPELESS: Duration = Duration::from_secs(900);
const TICK: Duration = Duration::from_millis(20);

/// Mounts the overlay, and the disk if there is one, and becomes `systemd-nspawn`: `$1` layers, `$2` the machine's
/// directory, `$3` its control group, `$4` its name; the rest are options.
const BOOT: &str = r#"
set -eu
layers=$1 directory=$2 group=$3 name=$4; shift 4
echo $$ >"$group/cgroup.procs"
mount -t overlay machine -o "lowerdir=$layers,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
if [ -f "$directory/disk" ]; then
    mkdir -p "$directory/mounted"
    # Nothing reaches the disk by itself while a test looks: only what is synced.
    mount -t ext4 -o loop,commit=600 "$directory/disk" "$directory/mounted"
    mkdir -p "$directory/mounted/matrix" "$directory/mounted/state"
    set -- "--bind=$directory/mounted/matrix:/matrix" "--bind=$directory/mounted/state:/var/lib/matrix-postgres-upgrade" "$@"
fi
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no --capability=all \
    --system-call-filter='add_key keyctl bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self' --machine="$name" -D "$directory/root" "$@" -b
"#;

/// A throw-away machine. Dropped, it is gone with everything in it.
pub struct Machine {
    image: Image,
    directory: PathBuf,
    group: PathBuf,
    /// Directory inside, directory on the host.
    binds: Vec<(String, PathBuf)>,
    running: Mutex<Option<Running>>,
    /// Held while we live: tells the machines of the living from those of the dead.
    _owner: Flock<File>,
}

struct Running {
    nspawn: Child,
    leader: i32,
}

/// What a script printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit status; 128 and the signal's number where one ended it.
    pub status: i32,
    /// Standard output, without the last line end.
    pub stdout: String,
    /// Standard error, without the last line end.
    pub stderr: String,
}

impl Output {
    /// What was printed, which must be JSON, however it ended.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl Machine {
    /// Boots a machine; `name` shows in `ps` and in messages.
    ///
    /// # Errors
    /// When the root cannot be built, or the machine does not come up.
    pub fn boot(name: &str) -> io::Result<Self> {
        Self::boot_with(name, &[])
    }

    /// Boots a machine in which the host's directories are seen: (path inside, path on the host).
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn boot_with(name: &str, binds: &[(&str, &Path)]) -> io::Result<Self> {
        let machine = Self::make(name, Image::Usual, binds)?;
        machine.boot_again()?;
        Ok(machine)
    }

    /// Boots a machine that has PostgreSQL 18 and 19, too.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn boot_newer(name: &str) -> io::Result<Self> {
        let machine = Self::make(name, Image::Newer, &[])?;
        machine.boot_again()?;
        Ok(machine)
    }

    /// Boots a machine whose `/matrix` and `/var/lib/matrix-postgres-upgrade` are on a disk of their own, which
    /// [`Machine::power_cut_to_disk`] can cut off.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn boot_with_disk(name: &str) -> io::Result<Self> {
        let mut machine = Self::make(name, Image::Usual, &[])?;
        machine.binds.retain(|(inside, _)| inside != "/matrix");
        let disk = machine.directory.join("disk");
        File::create(&disk)?.set_len(4 << 30)?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        machine.boot_again()?;
        Ok(machine)
    }

    /// Boots another one on a copy of the files of this one, which must be off.
    ///
    /// # Errors
    /// As [`Machine::boot`], and when they cannot be copied.
    pub fn boot_copy(&self, name: &str) -> io::Result<Self> {
        assert!(self.running().is_none(), "the machine runs");
        let machine = Self::make(name, self.image, &[])?;
        for part in ["upper", "real"] {
            let (from, to) = (self.directory.join(part).join("."), machine.directory.join(part));
            let copied =
                Command::new("cp").args(["--archive", "--reflink=auto"]).args([&from, &to]).output()?;
            if !copied.status.success() {
                return Err(io::Error::other(String::from_utf8_lossy(&copied.stderr).into_owned()));
            }
        }
        machine.boot_again()?;
        Ok(machine)
    }

    fn make(name: &str, image: Image, binds: &[(&str, &Path)]) -> io::Result<Self> {
        image.build()?;
        let (directory, owner) = make_directory(name)?;
        let group = group_of(&directory)?;
        let machine = Self {
            image,
            binds: REAL
                .iter()
                .map(|inside| ((*inside).to_owned(), directory.join("real").join(inside.replace('/', "_"))))
                .chain(binds.iter().map(|(inside, host)| ((*inside).to_owned(), (*host).to_owned())))
                .collect(),
            directory,
            group,
            running: Mutex::new(None),
            _owner: owner,
        };
        // The upper directory's mode is that of `/` inside.
        let mut open = std::fs::DirBuilder::new();
        open.mode(0o755).recursive(true);
        for part in ["upper", "work", "root"] {
            open.create(machine.directory.join(part))?;
        }
        for (_, host) in &machine.binds {
            open.create(host)?;
        }
        Ok(machine)
    }

    /// Boots it on the files that it had when it ended.
    ///
    /// # Errors
    /// When it does not come up; what its console said is part of the message.
    pub fn boot_again(&self) -> io::Result<()> {
        let mut running = self.running();
        assert!(running.is_none(), "the machine runs already");
        std::fs::create_dir_all(&self.group)?;
        let console = File::create(self.directory.join("console"))?;
        let name = self.directory.file_name().unwrap_or_default();
        let layers: Vec<_> = self.image.layers().into_iter().map(PathBuf::into_os_string).collect();
        let mut nspawn = Command::new("unshare")
            .args(["--mount", "bash", "-c", BOOT, "boot"])
            .arg(layers.join(":".as_ref()))
            .args([&self.directory, &self.group, Path::new(name)])
            .args(self.binds.iter().map(|(inside, host)| format!("--bind={}:{inside}", host.display())))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()?;
        let deadline = Instant::now() + HOPELESS;
        let mut leader = None;
        // A machine that lost one of its many units is up, too ("degraded").
        while !leader.is_some_and(is_up) {
            if nspawn.try_wait()?.is_some() || Instant::now() > deadline {
                let _ = nspawn.kill();
                let console = std::fs::read_to_string(self.directory.join("console")).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "the machine did not come up; its console:\n{console}"
                )));
            }
            sleep(TICK);
            leader = leader_of(&nspawn);
        }
        *running = leader.map(|leader| Running { nspawn, leader });
        Ok(())
    }

    /// Runs a script with `bash -eu -o pipefail`, as root. What is piped to `grep -q` may fail for it, since that does not read to the
    /// end: `grep -c` does.
    pub fn run(&self, script: &str) -> Output {
        self.command(script).output().map(Output::from).expect("nsenter should start")
    }

    /// The command that [`Machine::run`] runs, for whoever wants to watch it, or to leave it in the background.
    pub fn command(&self, script: &str) -> Command {
        let leader = self.running().as_ref().expect("the machine is off").leader;
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &leader.to_string(), "--all", "env", "--ignore-environment", "HOME=/root"])
            .args(["LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["bash", "-eu", "-o", "pipefail", "-c", script])
            .stdin(Stdio::null());
        command
    }

    /// What a unit has said in its latest run: all of it, for the journal may lag behind.
    #[track_caller]
    pub fn journal_of(&self, unit: &str) -> String {
        let read = format!("journalctl --no-pager --output=cat --unit={unit}");
        self.ok(&format!("journalctl --sync; {read} --invocation=0 2>/dev/null || {read}"))
    }

    /// Starts a unit, which must succeed.
    #[track_caller]
    pub fn start(&self, unit: &str) {
        self.forget_starts(unit);
        self.ok(&format!("systemctl start {unit} || {{ journalctl --no-pager -u {unit} >&2; false; }}"));
    }

    /// Starts a unit, which must fail; returns its exit status and what it said.
    #[track_caller]
    pub fn fails(&self, unit: &str) -> (String, String) {
        self.forget_starts(unit);
        assert_ne!(self.run(&format!("systemctl start {unit}")).status, 0);
        let status = self.ok(&format!("systemctl show --value --property=ExecMainStatus {unit}"));
        (status, self.journal_of(unit))
    }

    /// A test starts a unit more often than systemd lets anybody (StartLimitBurst=, systemd.unit(5)), if the machine is fast.
    fn forget_starts(&self, unit: &str) {
        // One that is not loaded has none.
        self.run(&format!("systemctl reset-failed {unit}"));
    }

    /// Runs a script that must succeed; returns what it printed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let output = self.run(script);
        assert!(output.status == 0, "{script}\n{output}");
        output.stdout
    }

    /// Runs a script, again and again, until it succeeds; returns what it printed.
    #[track_caller]
    pub fn wait_for(&self, script: &str) -> String {
        let deadline = Instant::now() + HOPELESS;
        loop {
            let begun = Instant::now();
            let output = self.run(script);
            if output.status == 0 {
                return output.stdout;
            }
            assert!(Instant::now() < deadline, "not within {HOPELESS:?}: {script}\n{output}");
            // A look takes a processor, which what is waited for may need.
            sleep((TICK * 5).max(begun.elapsed() * 2));
        }
    }

    /// Where a file of the machine is on the host. Of a machine that is off, only [`REAL`] directories and
    /// those bound by [`Machine::boot_with`] are there.
    pub fn path(&self, inside: &str) -> PathBuf {
        for (bound, host) in &self.binds {
            if let Ok(rest) = Path::new(inside).strip_prefix(bound) {
                return host.join(rest);
            }
        }
        let leader = self.running().as_ref().expect("the machine is off").leader;
        PathBuf::from(format!("/proc/{leader}/root{inside}"))
    }

    /// Copies a file of the host into the machine, with its mode.
    #[track_caller]
    pub fn copy_in(&self, file: &Path, inside: &str) {
        let copied = std::fs::copy(file, self.path(inside));
        assert!(copied.is_ok(), "{} to {inside}: {copied:?}", file.display());
    }

    /// Writes a file in the machine.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let written = std::fs::write(self.path(inside), text);
        assert!(written.is_ok(), "{inside}: {written:?}");
    }

    /// How long its processes had a processor, which a busy host does not lengthen.
    pub fn processor_time(&self) -> Duration {
        let read = std::fs::read_to_string(self.group.join("cpu.stat")).unwrap_or_default();
        let used = read.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        Duration::from_micros(used.unwrap_or(0))
    }

    /// Every process ends at once, as in a power cut. What was written stays, whether it was synced or not.
    pub fn power_cut(&self) {
        self.end(Signal::SIGKILL);
    }

    /// A power cut of a machine with a disk: of what is on that disk, only what had reached it is there afterwards.
    ///
    /// # Errors
    /// When the disk cannot be copied.
    pub fn power_cut_to_disk(&self) -> io::Result<()> {
        let (disk, cut) = (self.directory.join("disk"), self.directory.join("cut"));
        // A copy takes a while: what is written meanwhile would be there in part, and in another order.
        let freeze = self.group.join("cgroup.freeze");
        std::fs::write(&freeze, "1")?;
        let copied = Command::new("cp").arg("--sparse=always").args([&disk, &cut]).status()?;
        // The others end with the first process; what has started the machine was frozen, too.
        if let Some(running) = self.running().as_ref() {
            let _ = kill(Pid::from_raw(running.leader), Signal::SIGKILL);
        }
        std::fs::write(&freeze, "0")?;
        self.power_cut();
        match copied.success() {
            true => std::fs::rename(&cut, &disk),
            false => Err(io::Error::other("the disk could not be copied")),
        }
    }

    /// Shuts the machine down, as `poweroff` does.
    pub fn power_off(&self) {
        self.ok("systemctl --no-block poweroff");
        self.end(None);
    }

    fn end(&self, signal: impl Into<Option<Signal>>) {
        let Some(mut running) = self.running().take() else { return };
        if let Some(signal) = signal.into() {
            let _ = kill(Pid::from_raw(running.leader), signal);
        }
        let deadline = Instant::now() + HOPELESS;
        while matches!(running.nspawn.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(TICK);
        }
        let _ = running.nspawn.kill();
        let _ = running.nspawn.wait();
        remove_group(&self.group);
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_cut();
        remove_group(&self.group);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
        Self { status: number_of(output.status), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}", self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{text}")?;
            }
        }
        Ok(())
    }
}

fn number_of(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// The child of `systemd-nspawn` that is process 1 in a namespace of its own and has become systemd.
fn leader_of(nspawn: &Child) -> Option<i32> {
    let id = nspawn.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{child}/{file}")).unwrap_or_default();
        let first = read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        first && read("comm").trim_end() == "systemd"
    })
}

fn is_up(leader: i32) -> bool {
    let state = Command::new("nsenter")
        .args([
            "--target",
            &leader.to_string(),
            "--all",
            "timeout",
            "60",
            "systemctl",
            "is-system-running",
            "--wait",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    state.is_ok_and(|output| matches!(output.stdout.trim_ascii(), b"running" | b"degraded"))
}

/// Makes a machine's directory and takes possession of it; those of owners who have died go.
fn make_directory(name: &str) -> io::Result<(PathBuf, Flock<File>)> {
    let machines = image::cache().join("machines");
    std::fs::create_dir_all(&machines)?;
    // Nobody may take a directory for abandoned while it is being made.
    let lock = File::create(machines.with_extension("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    for entry in std::fs::read_dir(&machines)? {
        let directory = entry?.path();
        if own(&directory).is_ok() {
            remove_group(&group_of(&directory)?);
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
    let directory = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&machines)?.keep();
    let owner = own(&directory)?;
    Ok((directory, owner))
}

fn own(directory: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::create(directory.join("owner"))?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| io::Error::from(errno))
}

/// The control group of a machine: two whose processes share one disturb each other.
fn group_of(directory: &Path) -> io::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let hierarchy = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(place)
    });
    let hierarchy = hierarchy.ok_or_else(|| io::Error::other("no cgroup2 file system is mounted"))?;
    let name = directory.file_name().unwrap_or_default();
    Ok(Path::new(hierarchy).join(format!("matrix-postgres-{}", name.display())))
}

/// Kills what is in the group, and removes it with those below it.
fn remove_group(group: &Path) {
    if !group.exists() {
        return;
    }
    let _ = std::fs::write(group.join("cgroup.kill"), "1");
    let deadline = Instant::now() + HOPELESS;
    while remove_empty(group).is_err() && Instant::now() < deadline {
        sleep(TICK);
    }
}

fn remove_empty(group: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}
