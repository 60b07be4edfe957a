//! `[backup.keep]`: how many backups stay.

use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// The `[backup.keep]` table as written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct KeepFragment {
    pub last: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
}

impl KeepFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(self, other; last, daily, weekly, monthly, yearly)
    }
}

/// `[backup.keep]`: a backup stays if any of these rules keeps it. Days, weeks (from Monday), months and
/// years are those of the local time zone, and only those count in which there is a backup: when backups
/// stop, nothing goes by growing old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// `last`: the newest so many. Default 3.
    pub last: u32,
    /// `daily`: the newest of each of the last so many days. Default 7.
    pub daily: u32,
    /// `weekly`: the newest of each of the last so many weeks. Default 4.
    pub weekly: u32,
    /// `monthly`: the newest of each of the last so many months. Default 6.
    pub monthly: u32,
    /// `yearly`: the newest of each of the last so many years. Default 0.
    pub yearly: u32,
}

impl Keep {
    /// `key` is that of the table.
    pub(super) fn from_fragment(key: &str, input: &KeepFragment) -> Result<Self> {
        let keep = Self {
            last: input.last.unwrap_or(3),
            daily: input.daily.unwrap_or(7),
            weekly: input.weekly.unwrap_or(4),
            monthly: input.monthly.unwrap_or(6),
            yearly: input.yearly.unwrap_or(0),
        };
        match keep {
            Self { last: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 } => {
                Err(Error::new(Kind::Config, format!("configuration: {key} keeps no backup"))
                    .state("nothing was started")
                    .hint("set at least one of last, daily, weekly, monthly and yearly to more than 0"))
            }
            keep => Ok(keep),
        }
    }
}
