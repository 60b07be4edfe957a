//! A unit as it was when we asked.

use std::path::PathBuf;

use super::bus::{ServiceProxy, UnitProxy};

/// A unit, as systemd describes it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name; where it was asked for by an alias, the name behind that.
    pub id: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load_state: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active_state: String,
    /// The same in the words of its type, such as `running` or `auto-restart`.
    pub sub_state: String,
    /// The file that defines it.
    pub fragment_path: Option<PathBuf>,
    /// Whether it is started at boot: `enabled`, `disabled`, `static` and so on.
    pub file_state: String,
    /// False if a `Condition…=` did not hold when it was last started. systemd forgets it with the unit.
    pub condition_met: bool,
    /// How its last run ended, such as `success` or `exit-code`; services only.
    pub result: Option<String>,
    /// The last that it has said of itself, sd_notify(3); services only, until their next start.
    pub said: Option<String>,
    /// The process that systemd takes for the main one; services only, while they run.
    pub main_pid: Option<u32>,
    /// Its control group below /sys/fs/cgroup; services only, while they run.
    pub control_group: Option<String>,
}

impl Unit {
    /// Whether systemd knows a file for it.
    pub fn exists(&self) -> bool {
        self.load_state != "not-found"
    }

    /// Whether it runs.
    pub fn is_active(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "reloading" | "refreshing")
    }

    /// Whether it runs, or is about to: one that is being started, or waits to be started again, is wanted.
    pub fn is_wanted(&self) -> bool {
        is_wanted(&self.active_state)
    }

    /// Whether it is started at boot.
    pub fn is_enabled(&self) -> bool {
        matches!(self.file_state.as_str(), "enabled" | "enabled-runtime")
    }

    /// The states in a few words, for a message.
    pub fn describe(&self) -> String {
        let Self { active_state, sub_state, .. } = self;
        match &self.result {
            Some(result) if result != "success" => format!("{active_state} ({sub_state}, result: {result})"),
            _ => format!("{active_state} ({sub_state})"),
        }
    }

    pub(super) async fn read(unit: &UnitProxy<'_>) -> zbus::Result<Self> {
        let id = unit.id().await?;
        let mut read = Self {
            load_state: unit.load_state().await?,
            active_state: unit.active_state().await?,
            sub_state: unit.sub_state().await?,
            fragment_path: Some(unit.fragment_path().await?)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            condition_met: unit.condition_result().await? || unit.condition_timestamp().await? == 0,
            file_state: unit.unit_file_state().await?,
            result: None,
            said: None,
            main_pid: None,
            control_group: None,
            id,
        };
        if kind(&read.id) == "service" {
            let proxy = unit.inner();
            let service = ServiceProxy::new(proxy.connection(), proxy.path().to_owned()).await?;
            read.result = Some(service.result().await?);
            read.said = Some(service.status_text().await?).filter(|text| !text.is_empty());
            read.main_pid = Some(service.main_pid().await?).filter(|&pid| pid != 0);
            read.control_group = Some(service.control_group().await?).filter(|group| !group.is_empty());
        }
        Ok(read)
    }
}

/// What comes after the last dot of a unit's name.
pub(super) fn kind(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, kind)| kind)
}

pub(super) fn is_wanted(active_state: &str) -> bool {
    matches!(active_state, "active" | "reloading" | "refreshing" | "activating")
}
