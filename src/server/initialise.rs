//! A new cluster, which appears whole or not at all: made beside the data directory, given Synapse's role
//! and database, stopped cleanly, and put in place by one rename.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::RenameFlags;

use crate::account::Account;
use crate::config::Settings;
use crate::error::{IoContext as _, Result};
use crate::files::beneath::Directory;
use crate::files::{self, directories, stamp};
use crate::postgres::{
    Connection, HOME, Libraries, Major, PrivateServer, Purpose, Session, Startup, identifier, initdb, literal,
};
use crate::runtime::{Runtime, output};

/// How long a cluster without data may take to start.
const START: Duration = Duration::from_secs(120);

/// Makes the cluster at `settings.data_directory` and leaves the `database:` block for homeserver.yaml
/// beside it; returns where.
///
/// # Errors
/// Whatever the programs or the file system report; the data directory is then as it was.
pub fn initialise(
    settings: &Settings,
    runtime: &dyn Runtime,
    major: Major,
    account: &Account,
    now: Timestamp,
) -> Result<PathBuf> {
    let data = &settings.data_directory;
    let parent = files::parent(data);
    directories::make_all(parent, 0o777)?;
    let staging = Staging::make(data, account)?;

    let call = initdb::create(&staging.path, &settings.server.superuser).as_user(account);
    output(runtime.command(major, &call)?, "initdb", &[])?;
    write_login_rules(&staging.path, account, settings)?;

    let password = password()?;
    create_database(settings, runtime, major, account, &staging.path, &password)?;
    let block = save_database_block(parent, &database_block(settings, &password), now)?;
    staging.put_in_place(data)?;
    Ok(block)
}

/// The cluster while it is being made; removed when dropped.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn make(data: &Path, account: &Account) -> Result<Self> {
        let name = data.file_name().unwrap_or_default().to_string_lossy();
        let path = data.with_file_name(format!(".{name}.initialising"));
        // Only a start that was killed leaves one, and no server has ever run on it in public.
        directories::remove(&path).at("remove the unfinished", &path)?;
        directories::make_private(&path, account)?;
        Ok(Self { path })
    }

    /// rename(2) replaces an empty directory, and no other.
    fn put_in_place(mut self, data: &Path) -> Result<()> {
        directories::rename(&self.path, data, RenameFlags::empty())?
            .at("put the new cluster in place at", data)?;
        self.path = PathBuf::new();
        files::sync_directory(files::parent(data))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = directories::remove(&self.path);
        }
    }
}

/// Who may log in, and as whom. Files are written as they are, so that `pg_hba.conf` has no line of whose
/// meaning we are not sure.
fn write_login_rules(cluster: &Path, account: &Account, settings: &Settings) -> Result<()> {
    for (name, text) in
        [("pg_hba.conf", pg_hba(settings)), ("pg_ident.conf", pg_ident(&account.name, settings))]
    {
        let file = cluster.join(name);
        account.with_files(|| files::replace(&file, &text))?;
    }
    Ok(())
}

fn pg_hba(settings: &Settings) -> String {
    format!(
        "# Written when the cluster was initialised; may be changed.\n\
         #\n\
         # The superuser logs in over the socket as the system users that pg_ident.conf names;\n\
         # all other roles need a password.\n\
         # TYPE  DATABASE     USER        ADDRESS       METHOD\n\
         local   all          {0:<11}               peer map=matrix-postgres\n\
         local   replication  {0:<11}               peer map=matrix-postgres\n\
         local   all          all                       scram-sha-256\n\
         # Only used if server.listen has addresses: this machine and its networks.\n\
         host    all          all         samenet       scram-sha-256\n",
        settings.server.superuser
    )
}

fn pg_ident(owner: &str, settings: &Settings) -> String {
    let superuser = &settings.server.superuser;
    let mut users = vec!["root", owner, settings.server.user.as_str()];
    users.dedup();
    let mut text = "# MAPNAME       SYSTEM-USERNAME  DATABASE-USERNAME\n".to_owned();
    for user in users {
        let _ = writeln!(text, "matrix-postgres {user:<16} {superuser}");
    }
    text
}

fn create_database(
    settings: &Settings,
    runtime: &dyn Runtime,
    major: Major,
    account: &Account,
    cluster: &Path,
    password: &str,
) -> Result<()> {
    // A socket of its own: nobody else can come in before the cluster is in place.
    let sockets = account.with_files(|| {
        tempfile::Builder::new()
            .prefix(".initialise-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(&settings.socket_directory)
            .at("create a directory in", &settings.socket_directory)
    })?;
    let connection =
        Connection::new(sockets.path(), settings.server.port, &settings.server.superuser).to_server(major);
    let startup = Startup::new(Purpose::Initialisation, major, &Libraries::default());
    let server = PrivateServer::start(runtime, major, cluster, &connection, account, &startup, START)?;
    let session = Session { runtime, major, connection: &connection };
    session.execute(HOME, &first_script(settings, password))?;
    server.stop()
}

/// Collation C and UTF8 are what Synapse insists on; template1's could have been changed, template0's not.
fn first_script(settings: &Settings, password: &str) -> String {
    let (role, database) = (identifier(&settings.server.role), identifier(&settings.server.database));
    format!(
        "SET password_encryption = 'scram-sha-256';\n\
         CREATE ROLE {role} LOGIN PASSWORD {};\n\
         CREATE DATABASE {database} OWNER {role} TEMPLATE template0 ENCODING 'UTF8' \
         LC_COLLATE 'C' LC_CTYPE 'C';\n",
        literal(password)
    )
}

/// 32 letters and digits of the kernel's randomness: 190 bits.
fn password() -> Result<String> {
    use std::io::Read as _;
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).at("read", source)?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 64)])).collect())
}

/// The `database:` block of homeserver.yaml (Synapse's documentation, "Using Postgres"). JSON strings are
/// YAML strings.
fn database_block(settings: &Settings, password: &str) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        "# Copy this into homeserver.yaml, in place of its own database: block.\n\
         database:\n  name: psycopg2\n  args:\n    user: {}\n    password: {}\n    dbname: {}\n    \
         host: {}\n    port: {}\n    cp_min: 5\n    cp_max: 10\n",
        text(&settings.server.role),
        text(password),
        text(&settings.server.database),
        text(&settings.socket_directory.to_string_lossy()),
        settings.server.port,
    )
}

/// The file's name, beside the data directory.
pub const DATABASE_BLOCK: &str = "synapse-database.yaml";

/// Saves the block, for nobody but the owner of the place to read. One that is there already belongs to an older cluster,
/// whose password nobody else may know: it is kept under another name.
fn save_database_block(parent: &Path, text: &str, now: Timestamp) -> Result<PathBuf> {
    Directory::open(parent).at("open", parent)?.as_owner(|| save(parent, text, now))
}

fn save(parent: &Path, text: &str, now: Timestamp) -> Result<PathBuf> {
    let file = parent.join(DATABASE_BLOCK);
    if file.try_exists().at("read", &file)? {
        let kept = parent.join(format!("{DATABASE_BLOCK}.{}", stamp::write(now)));
        std::fs::rename(&file, &kept).at("rename", &file)?;
        log::warn!("the previous {} was renamed to {}", file.display(), kept.display());
    }
    files::replace(&file, text)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;

    fn settings() -> Settings {
        Settings::from_fragment(Fragment::default()).unwrap()
    }

    #[test]
    fn nobody_comes_in_without_a_password_but_those_who_own_the_data() {
        let lines: Vec<_> =
            pg_hba(&settings()).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        assert_eq!(lines.len(), 4);
        for line in &lines {
            let words: Vec<_> = line.split_whitespace().collect();
            let peer = words[2] == "postgres" && line.ends_with("peer map=matrix-postgres");
            assert!(peer || line.ends_with(" scram-sha-256"), "{line}");
        }
        let map = pg_ident("matrix", &settings());
        assert_eq!(map.lines().skip(1).count(), 3);
        assert!(map.lines().skip(1).all(|line| line.ends_with(" postgres")), "{map}");
    }

    #[test]
    fn the_block_is_synapses_own_form() {
        assert_eq!(
            database_block(&settings(), "p\"w"),
            "# Copy this into homeserver.yaml, in place of its own database: block.\ndatabase:\n  \
             name: psycopg2\n  args:\n    user: \"synapse\"\n    password: \"p\\\"w\"\n    \
             dbname: \"homeserver\"\n    host: \"/run/matrix-postgres\"\n    port: 5432\n    \
             cp_min: 5\n    cp_max: 10\n"
        );
    }

    #[test]
    fn an_older_block_is_kept_and_a_new_one_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
        save_database_block(parent.path(), "one", now).unwrap();
        let file = save_database_block(parent.path(), "two", now).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let kept = parent.path().join("synapse-database.yaml.20261124T030000Z");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "one");
    }

    #[test]
    fn passwords_differ_and_need_no_quoting() {
        let (a, b) = (password().unwrap(), password().unwrap());
        assert_ne!(a, b);
        assert!(a.len() == 32 && a.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }
}
