//! What was found → what is done.

use std::fmt;

use nix::unistd::Uid;

use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Contents, DataDirectory, Major, Occupant};

/// What was found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// At the data directory's path.
    pub data_directory: DataDirectory,
    /// Who has it.
    pub occupant: Option<Occupant>,
    /// The system user that `server.user` names, if it exists.
    pub service_user: Option<Account>,
    /// Who we are.
    pub effective: Uid,
    /// The majors that are installed, oldest first.
    pub installed: Vec<Major>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The cluster is there: run its own version.
    Run {
        /// The version.
        major: Major,
        /// As whom.
        account: Account,
    },
    /// There is none: make one, then run it.
    Initialise {
        /// The version.
        major: Major,
        /// As whom.
        account: Account,
    },
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { major, account } => write!(f, "run PostgreSQL {major} as {}", account.name),
            Self::Initialise { major, account } => {
                write!(f, "initialise a cluster of PostgreSQL {major}, and run it as {}", account.name)
            }
        }
    }
}

/// Decides.
///
/// # Errors
/// Each with the command that puts it right; nothing has been changed.
pub fn plan(facts: &Facts, settings: &Settings) -> Result<Plan> {
    let shown = facts.data_directory.path.display();
    let refuse = |message: String| {
        Error::new(Kind::DataDirectory, message).state("the server was not started, and nothing was changed")
    };
    if let Some(occupant) = &facts.occupant {
        return Err(occupant
            .refusal(&facts.data_directory.path)
            .state("the server was not started, and nothing was changed"));
    }
    let account = account(facts, settings)?;
    match facts.data_directory.contents {
        Contents::Cluster(major) if facts.installed.contains(&major) => Ok(Plan::Run { major, account }),
        Contents::Cluster(major) => Err(not_installed(major, &facts.installed)),
        Contents::Foreign => Err(refuse(format!("{shown} is not a cluster, and is not empty"))
            .hint("set data_directory in /etc/matrix-postgres/config.toml to an empty or new directory")),
        // PostgreSQL's documentation ("Creating a Database Cluster") advises against it, too.
        Contents::Empty if facts.data_directory.is_mount_point => {
            Err(refuse(format!("{shown} is a mount point, which cannot be replaced by rename"))
                .hint(format!("data_directory = \"{shown}/data\" in /etc/matrix-postgres/config.toml")))
        }
        Contents::Missing | Contents::Empty => {
            let major = settings.server.version.or(facts.installed.last().copied());
            match major {
                Some(major) if facts.installed.contains(&major) => Ok(Plan::Initialise { major, account }),
                Some(major) => Err(not_installed(major, &facts.installed)),
                None => Err(Error::new(Kind::NotInstalled, "no PostgreSQL server is installed")
                    .hint("apt-get install postgresql")),
            }
        }
    }
}

fn not_installed(major: Major, installed: &[Major]) -> Error {
    let installed: Vec<_> = installed.iter().map(ToString::to_string).collect();
    Error::new(
        Kind::NotInstalled,
        format!(
            "PostgreSQL {major} is not installed (installed: {})",
            match installed.is_empty() {
                true => "none".to_owned(),
                false => installed.join(", "),
            }
        ),
    )
    .state("the server was not started, and its data is unchanged")
    .hint(format!("apt-get install postgresql-{major}"))
}

/// The owner of the data directory; for a new one, and for an empty one of root's, the service's user.
fn account(facts: &Facts, settings: &Settings) -> Result<Account> {
    let shown = facts.data_directory.path.display();
    let cluster = matches!(facts.data_directory.contents, Contents::Cluster(_));
    let account = match &facts.data_directory.owner {
        Some(owner) if owner.is_root() && cluster => {
            return Err(Error::new(
                Kind::DataDirectory,
                format!("{shown} belongs to root, and PostgreSQL does not run as root"),
            )
            .hint(format!("chown -R {}: {shown}", settings.server.user)));
        }
        Some(owner) if !owner.is_root() => owner.clone(),
        _ => facts.service_user.clone().ok_or_else(|| {
            Error::new(Kind::Config, format!("there is no system user {:?}", settings.server.user))
                .hint("systemd-sysusers matrix-postgres.conf")
        })?,
    };
    match facts.effective.is_root() || facts.effective == account.uid {
        true => Ok(account),
        false => Err(Error::new(
            Kind::DataDirectory,
            format!("{shown} belongs to {}, but this process runs as user {}", account.name, facts.effective),
        )
        .hint("systemctl start matrix-postgres.service")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;

    fn account_of(name: &str, id: u32) -> Account {
        Account { name: name.into(), uid: Uid::from_raw(id), gid: id.into() }
    }

    fn facts(contents: Contents, owner: Option<u32>) -> Facts {
        Facts {
            data_directory: DataDirectory {
                path: "/d/data".into(),
                contents,
                owner: owner.map(|id| account_of("matrix", id)),
                is_mount_point: false,
                postmaster: None,
            },
            occupant: None,
            service_user: Some(account_of("matrix-postgres", 500)),
            effective: Uid::from_raw(0),
            installed: vec![Major(15), Major(17)],
        }
    }

    fn decide(facts: &Facts) -> Result<Plan> {
        plan(facts, &Settings::from_fragment(Fragment::default()).unwrap())
    }

    fn hint(facts: &Facts) -> String {
        decide(facts).unwrap_err().hint_text().unwrap().to_owned()
    }

    #[test]
    fn a_cluster_runs_in_its_own_version_as_its_owner() {
        let plan = decide(&facts(Contents::Cluster(Major(15)), Some(991))).unwrap();
        assert_eq!(plan, Plan::Run { major: Major(15), account: account_of("matrix", 991) });
    }

    #[test]
    fn a_new_one_gets_the_newest_version_and_the_service_user() {
        let expected = Plan::Initialise { major: Major(17), account: account_of("matrix-postgres", 500) };
        assert_eq!(decide(&facts(Contents::Missing, None)).unwrap(), expected);
        assert_eq!(decide(&facts(Contents::Empty, Some(0))).unwrap(), expected);
    }

    #[test]
    fn each_refusal_has_its_own_command() {
        assert_eq!(hint(&facts(Contents::Cluster(Major(13)), Some(991))), "apt-get install postgresql-13");
        assert!(hint(&facts(Contents::Cluster(Major(15)), Some(0))).starts_with("chown -R matrix-postgres:"));
        assert!(hint(&facts(Contents::Foreign, Some(991))).contains("data_directory"));

        let mut used = facts(Contents::Cluster(Major(15)), Some(991));
        used.occupant = Some(Occupant {
            pid: Some(4711),
            unit: Some("postgresql@15-main.service".into()),
            container: None,
            program: None,
        });
        assert_eq!(hint(&used), "systemctl stop postgresql@15-main.service");

        let mut mount = facts(Contents::Empty, Some(991));
        mount.data_directory.is_mount_point = true;
        assert!(hint(&mount).contains("\"/d/data/data\""));

        let mut other = facts(Contents::Cluster(Major(15)), Some(991));
        other.effective = Uid::from_raw(1000);
        assert_eq!(hint(&other), "systemctl start matrix-postgres.service");

        let mut nobody = facts(Contents::Missing, None);
        nobody.service_user = None;
        assert!(hint(&nobody).starts_with("systemd-sysusers"));
    }
}
