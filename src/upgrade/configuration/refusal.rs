//! What a version of PostgreSQL says of configuration files: it reads them, and names what it does not take.

use std::path::PathBuf;
use std::process::Stdio;

use super::home::Home;
use crate::account::Account;
use crate::error::{Error, Kind, Result};
use crate::postgres::Major;
use crate::runtime::{Call, Child, Runtime};

/// One thing that it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A setting that it does not know.
    Unknown { name: String, file: PathBuf, line: usize },
    /// A value that it does not take, for which it gives no place; the names are all that it has in quotes.
    Value { said: String, quoted: Vec<String> },
    /// A value of a setting that it does not name.
    Nameless(String),
    /// Anything else, such as a file that is not there.
    Other(String),
}

impl Refusal {
    /// In the words of the server, more or less.
    pub(super) fn said(self) -> String {
        match self {
            Self::Unknown { name, .. } => format!("unrecognized configuration parameter \"{name}\""),
            Self::Value { said, .. } | Self::Nameless(said) | Self::Other(said) => said,
        }
    }
}

/// Reads the configuration in `home` with the server of `major`, as `account`, and starts nothing: all names
/// come first, and only without an unknown one among them the values (postgres(1), `-C`). More than five may
/// take more than one call.
///
/// # Errors
/// [`Kind::NotInstalled`] or [`Kind::Program`], if the server itself fails.
pub(super) fn refusals(
    runtime: &dyn Runtime,
    major: Major,
    home: &Home,
    account: &Account,
) -> Result<Vec<Refusal>> {
    let directory = home.files();
    let mut command = runtime.command(major, &reading(home).as_user(account))?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (status, said) =
        Child::spawn(command, format!("postgres -C on {}", directory.display()))?.wait_status()?;
    if status.success() {
        return Ok(Vec::new());
    }
    let refusals = parse(&said);
    if refusals.is_empty() {
        let message =
            format!("PostgreSQL {major} could not read the configuration in {}", directory.display());
        return Err(Error::new(Kind::Program, message).because(said));
    }
    Ok(refusals)
}

/// On the command line, a setting holds against the files: nothing in them may make what it says silent, or
/// other than it is expected.
fn reading(home: &Home) -> Call {
    let mut call = Call::new("postgres", ["-C", "data_directory", "-D"]);
    call.arguments.push(home.files().into());
    // The file may name the old one.
    let data = format!("data_directory={}", home.data().display());
    call.arguments.extend(["-c".into(), data.into()]);
    for setting in [
        "log_min_messages=warning",
        "log_line_prefix=",
        "log_error_verbosity=default",
        "log_destination=stderr",
        "lc_messages=C",
    ] {
        call.arguments.extend(["-c".into(), setting.into()]);
    }
    call
}

/// Takes apart what the server wrote to standard error.
fn parse(said: &str) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for line in said.lines() {
        // A file of include_if_exists that is not there is mentioned, too.
        let Some(said) = line.strip_prefix("LOG:  ").filter(|said| !said.starts_with("skipping ")) else {
            continue;
        };
        // A file that is read twice is complained about twice.
        let refusal = unknown(said).unwrap_or_else(|| other(said));
        if !refusals.contains(&refusal) {
            refusals.push(refusal);
        }
    }
    refusals
}

fn unknown(said: &str) -> Option<Refusal> {
    let rest = said.strip_prefix("unrecognized configuration parameter \"")?;
    let (name, rest) = rest.split_once("\" in file \"")?;
    let (file, line) = rest.rsplit_once("\" line ")?;
    Some(Refusal::Unknown { name: name.to_owned(), file: file.into(), line: line.parse().ok()? })
}

fn other(said: &str) -> Refusal {
    let of_files = ["syntax error", "could not ", "recursion depth", "configuration file recursion"];
    let quoted: Vec<_> = said.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    if of_files.iter().any(|start| said.starts_with(start)) {
        return Refusal::Other(said.to_owned());
    }
    match quoted.is_empty() {
        true => Refusal::Nameless(said.to_owned()),
        false => Refusal::Value { said: said.to_owned(), quoted },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// As PostgreSQL 15.18 said it, and 19 of the one value without a name.
    const SAID: &str = r#"LOG:  skipping missing configuration file "/d/nope"
LOG:  unrecognized configuration parameter "wal_keep_segments" in file "/d/a "b"/postgresql.conf" line 2
LOG:  unrecognized configuration parameter "wal_keep_segments" in file "/d/a "b"/postgresql.conf" line 2
LOG:  99999999 is outside the valid range for parameter "max_connections" (1 .. 262143)
LOG:  invalid value for parameter "wal_level": "archiv"
HINT:  Available values: minimal, replica, logical.
LOG:  parameter "ssl" requires a Boolean value
LOG:  non-standard string literals are not supported
LOG:  syntax error in file "/d/postgresql.conf" line 13, near token "z"
LOG:  could not open configuration file "/d/nnn": No such file or directory
FATAL:  configuration file "/d/postgresql.conf" contains errors"#;

    #[test]
    fn each_complaint_is_told_from_the_others() {
        let value = |said: &str, quoted: &[&str]| Refusal::Value {
            said: said.into(),
            quoted: quoted.iter().map(|&name| name.into()).collect(),
        };
        let file = "/d/postgresql.conf";
        assert_eq!(
            parse(SAID),
            [
                Refusal::Unknown {
                    name: "wal_keep_segments".into(),
                    file: "/d/a \"b\"/postgresql.conf".into(),
                    line: 2
                },
                value(
                    "99999999 is outside the valid range for parameter \"max_connections\" (1 .. 262143)",
                    &["max_connections"]
                ),
                value("invalid value for parameter \"wal_level\": \"archiv\"", &["wal_level", "archiv"]),
                value("parameter \"ssl\" requires a Boolean value", &["ssl"]),
                Refusal::Nameless("non-standard string literals are not supported".into()),
                Refusal::Other(format!("syntax error in file \"{file}\" line 13, near token \"z\"")),
                Refusal::Other(
                    "could not open configuration file \"/d/nnn\": No such file or directory".into()
                ),
            ]
        );
    }

    #[test]
    fn nothing_in_the_files_can_make_it_silent() {
        let call = reading(&Home::of(Path::new("/d")));
        let text: Vec<_> = call.arguments.iter().map(|a| a.to_string_lossy()).collect();
        assert_eq!(text[..4], ["-C", "data_directory", "-D", "/d"]);
        let apart = reading(&Home::apart(Path::new("/etc/d"), Path::new("/d")));
        let apart: Vec<_> = apart.arguments.iter().map(|a| a.to_string_lossy()).collect();
        assert_eq!(apart[2..6], ["-D", "/etc/d", "-c", "data_directory=/d"]);
        assert!(
            text.iter().any(|a| a == "log_min_messages=warning") && text.iter().any(|a| a == "lc_messages=C")
        );
    }
}
