//! Settings: validated, complete, nothing left to guess at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backup::Backup;
use super::clients::Clients;
use super::fragment::Fragment;
use super::notify::Notify;
use super::offsite::Offsite;
use super::server::Server;
use super::upgrade::Upgrade;
use super::value::{absolute, duration, refused};
use crate::error::Result;
use crate::postgres::{Connection, Endpoint};

/// Everything that can be configured, with the defaults of the contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `data_directory`: the cluster. Default `/var/lib/matrix-postgres/data`, or `/matrix/postgres/data` where that is used:
    /// see [`super::Layout`].
    pub data_directory: PathBuf,
    /// `state_directory`: locks and journals, in a directory that only root may write to. Default
    /// `/var/lib/matrix-postgres-upgrade`.
    pub state_directory: PathBuf,
    /// `socket_directory`: where the server's Unix socket is. Default `/run/matrix-postgres`.
    pub socket_directory: PathBuf,
    /// `wait`: how long a backup, a restore or an upgrade waits for another one that is under way. Default 6 hours.
    pub wait: Duration,
    /// `[server]`
    pub server: Server,
    /// `[backup]`
    pub backup: Backup,
    /// `[clients]`
    pub clients: Clients,
    /// `[upgrade]`
    pub upgrade: Upgrade,
    /// `[notify]`
    pub notify: Notify,
    /// `[[offsite]]`
    pub offsite: Vec<Offsite>,
}

impl Settings {
    /// How to reach the server, as its superuser.
    pub fn connection(&self) -> Connection {
        let Self { socket_directory, server, .. } = self;
        let endpoint = match &server.remote {
            Some(remote) => Endpoint::Remote(remote.clone()),
            None => Endpoint::Socket(socket_directory.clone()),
        };
        Connection::to(endpoint, server.port, &server.superuser)
            .of_unit(&server.unit)
            .with_database(&server.database)
    }

    /// Validates what was written and fills in the rest.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming key, value and what is allowed.
    pub fn from_fragment(input: Fragment) -> Result<Self> {
        let layout = input.layout.unwrap_or_default();
        let places = [
            ("data_directory", input.data_directory.is_some()),
            ("socket_directory", input.socket_directory.is_some()),
        ];
        let backup = Backup::from_fragment(input.backup)?;
        Ok(Self {
            offsite: Offsite::from_fragments(input.offsite.unwrap_or_default(), backup.keep)?,
            data_directory: absolute("data_directory", input.data_directory, layout.data_directory())?,
            state_directory: absolute(
                "state_directory",
                input.state_directory,
                "/var/lib/matrix-postgres-upgrade",
            )?,
            socket_directory: absolute("socket_directory", input.socket_directory, "/run/matrix-postgres")?,
            wait: match input.wait.as_deref() {
                Some("0" | "0s") => Duration::ZERO,
                wait => duration("wait", wait, "6h")?,
            },
            server: Server::from_fragment(input.server, places)?,
            backup,
            clients: Clients::from_fragment(input.clients)?,
            upgrade: Upgrade::from_fragment(input.upgrade, layout)?,
            notify: Notify::from_fragment(input.notify)?,
        })
    }

    /// The keys of directories of ours that lie in the data directory: they would be copied, compared and removed with the cluster.
    /// That stands in the way of a backup and of an upgrade, and keeps no server from starting.
    pub fn misplaced(&self) -> Vec<(&'static str, &Path)> {
        let Self { data_directory: data, backup, upgrade, .. } = self;
        let ours = [
            ("state_directory", &self.state_directory),
            ("socket_directory", &self.socket_directory),
            ("backup.directory", &backup.directory),
            ("backup.repository", &backup.repository),
            ("upgrade.keep_path", &upgrade.keep_path),
            ("upgrade.dump_directory", &upgrade.dump_directory),
        ];
        let ours = ours.into_iter().map(|(key, path)| (key, path.as_path()));
        ours.filter(|(_, path)| path.starts_with(data)).collect()
    }

    /// Refuses those of [`Settings::misplaced`] that backups use.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming the key, and that it takes another path.
    pub fn require_apart(&self) -> Result<()> {
        let data = format!("{:?}", self.data_directory.display().to_string());
        match self.misplaced().iter().find(|(key, _)| key.starts_with("backup.")) {
            None => Ok(()),
            Some((key, path)) => Err(refused(
                key,
                &path.display().to_string(),
                &format!("a path outside of data_directory = {data}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EncryptTo, ServerKind};

    fn settings(text: &str) -> Result<Settings> {
        Settings::from_fragment(Fragment::parse(text, Path::new("c.toml"))?)
    }

    #[test]
    fn values_outside_their_range_are_refused_with_what_is_allowed() {
        for (text, expected) in [
            ("data_directory = \"data\"", "an absolute path"),
            ("data_directory = \"/\"", "an absolute path"),
            ("backup.compression = \"lz4\"", "zstd, gzip or none"),
            ("backup.format = \"tar\"", "custom or plain"),
            ("backup.engine = \"restic\"", "dump, pgbackrest or both"),
            ("server.user = \"root\"", "a user that is not root"),
            ("backup.stanza = \"a b\"", "letters, digits, - and _"),
            ("backup.stanza = \"--x\"", "letters, digits, - and _"),
            ("backup.repository = \"x\"", "an absolute path"),
            ("backup.start_server = \"yes\"", "\"auto\", true or false"),
            ("upgrade.compare = \"all\"", "rows or content"),
            ("backup.level = 20", "1 to 19"),
            ("backup = { compression = \"gzip\", level = 10 }", "1 to 9"),
            ("backup.max_age = \"soon\"", "a time span"),
            ("backup.max_age = \"-1h\"", "a time span"),
            ("server.role = \"\"", "a name"),
            ("offsite = [{ remote = \"x:y\" }]", "offsite.name takes"),
            ("offsite = [{ name = \"a/b\", remote = \"x:y\" }]", "offsite.name takes"),
            ("offsite = [{ name = \"a\" }]", "offsite.remote takes REMOTE:PATH"),
            ("offsite = [{ name = \"a\", remote = \"/mnt\" }]", "offsite.remote takes REMOTE:PATH"),
            ("offsite = [{ name = \"a\", remote = \"x:../y\" }]", "offsite.remote takes REMOTE:PATH"),
            (
                "offsite = [{ name = \"a\", remote = \"x:y\", keep = { last = 0, daily = 0, weekly = 0, monthly = 0 } }]",
                "offsite.keep keeps no backup",
            ),
            (
                "offsite = [{ name = \"a\", remote = \"x:y\" }, { name = \"a\", remote = \"z:y\" }]",
                "a name of its own",
            ),
            ("server.kind = \"debain\"", "expected one of `own`, `debian`, `container`, `external`"),
            ("server.kind = \"external\"", "set server.host"),
            ("server.passfile = \"/p\"", "server.host is not"),
            ("server = { kind = \"own\", host = \"db\" }", "server.kind = \"external\""),
            ("server = { host = \"db\", user = \"ada\" }", "server.superuser = \"ada\""),
            ("server = { host = \"db\", unit = \"x.service\" }", "remove server.unit"),
            ("server = { host = \"db\", cluster = \"15/main\" }", "remove server.cluster"),
            ("data_directory = \"/d\"\nserver.host = \"db\"", "remove data_directory"),
            ("server.host = \"a,b\"", "the name or address of one host"),
            ("server = { host = \"db\", sslmode = \"verify\" }", "require, verify-ca, verify-full"),
            ("server = { host = \"db\", sslrootcert = \"ca.pem\" }", "an absolute path"),
            ("server.cluster = \"main\"", "such as 15/main"),
            ("server.cluster = \"15/../x\"", "such as 15/main"),
            ("server = { kind = \"own\", cluster = \"15/main\" }", "remove server.cluster"),
            ("server = { kind = \"debian\", port = 5433 }", "remove server.port"),
            ("data_directory = \"/d\"\nserver.cluster = \"15/main\"", "remove data_directory"),
            ("backup.exclude_databases = [\"\"]", "names of databases"),
            ("backup.exclude_databases = [\"scratch[\"]", "names of databases"),
            ("backup.encrypt_to = [\"ada\"]", "age recipients"),
            ("backup.encrypt_to = [\"DEADBEEF\"]", "full fingerprints"),
            ("backup.encrypt_to = [\"--output=x@y z\"]", "age recipients"),
            ("backup.recipients_file = \"keys\"", "an absolute path"),
            ("backup.encrypt_to = [\"age1x\", \"a@b.example\"]", "use recipients of one kind only"),
            (
                "backup = { recipients_file = \"/r\", encrypt_to = [\"a@b.example\"] }",
                "use recipients of one kind only",
            ),
            (
                "backup = { recipients_file = \"/r\", rsyncable = true }",
                "backup.rsyncable has no effect on encrypted files",
            ),
        ] {
            let report = settings(text).unwrap_err().report();
            assert!(report.contains(expected), "{text}: {report}");
        }
    }

    #[test]
    fn whose_the_server_is_may_be_said_by_another_key() {
        let kind = |text| settings(text).unwrap().server.kind;
        assert_eq!(kind(""), None);
        assert_eq!(kind("data_directory = \"/d\""), None);
        assert_eq!(kind("server.kind = \"debian\""), Some((ServerKind::Debian, "server.kind")));
        assert_eq!(kind("server.cluster = \"15/main\""), Some((ServerKind::Debian, "server.cluster")));
        assert_eq!(kind("socket_directory = \"/s\""), Some((ServerKind::Own, "socket_directory")));
        assert_eq!(kind("server.unit = \"x.service\""), Some((ServerKind::Own, "server.unit")));
    }

    #[test]
    fn a_host_is_that_of_a_server_on_the_network() {
        let server = |text| settings(text).unwrap().server;
        assert_eq!(server("").remote, None);
        assert_eq!(server("server = { host = \"\", passfile = \"\", sslmode = \"\" }").remote, None);
        let far = server("server = { host = \"db\", port = 5433, passfile = \"/p\" }");
        assert_eq!((far.kind, far.port), (Some((ServerKind::External, "server.host")), 5433));
        let remote = far.remote.unwrap();
        assert_eq!((remote.sslmode.name(), remote.passfile), ("verify-full", Some("/p".into())));
        let near = server("server = { kind = \"external\", host = \"127.0.0.1\" }").remote.unwrap();
        assert_eq!((near.sslmode.name(), near.passfile), ("prefer", None));
    }

    #[test]
    fn directories_of_ours_in_the_data_directory_are_named_and_no_backup_goes_there() {
        let kept = settings("data_directory = \"/d\"\nupgrade.keep_path = \"/d/kept\"").unwrap();
        assert_eq!(kept.misplaced(), [("upgrade.keep_path", Path::new("/d/kept"))]);
        assert!(kept.require_apart().is_ok(), "a backup has nothing to do with it");
        let refused = settings("data_directory = \"/d\"\nbackup.directory = \"/d\"").unwrap().require_apart();
        assert!(refused.unwrap_err().report().contains("outside of data_directory = \"/d\""));
        assert_eq!(
            settings("data_directory = \"/d\"\nbackup.directory = \"/data\"").unwrap().misplaced(),
            []
        );
    }

    #[test]
    fn databases_are_excluded_by_name_or_by_pattern() {
        let backup = settings("backup.exclude_databases = [\"scratch\", \"test_*\"]").unwrap().backup;
        assert!(backup.excludes("scratch") && backup.excludes("test_") && backup.excludes("test_a/b"));
        assert!(
            !backup.excludes("scratch2") && !backup.excludes("a_test_b") && !backup.excludes("homeserver")
        );
    }

    #[test]
    fn what_recipients_look_like_says_who_encrypts() {
        let encryption = |text| settings(text).unwrap().backup.encryption;
        assert_eq!(encryption("backup = { encrypt_to = [], recipients_file = \"\" }"), None);
        let age = EncryptTo::Age { recipients: vec!["age1xyz".into()], file: Some("/r".into()) };
        assert_eq!(
            encryption("backup = { encrypt_to = [\"age1xyz\"], recipients_file = \"/r\" }"),
            Some(age)
        );
        let fingerprint = "AAAA AAAA AAAA AAAA AAAA  AAAA AAAA AAAA AAAA AAAa";
        let keys = vec!["A".repeat(40), "<ada@test.example>".into()];
        assert_eq!(
            encryption(&format!("backup.encrypt_to = [{fingerprint:?}, \"ada@test.example\"]")),
            Some(EncryptTo::OpenPgp { keys, home: "/etc/matrix-postgres/gnupg".into() })
        );
    }

    #[test]
    fn a_target_keeps_what_is_kept_here_unless_it_says_otherwise() {
        let text = "backup.keep.daily = 9\n[[offsite]]\nname = \"a\"\nremote = \"x:y/\"\n[[offsite]]\nname = \"b\"\n\
                    remote = \"z:\"\nappend_only = true\n[offsite.keep]\nmonthly = 24";
        let targets = settings(text).unwrap().offsite;
        assert_eq!((targets[0].remote.as_str(), targets[0].keep.daily), ("x:y", 9));
        assert_eq!((targets[1].keep.daily, targets[1].keep.monthly, targets[1].append_only), (7, 24, true));
        assert_eq!(targets[1].max_delay, Duration::from_secs(6 * 3600));
    }

    #[test]
    fn a_password_in_a_remote_is_refused_and_not_shown() {
        let report = settings("offsite = [{ name = \"a\", remote = \":sftp,host=h,pass=SECRET:y\" }]")
            .unwrap_err()
            .report();
        assert!(report.contains("without options") && !report.contains("SECRET"), "{report}");
    }

    #[test]
    fn a_private_key_is_refused_and_not_shown() {
        let report = settings("backup.encrypt_to = [\"AGE-SECRET-KEY-1QQQQ\"]").unwrap_err().report();
        assert!(report.contains("contains a private key") && !report.contains("QQQQ"), "{report}");
    }

    #[test]
    fn time_spans_read_as_systemd_writes_them() {
        let settings = settings("backup = { max_age = \"2d\", lock_timeout = \"1h 30m\" }").unwrap();
        assert_eq!(settings.backup.max_age, Duration::from_secs(2 * 86_400));
        assert_eq!(settings.backup.lock_timeout, Duration::from_secs(5400));
    }
}
