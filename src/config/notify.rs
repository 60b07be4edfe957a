//! `[notify]`: who is told how a backup ended, and by which ways.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::value::{duration, refused};
use crate::error::Result;

/// The `[notify]` table as written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct NotifyFragment {
    pub command: Option<Vec<String>>,
    pub mail_to: Option<Vec<String>>,
    pub ping_url: Option<String>,
    pub matrix: Option<MatrixFragment>,
    pub on_success: Option<bool>,
    pub time_limit: Option<String>,
}

/// The `notify.matrix` table; it is set as a whole.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MatrixFragment {
    pub homeserver: String,
    pub room: String,
}

impl NotifyFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(self, other; command, mail_to, ping_url, matrix, on_success, time_limit)
    }
}

/// `[notify]`: without any way, the journal is told only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// `command`: program and arguments; the notice is its standard input. Default: none.
    pub command: Vec<String>,
    /// `mail_to`: addresses for sendmail(8). Default: none.
    pub mail_to: Vec<String>,
    /// `ping_url`: told of start, success and failure of each backup, as healthchecks.io and its likes
    /// expect it. Default: none.
    pub ping_url: Option<String>,
    /// `matrix`: a room that the notices are sent to. Default: none.
    pub matrix: Option<Matrix>,
    /// `on_success`: whether good news is sent, too. Default: no. Pings are, always.
    pub on_success: bool,
    /// `time_limit`: how long each way may take. Default 30 seconds.
    pub time_limit: Duration,
}

/// `notify.matrix`; the access token is the credential `matrix-postgres.matrix-token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// `homeserver`: base URL of the client API.
    pub homeserver: String,
    /// `room`: its id, `!…`, or an alias, `#…`. Not an encrypted one.
    pub room: String,
}

impl Notify {
    pub(super) fn from_fragment(input: NotifyFragment) -> Result<Self> {
        let command = input.command.unwrap_or_default();
        if command.first().is_some_and(|program| !Path::new(program).is_absolute()) {
            return Err(refused(
                "notify.command",
                &command[0],
                "the absolute path of a program, then its arguments",
            ));
        }
        let mail_to = input.mail_to.unwrap_or_default();
        let is_address = |address: &String| {
            !address.is_empty()
                && !address.starts_with('-')
                && !address.contains(|c: char| c.is_control() || c.is_whitespace() || c == ',')
        };
        if let Some(wrong) = mail_to.iter().find(|address| !is_address(address)) {
            return Err(refused("notify.mail_to", wrong, "addresses such as root or admin@example.org"));
        }
        let ping_url = input.ping_url.filter(|url| !url.is_empty());
        if ping_url.as_deref().is_some_and(|url| !is_url(url)) {
            // What stands there may be a secret.
            return Err(refused("notify.ping_url", "…", "an http or https URL without a query"));
        }
        let matrix = match input.matrix {
            None => None,
            Some(MatrixFragment { homeserver, .. }) if !is_url(&homeserver) => {
                return Err(refused("notify.matrix.homeserver", &homeserver, "an http or https URL"));
            }
            Some(MatrixFragment { room, .. }) if !room.starts_with(['!', '#']) => {
                return Err(refused("notify.matrix.room", &room, "a room id, !…, or an alias, #…"));
            }
            Some(MatrixFragment { homeserver, room }) => Some(Matrix { homeserver, room }),
        };
        Ok(Self {
            command,
            mail_to,
            ping_url,
            matrix,
            on_success: input.on_success.unwrap_or(false),
            time_limit: duration("notify.time_limit", input.time_limit.as_deref(), "30s")?,
        })
    }

    /// Whether anybody but the journal and a ping is told.
    pub fn has_ways(&self) -> bool {
        !self.command.is_empty() || !self.mail_to.is_empty() || self.matrix.is_some()
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"\\".contains(&b))
    })
}
