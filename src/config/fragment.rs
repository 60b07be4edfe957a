//! One TOML file as written: every key optional, unknown keys refused.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::backup::BackupFragment;
use super::clients::ClientsFragment;
use super::layout::Layout;
use super::notify::NotifyFragment;
use super::offsite::OffsiteFragment;
use super::server::ServerFragment;
use super::upgrade::UpgradeFragment;
use crate::error::{Error, Kind, Result};

/// One configuration file. The meaning of each key is documented at [`super::Settings`].
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Fragment {
    /// Not written, but found: where what is not written is.
    #[serde(skip)]
    pub layout: Option<Layout>,
    pub data_directory: Option<PathBuf>,
    pub state_directory: Option<PathBuf>,
    pub socket_directory: Option<PathBuf>,
    pub wait: Option<String>,
    pub server: ServerFragment,
    pub backup: BackupFragment,
    pub clients: ClientsFragment,
    pub upgrade: UpgradeFragment,
    pub notify: NotifyFragment,
    pub offsite: Option<Vec<OffsiteFragment>>,
}

impl Fragment {
    /// Parses the text of `file`, whose name is used in errors only.
    ///
    /// # Errors
    /// [`Kind::Config`] with file and line; for an unknown key the nearest known one.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|error| explain(&error, text, file))
    }

    /// This fragment with every key that `other` sets replaced by its value.
    #[must_use]
    pub fn overlaid_by(self, other: Self) -> Self {
        overlay!(
            self, other;
            data_directory, state_directory, socket_directory, wait, offsite, layout;
            server, backup, clients, upgrade, notify
        )
    }
}

fn explain(error: &toml::de::Error, text: &str, file: &Path) -> Error {
    let line = error.span().map(|span| {
        1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count()
    });
    let place = match line {
        Some(line) => format!("{}, line {line}", file.display()),
        None => file.display().to_string(),
    };
    let message = error.message();
    match unknown_field(message) {
        Some((found, known)) => {
            let refused = Error::new(Kind::Config, format!("{place}: unknown key `{found}`"))
                .state("nothing was started");
            match nearest(found, &known) {
                Some(meant) => refused.hint(format!("did you mean `{meant}`?")),
                None => refused.hint(format!("valid keys: {}", known.join(", "))),
            }
        }
        None => Error::new(Kind::Config, format!("{place}: {}", message.trim()))
            .state("nothing was started")
            .hint("every key is explained in /usr/share/doc/matrix-postgres/config.toml.example"),
    }
}

/// Takes serde's sentence "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

/// The known key that is close enough to have been meant.
fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|key| (strsim::jaro_winkler(found, key), *key))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> String {
        Fragment::parse(text, Path::new("c.toml")).unwrap_err().report()
    }

    #[test]
    fn a_key_unlike_any_other_gets_the_list() {
        assert!(report("zzz = 1").contains("HINT: valid keys: data_directory"));
    }

    #[test]
    fn a_wrong_type_names_the_line() {
        let report = report("\n[server]\nport = \"many\"\n");
        assert!(report.starts_with("c.toml, line 3: "), "{report}");
    }

    #[test]
    fn broken_syntax_names_the_line() {
        assert!(report("a = 1\n[server\n").starts_with("c.toml, line "));
    }
}
