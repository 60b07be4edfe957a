//! The few methods, signals and properties that we use, and what a failed call means.
//!
//! Properties are never cached: a state that is read after a job must be the state after the job.

use zbus::names::OwnedErrorName;
use zbus::{DBusError as _, OwnedFd, OwnedObjectPath, fdo, proxy};

use crate::error::{Error, Kind};

/// What `ListUnitsByPatterns` tells of a unit: name, description, load state, active state, sub-state,
/// followed unit, object, and the id, type and object of its job.
pub(super) type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Systemd {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<OwnedObjectPath>;
    fn ref_unit(&self, name: &str) -> zbus::Result<()>;
    fn unref_unit(&self, name: &str) -> zbus::Result<()>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<Listed>>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
pub(super) trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn fragment_path(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn drop_in_paths(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn unit_file_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn condition_result(&self) -> zbus::Result<bool>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn condition_timestamp(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn before(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn wanted_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn required_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn requisite_of(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn bound_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn consists_of(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn propagates_stop_to(&self) -> zbus::Result<Vec<String>>;
}

/// Program, arguments, whether its failure is ignored, and how it ended the last time.
pub(super) type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
pub(super) trait Service {
    #[zbus(property(emits_changed_signal = "false"))]
    fn result(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn status_text(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"), name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn control_group(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_start_post(&self) -> zbus::Result<Vec<Command>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_stop(&self) -> zbus::Result<Vec<Command>>;
}

#[proxy(interface = "org.freedesktop.systemd1.Timer", default_service = "org.freedesktop.systemd1")]
pub(super) trait Timer {
    #[zbus(property(emits_changed_signal = "false"), name = "NextElapseUSecRealtime")]
    fn next_elapse_realtime(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "false"), name = "NextElapseUSecMonotonic")]
    fn next_elapse_monotonic(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "false"), name = "LastTriggerUSec")]
    fn last_trigger(&self) -> zbus::Result<u64>;
}

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub(super) trait Logind {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;
}

/// The error of a connection that could not be made.
pub(super) fn not_connected(error: &zbus::Error) -> Error {
    Error::new(Kind::NoBus, "could not connect to the system bus").because(text(error)).hint(NO_BUS)
}

const NO_BUS: &str = "systemctl status dbus.service shows whether the bus is running";

/// The error of a call about `unit`; `action` completes "could not", such as `start matrix-synapse.service`.
pub(super) fn failed(action: &str, unit: &str, error: &zbus::Error) -> Error {
    let (kind, hint) = judge(unit, error);
    Error::new(kind, format!("could not {action}")).because(text(error)).hint(hint)
}

/// Whether the call failed with this error of systemd's own, such as `NoUnitForPID`.
pub(super) fn is(error: &zbus::Error, name: &str) -> bool {
    let own = |full: &OwnedErrorName| full.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name);
    matches!(error, zbus::Error::MethodError(full, ..) if own(full))
}

fn judge(unit: &str, error: &zbus::Error) -> (Kind, String) {
    let status = || format!("systemctl status {unit}");
    match error {
        zbus::Error::MethodError(name, ..) => match name.as_str().rsplit('.').next() {
            Some("NoSuchUnit" | "LoadFailed") => (Kind::NoUnit, no_unit_hint(unit)),
            Some("UnitMasked") => (Kind::UnitRefused, format!("systemctl unmask {unit}")),
            _ => (Kind::UnitRefused, status()),
        },
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::AccessDenied(_)
            | fdo::Error::AuthFailed(_)
            | fdo::Error::InteractiveAuthorizationRequired(_) => (
                Kind::UnitRefused,
                "run it as root, or let a polkit rule allow org.freedesktop.systemd1.manage-units for this unit"
                    .into(),
            ),
            // A name that cannot be that of a unit.
            fdo::Error::InvalidArgs(_) => (Kind::NoUnit, no_unit_hint(unit)),
            fdo::Error::ServiceUnknown(_)
            | fdo::Error::NameHasNoOwner(_)
            | fdo::Error::NoServer(_)
            | fdo::Error::NoReply(_)
            | fdo::Error::Disconnected(_)
            | fdo::Error::Timeout(_)
            | fdo::Error::TimedOut(_)
            | fdo::Error::ZBus(_) => (Kind::NoBus, NO_BUS.into()),
            // The bus tries to start what is not there; where systemd is not PID 1, that fails.
            error if error.name().contains(".Spawn.") => (Kind::NoBus, NO_BUS.into()),
            _ => (Kind::UnitRefused, status()),
        },
        _ => (Kind::NoBus, NO_BUS.into()),
    }
}

/// What to do about a unit that is not there.
pub(super) fn no_unit_hint(unit: &str) -> String {
    format!(
        "systemctl daemon-reload, if {unit} was just installed; systemctl list-unit-files shows all units"
    )
}

/// What the other side said, without the name of the error where a sentence comes with it. Its causes are
/// part of the text: the error itself must not become a source, whose source would say them again.
fn text(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::FDO(error) => match error.to_string().split_once(": ") {
            Some((name, text)) if name.starts_with("org.freedesktop.DBus.") => text.to_owned(),
            _ => error.to_string(),
        },
        _ => error.to_string(),
    }
}
