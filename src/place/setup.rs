//! What a place needs once: the lines of configuration, and, where the server lets in its cluster's owner only, that backups are
//! made by that user.
//!
//! systemd is told by drop-ins, and the backups are handed over. [`plan`] says what is missing, and [`Plan::carry_out`] does it;
//! done again, it finds nothing to do. For the server of our own it takes all of that back.

use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::login::CREDENTIAL;
use super::{Database, Packaging, Place};
use crate::account::Account;
use crate::config::Settings;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath::Directory};
use crate::lock::Lock;
use crate::runtime::{Engine, Image};
use crate::systemd::Manager;

/// The file with what was found. It is written anew each time.
pub const FILE: &str = "/etc/matrix-postgres/config.d/10-server.toml";

/// Where the password for a server on the network is looked for, unless the configuration says otherwise.
const PASSFILE: &str = "/etc/matrix-postgres/passfile";

/// Who makes backups, unless a drop-in says otherwise.
const USER: &str = "matrix-postgres";

/// The units that run as the backups' user, and whether one must not reach the server: it tries backups out, or sends them to
/// others.
const UNITS: [(&str, bool); 4] = [
    ("matrix-postgres-backup.service", false),
    ("matrix-postgres-report@.service", false),
    ("matrix-postgres-backup-verify.service", true),
    ("matrix-postgres-backup-offsite.service", true),
];

/// The drop-in's name, the same for each.
const DROP_IN: &str = "10-server.conf";

/// Where programs are asked for that run in containers, what answers, and the target that starts it at boot.
const CONTAINERS: [&str; 3] =
    ["matrix-postgres-container.socket", "matrix-postgres-container@.service", "sockets.target"];

/// podman does by itself what docker's daemon does, in its client.
const FOR_PODMAN: &str = "\
[Service]
CapabilityBoundingSet=~
NoNewPrivileges=no
ProtectSystem=no
ProtectHome=no
ProtectControlGroups=no
ProtectHostname=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectClock=no
PrivateNetwork=no
PrivateDevices=no
PrivateTmp=no
DevicePolicy=auto
IPAddressDeny=
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
LockPersonality=no
KeyringMode=inherit
SystemCallFilter=
SystemCallArchitectures=
";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Files that are to have this text; without one they are to go.
    files: Vec<(PathBuf, Option<String>)>,
    /// The directories that are to be given to another user, and whose they are now.
    handed: Vec<(PathBuf, Account)>,
    /// Who is to make backups.
    user: Account,
}

/// What is missing for the server in `place`, with these settings, on a machine whose root is `root`; `is_written` says whether
/// the administrator has written himself where the server is, and `is_only` whether no other cluster could be meant. `image` is that of the server's container, if its programs are needed.
///
/// # Errors
/// [`Kind::Config`] without the user.
pub fn plan(
    root: &Path,
    place: &Place,
    settings: &Settings,
    is_written: bool,
    is_only: bool,
    image: Option<&Image>,
) -> Result<Plan> {
    let name = &settings.server.user;
    let user = Account::named(name)?.ok_or_else(|| {
        Error::new(Kind::Config, format!("there is no system user {name:?}, by whom backups are to be made"))
            .state("nothing was changed")
            .hint("systemd-sysusers matrix-postgres.conf")
    })?;
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let lines = (!is_written).then(|| lines(place, is_only)).flatten();
    let mut wanted = vec![(below(FILE), lines)];
    for (unit, is_apart) in UNITS {
        let file = below(&format!("/etc/systemd/system/{unit}.d/{DROP_IN}"));
        let text = match (&settings.server.remote, is_apart) {
            // Who reaches the server is in a container, and no network is needed outside.
            _ if image.is_some() => Some(drop_in(place, settings, &user, is_apart)),
            (Some(remote), false) => Some(network(&remote.host)),
            // Nothing of a trial leaves the machine.
            (Some(_), true) => None,
            (None, _) => (user.name != USER).then(|| drop_in(place, settings, &user, is_apart)),
        };
        wanted.push((file, text));
    }
    for unit in CONTAINERS {
        let file = below(&format!("/etc/systemd/system/{unit}.d/{DROP_IN}"));
        wanted.push((file, image.and_then(|image| of_containers(unit, image, &user))));
    }
    let mut files = Vec::new();
    for (file, text) in wanted {
        let now = match fs::read_to_string(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            read => Some(read.at("read", &file)?),
        };
        if now != text {
            files.push((file, text));
        }
    }
    let places = [&settings.backup.directory, &settings.backup.scratch_directory];
    let handed = places.into_iter().filter_map(|path| {
        let owner = Directory::open(path).ok()?.owner();
        (owner.uid != user.uid && !owner.is_root()).then(|| (path.clone(), owner))
    });
    Ok(Plan { handed: handed.collect(), files, user })
}

/// The lines that say where the server is; none where it is found by everybody.
fn lines(place: &Place, is_only: bool) -> Option<String> {
    let mut text = "# Written by \"matrix-postgres setup\", which writes it anew each time. What is to stay belongs into\n\
                    # /etc/matrix-postgres/config.toml.\n"
        .to_owned();
    let (cluster, homeserver) = match place {
        Place::Debian { cluster, homeserver, .. } => (cluster, homeserver),
        Place::Own { .. } if is_only => return None,
        Place::Own { .. } => return Some(text + "[server]\nkind = \"own\"\n"),
        Place::External { host, port, homeserver, .. } => {
            return Some(text + &external(host, *port, homeserver.as_ref()));
        }
        // What a unit's file says, everybody reads.
        Place::Container { .. } | Place::Unknown { .. } => return None,
    };
    if cluster.packaging == Packaging::RedHat {
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let _ = writeln!(text, "data_directory = {}", path(&cluster.data_directory));
        let _ = writeln!(text, "socket_directory = {}", path(&cluster.socket_directory));
    }
    text += "\n[server]\n";
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    match cluster.packaging {
        Packaging::Debian => line("kind", quoted("debian")),
        Packaging::RedHat => {
            line("kind", quoted("own"));
            line("port", cluster.port.to_string());
            line("unit", quoted(&cluster.unit));
            line("user", quoted(&cluster.owner));
            line("superuser", quoted(&cluster.owner));
        }
    }
    if cluster.packaging == Packaging::Debian && !is_only {
        line("cluster", quoted(&cluster.name));
    }
    if let Some((database, role)) = homeserver {
        line("database", quoted(database));
        if let Some(role) = role {
            line("role", quoted(role));
        }
    }
    Some(text)
}

/// The lines for a server on the network, whose password is in a file of its own.
fn external(host: &str, port: u16, homeserver: Option<&Database>) -> String {
    let mut text = format!("\n[server]\nkind = \"external\"\nhost = {}\nport = {port}\n", quoted(host));
    if let Some(database) = homeserver {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "database = {}", quoted(&database.name));
        if let Some(role) = database.role.as_deref().map(quoted) {
            let _ = writeln!(text, "role = {role}\nsuperuser = {role}");
        }
        if let Some(file) = &database.sslrootcert {
            let _ = writeln!(text, "sslrootcert = {}", quoted(&file.to_string_lossy()));
        }
    }
    let _ = writeln!(text, "passfile = {}", quoted(PASSFILE));
    text
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What is different in a unit of the package for another user than ours.
fn drop_in(place: &Place, settings: &Settings, user: &Account, is_apart: bool) -> String {
    let mut text = format!(
        "# Written by \"matrix-postgres setup\": the server lets in the owner of its cluster only.\n\
         [Unit]\nAfter={}\n\n[Service]\nUser={}\n# A configuration may be closed to others.\nSupplementaryGroups={USER}\n",
        settings.server.unit, user.name
    );
    // /var/run is a link, and systemd does without what is not there.
    let mut hidden = Vec::new();
    if is_apart {
        text += "# Who runs as this user may log in there as the superuser, and this unit must not.\n";
        hidden.push(settings.socket_directory.canonicalize().unwrap_or(settings.socket_directory.clone()));
    }
    if let Place::Container { container, .. } = place {
        // Its version is looked up there; no backup reads more of it.
        hidden.extend(container.data_directory.iter().filter(|_| is_apart).cloned());
        hidden.extend(container.environment.iter().filter(|_| is_apart).cloned());
        hidden.extend(is_apart.then(|| PathBuf::from("/run/matrix-postgres-container")));
    }
    for path in hidden {
        let _ = writeln!(text, "InaccessiblePaths=-{}", path.display());
    }
    text
}

/// What is different in the units that run programs in containers.
fn of_containers(unit: &str, image: &Image, user: &Account) -> Option<String> {
    let begin = "# Written by \"matrix-postgres setup\": this machine lacks programs of the server's version, or a way to it.\n";
    let [socket, service, _] = CONTAINERS;
    match unit {
        unit if unit == socket => Some(format!("{begin}[Socket]\nSocketUser={}\n", user.name)),
        unit if unit == service => (image.engine == Engine::Podman).then(|| format!("{begin}{FOR_PODMAN}")),
        _ => Some(format!("{begin}[Unit]\nWants={socket}\n")),
    }
}

/// What the unit of the backups needs to reach a server on the network.
fn network(host: &str) -> String {
    // Of a name nobody knows which addresses it has tomorrow, and who tells them.
    let allowed = match host.parse::<IpAddr>() {
        Ok(address) => format!("IPAddressAllow={address}"),
        Err(_) => "IPAddressDeny=".to_owned(),
    };
    format!(
        "# Written by \"matrix-postgres setup\": the server is reached over the network.\n\
         [Unit]\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nPrivateNetwork=no\n{allowed}\nRestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK\n\
         # The password, if it is in no file: /etc/credstore/{CREDENTIAL}, or encrypted, in /etc/credstore.encrypted.\n\
         LoadCredential={CREDENTIAL}\n"
    )
}

impl Plan {
    /// Whether all is as it should be.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.handed.is_empty()
    }

    /// Whose the socket is by which programs are asked for is said to it when it starts.
    fn open_socket(&self, manager: &Manager, settings: &Settings) -> Result<()> {
        let [socket, ..] = CONTAINERS;
        let directory = format!("{socket}.d");
        let is_its = |file: &Path| files::parent(file).ends_with(&directory);
        let Some((_, text)) = self.files.iter().find(|(file, _)| is_its(file)) else { return Ok(()) };
        manager.stop_all(&[socket.to_owned()], settings.server.start_timeout)?;
        match text {
            Some(_) => manager.start(socket, settings.server.start_timeout).map(drop),
            None => Ok(()),
        }
    }

    /// Does it, as root. A backup under way is waited for.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::Locked`]; those of systemd.
    pub fn carry_out(&self, settings: &Settings) -> Result<()> {
        let lock = Lock::take(settings, "setup")?;
        for (file, text) in &self.files {
            if let Some(text) = text {
                make_public(files::parent(file))?;
                files::publish(file, text)?;
            } else {
                fs::remove_file(file).at("remove", file)?;
                // Others may have something in there.
                let _ = fs::remove_dir(files::parent(file));
            }
        }
        for (path, from) in &self.handed {
            let directory = Directory::open(path).at("open", path)?;
            hand_over(&directory, from, &self.user).at("hand over", path)?;
        }
        if self.files.iter().any(|(file, _)| file.ends_with(DROP_IN)) {
            let manager = Manager::connect()?;
            manager.reload()?;
            self.open_socket(&manager, settings)?;
        }
        drop(lock);
        // Who takes it as root lets the backups' user lock it.
        Lock::take(settings, "setup").map(drop)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (file, text) in &self.files {
            let Some(text) = text else {
                writeln!(f, "remove {}", file.display())?;
                continue;
            };
            writeln!(f, "write {}:", file.display())?;
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                writeln!(f, "    {line}")?;
            }
        }
        for (path, from) in &self.handed {
            writeln!(f, "hand over {} from {} to {}", path.display(), from.name, self.user.name)?;
        }
        Ok(())
    }
}

/// Readable for everybody, whatever our umask.
fn make_public(directory: &Path) -> Result<()> {
    let missing: Vec<_> = directory.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        DirBuilder::new().mode(0o755).create(path).at("create", path)?;
        fs::set_permissions(path, Permissions::from_mode(0o755)).at("change the mode of", path)?;
    }
    Ok(())
}

/// Gives what is in a directory, and then itself, from one user to another. No link is followed, and nothing is given away that
/// bears another name, too: it may be somebody else's.
fn hand_over(directory: &Directory, from: &Account, to: &Account) -> std::io::Result<()> {
    for name in directory.names()? {
        let Some(entry) = directory.look(&name)?.filter(|entry| entry.owner().uid == from.uid) else {
            continue;
        };
        let name = Path::new(&name);
        if entry.is_directory() {
            hand_over(&directory.directory(name)?, from, to)?;
            continue;
        }
        let file = match directory.file(name) {
            Err(error) if error.kind() == ErrorKind::InvalidData => continue,
            opened => opened?,
        };
        if file.metadata()?.nlink() == 1 && file.metadata()?.uid() == from.uid.as_raw() {
            fchown(&file, Some(to.uid.as_raw()), Some(to.gid.as_raw()))?;
        }
    }
    let itself = directory.readable()?;
    match itself.metadata()?.uid() == from.uid.as_raw() {
        true => fchown(&itself, Some(to.uid.as_raw()), Some(to.gid.as_raw())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cluster;
    use super::*;
    use crate::config::Fragment;
    use crate::version::Major;
    use std::os::unix::fs::{chown, symlink};

    fn place(packaging: Packaging) -> Place {
        Place::Debian {
            cluster: Cluster {
                packaging,
                name: "15/main".into(),
                major: Major(15),
                data_directory: "/var/lib/pgsql/data".into(),
                socket_directory: "/var/run/postgresql".into(),
                port: 5433,
                unit: "postgresql@15-main.service".into(),
                owner: "nobody".into(),
                is_online: true,
                successor: None,
            },
            homeserver: Some(("it\"s".into(), None)),
            why: "x".into(),
        }
    }

    #[test]
    fn the_lines_lead_to_the_same_place_again() {
        let settled = |place: &Place, is_only| {
            let text = lines(place, is_only).unwrap();
            Settings::from_fragment(Fragment::parse(&text, Path::new("c")).unwrap()).unwrap()
        };
        let debian = settled(&place(Packaging::Debian), false);
        assert_eq!(debian.server.cluster.as_deref(), Some("15/main"));
        assert_eq!(debian.server.database, "it\"s");
        assert_eq!(settled(&place(Packaging::Debian), true).server.cluster, None);
        let place = place(Packaging::RedHat);
        let (red_hat, expected) = (settled(&place, false), place.settle(debian.clone()).unwrap());
        assert_eq!(
            (&red_hat.data_directory, &red_hat.socket_directory, red_hat.server.port, &red_hat.server.unit),
            (&expected.data_directory, &expected.socket_directory, 5433, &expected.server.unit)
        );
        let own = Place::Own { why: "x".into() };
        assert_eq!((lines(&own, true), settled(&own, false).server.cluster), (None, None));
    }

    #[test]
    fn what_is_done_is_not_to_be_done_again_and_is_taken_back_for_our_own() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_fragment(Fragment::default()).unwrap();
        settings.backup.directory = root.path().join("backups");
        settings.backup.scratch_directory = root.path().join("scratch");
        let place = place(Packaging::Debian);
        let settled = place.settle(settings.clone()).unwrap();
        let found = plan(root.path(), &place, &settled, false, true, None).unwrap();
        assert_eq!(found.files.len(), 5);
        assert!(found.to_string().contains("    User=nobody\n"), "{found}");
        for (file, text) in &found.files {
            make_public(files::parent(file)).unwrap();
            files::publish(file, text.as_ref().unwrap()).unwrap();
        }
        assert!(plan(root.path(), &place, &settled, false, true, None).unwrap().is_empty());
        settings.server.user = Account::current().name;
        let back = plan(root.path(), &Place::Own { why: "x".into() }, &settings, true, false, None).unwrap();
        assert!(back.to_string().starts_with("remove "), "{back}");
        settings.server.user = "no such user".into();
        assert!(plan(root.path(), &place, &settings, false, true, None).is_err());
    }

    #[test]
    fn a_server_on_the_network_opens_the_unit_of_the_backups_for_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let parsed = |text: &str| Settings::from_fragment(Fragment::parse(text, Path::new("c")).unwrap());
        let homeserver = Some(Database {
            file: "/h".into(),
            name: "synapse".into(),
            role: Some("it\"s".into()),
            host: Some("192.0.2.7".into()),
            port: 5433,
            sslrootcert: Some("/c a".into()),
        });
        let place = Place::External { host: "192.0.2.7".into(), port: 5433, homeserver, why: "x".into() };
        let written = parsed(&lines(&place, true).unwrap()).unwrap();
        let remote = written.server.remote.as_ref().unwrap();
        assert_eq!(
            (remote.host.as_str(), remote.passfile.as_deref()),
            ("192.0.2.7", Some(Path::new(PASSFILE)))
        );
        assert_eq!(remote.sslrootcert.as_deref(), Some(Path::new("/c a")));
        assert_eq!(
            (written.server.superuser.as_str(), written.server.database.as_str()),
            ("it\"s", "synapse")
        );
        let mut settings = place.settle(written).unwrap();
        settings.server.user = Account::current().name;
        let found = plan(root.path(), &place, &settings, true, true, None).unwrap();
        assert_eq!(found.files.len(), 2, "{found}");
        for line in
            ["PrivateNetwork=no", "IPAddressAllow=192.0.2.7", "LoadCredential=matrix-postgres-password"]
        {
            assert!(found.to_string().contains(&format!("    {line}\n")), "{found}");
        }
        assert!(network("db.example.org").contains("\nIPAddressDeny=\n"));
    }

    #[test]
    fn nothing_of_others_is_handed_over() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("backups");
        fs::create_dir_all(directory.join("a")).unwrap();
        for name in ["a/theirs", "a/others", "outside"] {
            fs::write(if name == "outside" { root.path().join(name) } else { directory.join(name) }, "")
                .unwrap();
        }
        let (theirs, outside) = (Account::of(1234, 1234), root.path().join("outside"));
        fs::hard_link(&outside, directory.join("hard")).unwrap();
        symlink(&outside, directory.join("soft")).unwrap();
        for path in [&directory, &directory.join("a"), &directory.join("a/theirs"), &outside] {
            chown(path, Some(1234), Some(1234)).unwrap();
        }
        hand_over(&Directory::open(&directory).unwrap(), &theirs, &Account::of(4321, 4322)).unwrap();
        let of = |path: &Path| (path.metadata().unwrap().uid(), path.metadata().unwrap().gid());
        for path in ["", "a", "a/theirs"] {
            assert_eq!(of(&directory.join(path)), (4321, 4322), "{path}");
        }
        assert_eq!((of(&directory.join("a/others")), of(&outside)), ((0, 0), (1234, 1234)));
    }
}
