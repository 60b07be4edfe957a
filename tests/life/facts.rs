//! What `look.py` has seen.

use std::collections::BTreeMap;

use serde_json::Value;

/// Everything, or, where nothing was said before, what is known of the clusters and backups only.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub major: u64,
    pub databases: Vec<String>,
    /// Data directories beside the one in use, and their versions.
    pub clusters: BTreeMap<String, String>,
    pub backups: BTreeMap<String, Backup>,
    pub messages: Vec<String>,
    /// The last row that was acknowledged.
    pub acknowledged: u64,
    /// Acknowledged rows that are not in the homeserver's database.
    pub missing: Vec<u64>,
    /// Those that are; read only where some are missing.
    pub rows: Vec<u64>,
    /// The rows of the database that the latest restore has put aside; read only where some are missing.
    pub aside: Vec<u64>,
    pub failed: Vec<Failed>,
    pub upgrade: Asked,
    pub backup: Asked,
    pub left: Vec<String>,
    pub owners: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Backup {
    pub verified: bool,
    pub major: u64,
    pub tried: bool,
}

/// A unit, and what its last invocation has said.
#[derive(Debug, Clone)]
pub struct Failed {
    pub unit: String,
    pub result: String,
    pub said: String,
}

/// What `status` says: as JSON, in words, and by its exit status.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub status: i64,
    pub said: String,
    pub answer: Value,
    pub words: String,
}

impl Facts {
    /// # Errors
    /// What the homeserver is stuck with.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("nothing is to be seen in the machine\n{error}: {text}"))?;
        if let Some(stuck) = value["stuck"].as_str() {
            return Err(stuck.to_owned());
        }
        Ok(Self {
            major: value["major"].as_u64().unwrap_or_default(),
            databases: strings(&value["databases"]),
            clusters: map(&value["clusters"], string),
            backups: map(&value["backups"], |value| Backup {
                verified: value["verified"] == true,
                major: value["major"].as_u64().unwrap_or_default(),
                tried: value["tried"] == true,
            }),
            messages: strings(&value["messages"]),
            acknowledged: value["acknowledged"].as_u64().unwrap_or_default(),
            missing: numbers(&value["missing"]),
            rows: numbers(&value["rows"]),
            aside: numbers(&value["aside"]),
            failed: list(&value["failed"], |value| Failed {
                unit: string(&value["unit"]),
                result: string(&value["result"]),
                said: string(&value["said"]),
            }),
            upgrade: Asked::of(&value["upgrade"]),
            backup: Asked::of(&value["backup"]),
            left: strings(&value["left"]),
            owners: map(&value["owners"], string),
        })
    }

    /// The databases that restores have put aside.
    pub fn restored(&self) -> Vec<&String> {
        self.databases.iter().filter(|name| name.starts_with("homeserver_before_")).collect()
    }

    /// Where the latest upgrade has put the old cluster, as `status` says: there is a way back.
    pub fn way_back(&self) -> Option<&str> {
        let latest = &self.upgrade.answer["latest"];
        let kept = latest["kept"].as_str().filter(|kept| self.clusters.contains_key(*kept));
        kept.filter(|_| latest["ended"]["outcome"] == "upgraded")
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}\n{}\n{}", self.status, self.said, self.words)
    }
}

impl Asked {
    fn of(value: &Value) -> Self {
        Self {
            status: value["status"].as_i64().unwrap_or(-1),
            said: string(&value["said"]),
            answer: value["answer"].clone(),
            words: string(&value["words"]),
        }
    }
}

fn list<T>(value: &Value, of: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().map(of).collect()
}

fn map<T>(value: &Value, of: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), of(value))).collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    list(value, string)
}

fn numbers(value: &Value) -> Vec<u64> {
    list(value, |value| value.as_u64().unwrap_or_default())
}
