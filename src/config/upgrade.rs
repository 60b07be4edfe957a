//! `[upgrade]`: to the next major version.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::layout::Layout;
use super::value::{absolute, duration, refused};
use crate::error::Result;
use crate::version::Major;

/// The `[upgrade]` table as written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct UpgradeFragment {
    pub to: Option<u16>,
    pub keep_path: Option<PathBuf>,
    pub dump_directory: Option<PathBuf>,
    pub backup_within: Option<String>,
    pub compare: Option<String>,
    pub method: Option<String>,
    pub max_rate: Option<u64>,
    pub revert_on_client_failure: Option<bool>,
    pub trust_owners: Option<bool>,
    pub image: Option<String>,
}

impl UpgradeFragment {
    /// This table with every key that `other` sets replaced by its value.
    #[must_use]
    pub(super) fn overlaid_by(self, other: Self) -> Self {
        overlay!(self, other; to, keep_path, dump_directory, backup_within, compare, method, max_rate, revert_on_client_failure, trust_owners, image)
    }
}

/// `[upgrade]`: to the next major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// `to`: the major version. Default: the newest installed.
    pub to: Option<Major>,
    /// `keep_path`: where the old data directory is kept. Default: beside the default data directory,
    /// see [`super::Layout`].
    pub keep_path: PathBuf,
    /// `dump_directory`: where the databases lie while they are carried over. Default
    /// `/var/tmp/matrix-postgres`; not /tmp, which is memory on many systems.
    pub dump_directory: PathBuf,
    /// `backup_within`: a backup is made first if the newest verified one is older. Default 1 day; nothing for
    /// `never`.
    pub backup_within: Option<Duration>,
    /// `compare`: how the old and the new cluster are compared. Default `rows`.
    pub compare: Depth,
    /// `method`: how the databases get there; nothing for `auto`, the default: `online` where that is possible.
    pub method: Option<Method>,
    /// `max_rate`: megabytes a second that the copy of method `online` may take while the homeserver runs; nothing for 0,
    /// the default: as fast as it goes.
    pub max_rate: Option<u64>,
    /// `revert_on_client_failure`: whether a client that ran before and does not start afterwards undoes the upgrade, while
    /// nothing has been written that anybody would miss. Default false.
    pub revert_on_client_failure: bool,
    /// `trust_owners`: whether method `dump` loads everything as the superuser, so that functions that owners of tables have put
    /// into constraints may do whatever he may. Default false: such rows are loaded with their owner's rights.
    pub trust_owners: bool,
    /// `image`: what the container of a server in one is made of after its upgrade. Default: the tag of the new version in the
    /// repository of the present image.
    pub image: Option<String>,
}

/// How the databases get to the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A copy of the cluster's files that follows the homeserver, and that pg_upgrade then makes the new cluster of.
    Online,
    /// pg_dump and pg_restore, while the homeserver is down.
    Dump,
}

impl Method {
    /// Of what was written; nothing for `auto`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        match text {
            "auto" => Ok(None),
            "online" => Ok(Some(Self::Online)),
            "dump" => Ok(Some(Self::Dump)),
            _ => Err("auto, online or dump"),
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Dump => "dump",
        })
    }
}

/// How thoroughly two clusters are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// The rows of every table are counted.
    Rows,
    /// Every value of every row is read, too.
    Content,
    /// The sizes of the files, of two clusters that have the same ones. Not for configuration.
    #[serde(skip)]
    Files,
}

impl std::str::FromStr for Depth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rows" => Ok(Self::Rows),
            "content" => Ok(Self::Content),
            _ => Err("rows or content"),
        }
    }
}

impl Upgrade {
    /// Validates what was written and fills in the rest.
    ///
    /// # Errors
    /// [`crate::Kind::Config`].
    pub(super) fn from_fragment(input: UpgradeFragment, layout: Layout) -> Result<Self> {
        Ok(Self {
            to: input.to.map(Major),
            keep_path: absolute("upgrade.keep_path", input.keep_path, layout.keep_path())?,
            dump_directory: absolute(
                "upgrade.dump_directory",
                input.dump_directory,
                "/var/tmp/matrix-postgres",
            )?,
            backup_within: match input.backup_within.as_deref() {
                Some("never") => None,
                text => Some(duration("upgrade.backup_within", text, "1d")?),
            },
            compare: depth(input.compare.as_deref())?,
            method: method(input.method.as_deref())?,
            max_rate: input.max_rate.filter(|rate| *rate > 0),
            revert_on_client_failure: input.revert_on_client_failure.unwrap_or_default(),
            trust_owners: input.trust_owners.unwrap_or_default(),
            image: input.image.filter(|image| !image.is_empty()).map(image).transpose()?,
        })
    }
}

/// It is written into a unit.
fn image(text: String) -> Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    match text.bytes().all(is_plain) && !text.starts_with('-') {
        true => Ok(text),
        false => {
            Err(refused("upgrade.image", &text, "the name of an image, such as docker.io/postgres:17-alpine"))
        }
    }
}

fn method(text: Option<&str>) -> Result<Option<Method>> {
    let text = text.unwrap_or("auto");
    Method::parse(text).map_err(|allowed| refused("upgrade.method", text, allowed))
}

fn depth(text: Option<&str>) -> Result<Depth> {
    let text = text.unwrap_or("rows");
    text.parse().map_err(|allowed| refused("upgrade.compare", text, allowed))
}
