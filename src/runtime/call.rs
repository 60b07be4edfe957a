//! One call of a program, as a value.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::account::Account;

/// One call of one of PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The program's name, such as `pg_dump`.
    pub program: &'static str,
    /// Its arguments. Never a secret: every user of the machine can read them.
    pub arguments: Vec<Argument>,
    /// What it finds in its environment beside what every program does. Never a secret either.
    pub environment: Vec<(&'static str, OsString)>,
    /// Whether it writes so much that its standard output should have a large buffer.
    pub bulk_output: bool,
    /// As whom it runs, if the runtime does not decide that.
    pub user: Option<Account>,
}

impl Call {
    /// A call of `program` with these arguments.
    pub fn new<A: Into<Argument>>(program: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, environment: Vec::new(), bulk_output: false, user: None }
    }

    /// The same call with a large buffer for its standard output, where the runtime can give it one.
    #[must_use]
    pub fn with_bulk_output(mut self) -> Self {
        self.bulk_output = true;
        self
    }

    /// The same call, as this user.
    #[must_use]
    pub fn as_user(self, account: &Account) -> Self {
        Self { user: Some(account.clone()), ..self }
    }
}

/// An argument. What is a path of this machine says so: a program may run where the file has another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// As it is.
    Text(OsString),
    /// A path of this machine, behind what is before it in the same argument.
    Path(&'static str, PathBuf),
}

/// A path as a program finds it that runs in a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside(pub(super) PathBuf);

impl Argument {
    /// As the program gets it, with the paths that `inside` makes of those of this machine.
    pub(super) fn rendered(&self, inside: impl Fn(&Path) -> Inside) -> Cow<'_, OsStr> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Path(before, path) => {
                let mut text = OsString::from(before);
                text.push(inside(path).0);
                Cow::Owned(text)
            }
        }
    }

    /// What it looks like on this machine.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.to_string_lossy(),
            Self::Path(before, path) => format!("{before}{}", path.display()).into(),
        }
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&&str> for Argument {
    fn from(text: &&str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Argument {
    fn from(text: &String) -> Self {
        Self::Text(text.into())
    }
}

impl From<OsString> for Argument {
    fn from(text: OsString) -> Self {
        Self::Text(text)
    }
}

impl From<&Path> for Argument {
    fn from(path: &Path) -> Self {
        Self::Path("", path.to_owned())
    }
}

impl From<PathBuf> for Argument {
    fn from(path: PathBuf) -> Self {
        Self::Path("", path)
    }
}

impl PartialEq<str> for Argument {
    fn eq(&self, text: &str) -> bool {
        self.to_string_lossy() == text
    }
}

impl PartialEq<&str> for Argument {
    fn eq(&self, text: &&str) -> bool {
        self.to_string_lossy() == *text
    }
}
