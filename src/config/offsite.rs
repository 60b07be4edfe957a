//! `[[offsite]]`: where copies of the backups are sent to.

use std::time::Duration;

use serde::Deserialize;

use super::keep::{Keep, KeepFragment};
use super::value::{contradiction, duration, refused};
use crate::error::Result;

/// A table of `[[offsite]]` as written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct OffsiteFragment {
    pub name: String,
    pub remote: String,
    pub append_only: Option<bool>,
    pub max_delay: Option<String>,
    pub keep: Option<KeepFragment>,
}

/// `[[offsite]]`: a target that verified backups are sent to by rclone(1), whose configuration, with all secrets, is a credential
/// of the unit. The list is set as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsite {
    /// `name`: what it is called here: letters, digits, `-` and `_`.
    pub name: String,
    /// `remote`: where it is, as rclone has it: `remote:path`.
    pub remote: String,
    /// `append_only`: whether nothing may be removed or replaced there. Default: no.
    pub append_only: bool,
    /// `max_delay`: `status` complains when the newest backup is not there after so long. Default 6 hours.
    pub max_delay: Duration,
    /// `[offsite.keep]`: how many stay there. Default: as `[backup.keep]`.
    pub keep: Keep,
}

impl Offsite {
    /// All of them; `keep` is that of the backups here.
    pub(super) fn from_fragments(input: Vec<OffsiteFragment>, keep: Keep) -> Result<Vec<Self>> {
        let mut targets: Vec<Self> = Vec::new();
        for fragment in input {
            let target = Self::from_fragment(fragment, keep)?;
            if targets.iter().any(|other| other.name == target.name) {
                return Err(contradiction(
                    &format!("two targets of [[offsite]] are called {:?}", target.name),
                    "give each target a name of its own",
                ));
            }
            targets.push(target);
        }
        Ok(targets)
    }

    fn from_fragment(input: OffsiteFragment, keep: Keep) -> Result<Self> {
        let OffsiteFragment { name, remote, append_only, max_delay, keep: own } = input;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty()
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(is_plain)
        {
            return Err(refused("offsite.name", &name, "letters, digits, - and _"));
        }
        Ok(Self {
            name,
            remote: parse_remote(&remote)?,
            append_only: append_only.unwrap_or(false),
            max_delay: duration("offsite.max_delay", max_delay.as_deref(), "6h")?,
            keep: own.map_or(Ok(keep), |own| Keep::from_fragment("offsite.keep", &own))?,
        })
    }
}

/// A place as rclone has it, without a slash at its end: the name of a remote in its configuration, and a path. Not one with
/// options in it (`:sftp,pass=…:`): what is in an argument list is no secret.
///
/// # Errors
/// [`crate::Kind::Config`].
pub fn parse_remote(text: &str) -> Result<String> {
    // What is wrong with it may be that a secret is in it.
    let wrong = || {
        refused(
            "offsite.remote",
            "…",
            "REMOTE:PATH, with the name of a remote in the configuration of rclone, and without options",
        )
    };
    let (remote, path) = text.split_once(':').ok_or_else(wrong)?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@' | ' ');
    let is_remote = remote.starts_with(char::is_alphanumeric) && remote.chars().all(is_name);
    let is_path = !path.contains(char::is_control) && path.split('/').all(|part| part != "..");
    match is_remote && is_path {
        // The root of a file system stays one.
        true if path == "/" => Ok(text.to_owned()),
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(wrong()),
    }
}
