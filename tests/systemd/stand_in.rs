//! A stand-in for systemd and logind on a bus of its own.
// The interfaces need methods where nothing is read, and arguments where nothing is asked.
#![allow(
    clippy::unwrap_used,
    clippy::unused_self,
    clippy::used_underscore_binding,
    clippy::needless_pass_by_value
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use matrix_postgres::systemd::Manager;
use zbus::object_server::{ResponseDispatchNotifier, SignalEmitter};
use zbus::runtime::traits::TaskHandle as _;
use zbus::{Connection, ObjectServer, OwnedObjectPath, fdo, interface};

/// How the stand-in deals with a unit's next jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The end is signalled before the call is answered, after that of other jobs.
    #[default]
    SignalFirst,
    /// The call is answered first.
    AnswerFirst,
    /// More jobs of others end than a queue of signals holds.
    Busy,
    /// The job ends with this result, and the unit has failed.
    Ends(&'static str),
    /// The job never ends.
    Hangs,
    /// polkit says no.
    Refuses,
    /// A start is done and the unit does not run, for a condition does not hold.
    ConditionFails,
    /// A start is done, the unit has ended by itself, and systemd has forgotten how.
    Oneshot,
    /// Something starts the unit again at once.
    Returns,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    pub(crate) active: String,
    pub(crate) sub: String,
    pub(crate) start: Manner,
    pub(crate) stop: Manner,
    pub(crate) required_by: Vec<String>,
    pub(crate) condition: bool,
    pub(crate) forgotten: bool,
    pub(crate) next_realtime: u64,
    pub(crate) missing: bool,
    /// What it says of itself.
    pub(crate) said: String,
    /// Where its file is, if that is not the package's.
    pub(crate) directory: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    units: BTreeMap<String, Fake>,
    /// Every start and stop, in the order in which they came.
    pub(crate) calls: Vec<String>,
}

pub(crate) type Shared = Arc<Mutex<World>>;

pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap()
}

fn path_of(unit: &str) -> OwnedObjectPath {
    let escaped: String =
        unit.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("_{byte:02x}")
                }
            })
            .collect();
    format!("/org/freedesktop/systemd1/unit/{escaped}").try_into().unwrap()
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    #[zbus(name = "AlreadySubscribed")]
    AlreadySubscribed(String),
    #[zbus(name = "NoUnitForPID")]
    NoUnitForPid(String),
}

type Answer = ResponseDispatchNotifier<OwnedObjectPath>;

struct Systemd {
    world: Shared,
    jobs: AtomicU32,
    subscribed: AtomicU32,
}

impl Systemd {
    async fn job(&self, emitter: SignalEmitter<'_>, unit: &str, start: bool) -> fdo::Result<Answer> {
        let manner = {
            let mut world = lock(&self.world);
            world.calls.push(format!("{} {unit}", if start { "start" } else { "stop" }));
            let Some(unit) = world.units.get_mut(unit) else {
                return Err(fdo::Error::Failed("not loaded".into()));
            };
            let manner = if start { unit.start } else { unit.stop };
            let state = match manner {
                Manner::Hangs | Manner::Refuses => None,
                Manner::Ends(_) => Some("failed"),
                Manner::ConditionFails | Manner::Oneshot => Some("inactive"),
                Manner::Returns => Some("active"),
                _ => Some(if start { "active" } else { "inactive" }),
            };
            unit.forgotten = manner == Manner::Oneshot;
            unit.condition = !matches!(manner, Manner::ConditionFails | Manner::Oneshot);
            if let Some(state) = state {
                state.clone_into(&mut unit.active);
            }
            manner
        };
        let job = |number: u32| {
            OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap()
        };
        let number = self.jobs.fetch_add(1, Ordering::SeqCst);
        let path = job(number);
        let result = match manner {
            Manner::Refuses => return Err(fdo::Error::AccessDenied("Permission denied".into())),
            Manner::Hangs => return Ok(Answer::new(path).0),
            Manner::Ends(result) => result,
            _ => "done",
        };
        for other in 0..if manner == Manner::Busy { 500 } else { 3 } {
            Self::job_removed(&emitter, other, job(1_000_000 + other), "other.service", "failed").await?;
        }
        let emitter = emitter.into_owned();
        let connection = emitter.connection().clone();
        let (answer, answered) = Answer::new(path.clone());
        let name = unit.to_owned();
        if manner == Manner::AnswerFirst {
            let end = async move {
                answered.await;
                Self::job_removed(&emitter, number, path, &name, result).await
            };
            connection.spawn("the end of a job", end).detach();
        } else {
            Self::job_removed(&emitter, number, path, &name, result).await?;
        }
        Ok(answer)
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn subscribe(&self) -> Result<(), Refusal> {
        match self.subscribed.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(Refusal::AlreadySubscribed("already".into())),
        }
    }

    async fn load_unit(
        &self,
        name: &str,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> fdo::Result<OwnedObjectPath> {
        if !name.contains('.') {
            return Err(fdo::Error::InvalidArgs(format!("Unit name {name} is not valid.")));
        }
        {
            let mut world = lock(&self.world);
            let absent =
                Fake { active: "inactive".into(), sub: "dead".into(), missing: true, ..Fake::default() };
            world.units.entry(name.to_owned()).or_insert(absent);
        }
        let path = path_of(name);
        let view = || View { world: self.world.clone(), name: name.to_owned() };
        server.at(&path, UnitObject(view())).await?;
        server.at(&path, ServiceObject(view())).await?;
        server.at(&path, TimerObject(view())).await?;
        Ok(path)
    }

    #[zbus(name = "GetUnitByPID")]
    async fn get_unit_by_pid(
        &self,
        pid: u32,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<OwnedObjectPath, Refusal> {
        match pid {
            0 => {
                let path = self.load_unit("own.service", server).await.map_err(zbus::Error::from)?;
                Ok(path)
            }
            _ => Err(Refusal::NoUnitForPid(format!("PID {pid} does not belong to any loaded unit."))),
        }
    }

    #[allow(clippy::type_complexity)]
    fn list_units_by_patterns(
        &self,
        _states: Vec<String>,
        patterns: Vec<String>,
    ) -> Vec<(String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath)>
    {
        let prefix = patterns[0].trim_end_matches('*');
        let none = || OwnedObjectPath::try_from("/").unwrap();
        lock(&self.world)
            .units
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, unit)| {
                let text = || String::new();
                let (active, sub) = (unit.active.clone(), unit.sub.clone());
                (name.clone(), text(), "loaded".into(), active, sub, text(), path_of(name), 0, text(), none())
            })
            .collect()
    }

    async fn start_unit(
        &self,
        name: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<Answer> {
        self.job(emitter, name, true).await
    }

    async fn stop_unit(
        &self,
        name: &str,
        _mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<Answer> {
        self.job(emitter, name, false).await
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct View {
    world: Shared,
    name: String,
}

impl View {
    fn get<T>(&self, read: impl FnOnce(&Fake) -> T) -> T {
        read(&lock(&self.world).units[&self.name])
    }
}

struct UnitObject(View);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    fn id(&self) -> String {
        match self.0.name.strip_prefix("alias-of-") {
            Some(name) => name.to_owned(),
            None => self.0.name.clone(),
        }
    }
    #[zbus(property)]
    fn load_state(&self) -> String {
        self.0.get(|unit| if unit.missing { "not-found" } else { "loaded" }.to_owned())
    }
    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.get(|unit| unit.active.clone())
    }
    #[zbus(property)]
    fn sub_state(&self) -> String {
        self.0.get(|unit| unit.sub.clone())
    }
    #[zbus(property)]
    fn fragment_path(&self) -> String {
        let directory = self.0.get(|unit| unit.directory).unwrap_or("/usr/lib/systemd/system");
        format!("{directory}/{}", self.0.name)
    }
    #[zbus(property)]
    fn unit_file_state(&self) -> String {
        "enabled".into()
    }
    #[zbus(property)]
    fn condition_result(&self) -> bool {
        self.0.get(|unit| unit.condition)
    }
    #[zbus(property)]
    fn condition_timestamp(&self) -> u64 {
        self.0.get(|unit| u64::from(!unit.forgotten))
    }
    #[zbus(property)]
    fn required_by(&self) -> Vec<String> {
        self.0.get(|unit| unit.required_by.clone())
    }
    #[zbus(property)]
    fn requisite_of(&self) -> Vec<String> {
        Vec::new()
    }
    #[zbus(property)]
    fn bound_by(&self) -> Vec<String> {
        Vec::new()
    }
    #[zbus(property)]
    fn consists_of(&self) -> Vec<String> {
        Vec::new()
    }
}

struct ServiceObject(View);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceObject {
    #[zbus(property)]
    fn result(&self) -> String {
        self.0.get(|unit| if unit.active == "failed" { "exit-code" } else { "success" }.to_owned())
    }
    #[zbus(property)]
    fn status_text(&self) -> String {
        self.0.get(|unit| unit.said.clone())
    }
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0.get(|unit| if unit.active == "active" { 4711 } else { 0 })
    }
    #[zbus(property)]
    fn control_group(&self) -> String {
        format!("/system.slice/{}", self.0.name)
    }
}

struct TimerObject(View);

#[interface(name = "org.freedesktop.systemd1.Timer")]
impl TimerObject {
    #[zbus(property, name = "NextElapseUSecRealtime")]
    fn next_elapse_realtime(&self) -> u64 {
        self.0.get(|unit| unit.next_realtime)
    }
    #[zbus(property, name = "NextElapseUSecMonotonic")]
    fn next_elapse_monotonic(&self) -> u64 {
        u64::MAX
    }
    #[zbus(property, name = "LastTriggerUSec")]
    fn last_trigger(&self) -> u64 {
        0
    }
}

struct Logind;

#[interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn inhibit(&self, what: &str, _who: &str, why: &str, mode: &str) -> fdo::Result<zbus::OwnedFd> {
        assert_eq!((what, mode), ("shutdown:sleep", "block"));
        match why {
            "upgrade" => Ok(std::os::fd::OwnedFd::from(std::fs::File::open("/dev/null").unwrap()).into()),
            _ => Err(fdo::Error::AccessDenied("Permission denied".into())),
        }
    }
}

/// A bus that starts nothing by itself: not the machine's services either.
const BUS_CONFIGURATION: &str = r#"
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=DIRECTORY/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// A bus of our own, with the stand-in on it.
pub(crate) struct Bus {
    _directory: tempfile::TempDir,
    daemon: Child,
    address: String,
    pub(crate) world: Shared,
    pub(crate) connection: Connection,
}

impl Bus {
    /// Nothing where there is no `dbus-daemon`.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bus.conf");
        let configuration = BUS_CONFIGURATION.replace("DIRECTORY", directory.path().to_str().unwrap());
        std::fs::write(&file, configuration).unwrap();
        let daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--print-address", "--config-file"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            eprintln!("left out, for there is no dbus-daemon: units over D-Bus");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let world = Shared::default();
        let systemd =
            Systemd { world: world.clone(), jobs: AtomicU32::new(1), subscribed: AtomicU32::new(0) };
        let builder = zbus::connection::Builder::address(address.as_str())
            .serve_at("/org/freedesktop/systemd1", systemd)
            .serve_at("/org/freedesktop/login1", Logind)
            .name("org.freedesktop.systemd1")
            .name("org.freedesktop.login1");
        let connection = zbus::block_on(builder.build()).unwrap();
        Some(Self { _directory: directory, daemon, address, world, connection })
    }

    pub(crate) fn manager(&self) -> Manager {
        Manager::connect_to(&self.address).unwrap()
    }

    pub(crate) fn unit(&self, name: &str, active: &str, change: impl FnOnce(&mut Fake)) {
        let mut unit = Fake { active: active.into(), sub: active.into(), ..Fake::default() };
        change(&mut unit);
        lock(&self.world).units.insert(name.to_owned(), unit);
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Fake)) {
        change(lock(&self.world).units.get_mut(name).unwrap());
    }

    pub(crate) fn state(&self, name: &str) -> String {
        lock(&self.world).units[name].active.clone()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.world).calls)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = zbus::block_on(self.connection.clone().close());
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
