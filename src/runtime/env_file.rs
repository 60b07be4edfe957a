//! Files with variables for containers, as docker reads them (`--env-file`; `kvfile` of docker's command line).
//!
//! Each line is taken as it is: quotes, `#` in a value, blanks at its end and backslashes belong to the value. systemd's
//! `EnvironmentFile=` and a shell take all of these for something else.

use std::path::Path;

use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath;

/// More is not read of one.
const MODEST: u64 = 1 << 20;

/// The variables of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvFile(Vec<(String, String)>);

impl EnvFile {
    /// Reads one.
    ///
    /// # Errors
    /// [`Kind::File`] if it cannot be read, [`Kind::Config`] naming a line that docker refuses. No value is part of an error.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = beneath::read(path, MODEST).at("read", path)?;
        let refused = |(line, reason)| {
            Error::new(Kind::Config, format!("line {line} of {} {reason}", path.display()))
                .state("nothing was started, and nothing was changed")
                .hint("docker's --env-file takes lines of the form NAME=VALUE only")
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            refused((before, "is not UTF-8"))
        })?;
        Self::parse(text).map_err(refused)
    }

    /// The variables in a text; fails with the number of a line that docker refuses, and the reason. A name without a value is
    /// taken from the environment of whoever calls docker: ours has no more than every program of ours needs.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, (usize, &'static str)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut variables = Vec::new();
        for (number, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) =
                line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
            if name.is_empty() {
                return Err((number + 1, "has no name before its \"=\""));
            }
            if name.contains(char::is_whitespace) {
                return Err((
                    number + 1,
                    "has a blank in the name before its \"=\", such as that of \"export\"",
                ));
            }
            variables.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        }
        Ok(Self(variables))
    }

    /// The value of a variable. Of several of one name the last one counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_kept_as_it_is() {
        let text =
            "\u{feff}# comment\n\nPGUSER=matrix\r\n  PGPASSWORD=it's \"a\" secret # \\ \nA==\nB=\nUNSET\nA=2";
        let file = EnvFile::parse(text).unwrap();
        assert_eq!(file.get("PGPASSWORD"), Some("it's \"a\" secret # \\ "));
        assert_eq!((file.get("PGUSER"), file.get("A"), file.get("B")), (Some("matrix"), Some("2"), Some("")));
        assert_eq!((file.get("UNSET"), file.get("# comment")), (None, None));
        assert_eq!(EnvFile::parse("A==").unwrap().get("A"), Some("="));
    }

    #[test]
    fn what_docker_refuses_is_named_by_its_line_without_the_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        for (text, expected) in [
            (&b"A=1\nexport PGPASSWORD=secret\n"[..], "line 2 of"),
            (b"=secret", "line 1 of"),
            (b"A=1\n\nB=secret\xff", "line 3 of"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = EnvFile::read(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().starts_with(expected) && !error.report().contains("secret"), "{error}");
        }
        assert_eq!(EnvFile::read(&directory.path().join("none")).unwrap_err().kind(), Kind::File);
    }
}
