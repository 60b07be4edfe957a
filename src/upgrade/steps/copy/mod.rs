//! A copy of the running cluster that follows it, and the proof that it has everything.
//!
//! - [`source`]: the running server
//! - `held`: what it keeps as it is meanwhile

mod held;
pub mod source;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use self::held::HeldSession;
pub use self::source::Source;
use crate::error::{Error, Kind, Result};
use crate::files::{self, directories};
use crate::postgres::pg_controldata::{self, Control};
use crate::postgres::{HOME, Major, STANDBY, Session, literal, pg_basebackup, pg_verifybackup};
use crate::report::{DecimalBytes, Progress};
use crate::runtime::{AsUser, Child, bare, interrupt, output, together, tool};
use crate::upgrade::plan::Plan;
use crate::upgrade::steps::cut::Cut;
use crate::upgrade::steps::servers::{Private, Side, Sockets};

/// How often servers are asked how far they are.
const TICK: Duration = Duration::from_millis(100);

/// How long a copy that follows nobody any more may take to be at the end of what it has, and to be promoted.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a copy may be without a connection to the server that it follows.
const DISCONNECTED: Duration = Duration::from_secs(60);

/// So many bytes of log are nothing: the copy has them as soon as nobody writes any more.
const NEXT_TO_NOTHING: i64 = 1 << 20;

const MINUTE: Duration = Duration::from_secs(60);

/// So many bytes stay free for the server while its copy grows.
const RESERVE: u64 = 512 << 20;

/// The first version whose copies carry a list of their files with checksums.
const MANIFESTS: Major = Major(13);

/// Copies the cluster to `directory`, at most `rate` megabytes a second, and reads the copy back.
///
/// # Errors
/// [`Kind::Program`], [`Kind::NoSpace`]; [`Kind::Damaged`] if the copy is not what the server has sent.
pub fn take(
    source: &Source<'_>,
    directory: &Path,
    rate: Option<u64>,
    bytes: u64,
    progress: &mut dyn Progress,
) -> Result<Taken> {
    let tablespaces = HeldSession::tablespaces(source)?;
    directories::make_private(directory, source.account)?;
    let call = pg_basebackup::copy(&source.connection, directory, rate.map(|rate| rate.saturating_mul(1000)));
    let mut command = source.command(&call)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = Child::spawn(command, "pg_basebackup")?;
    leave_the_disk_to_others(&child, source);
    progress.begin("copying", Some(bytes));
    let copied = wait(&mut child, source, directory, progress);
    progress.end();
    copied.and_then(|()| child.wait()).map_err(|error| full_disk(error, directory))?;
    // Until the copy follows by itself, nothing of the log may go that it has not yet.
    let log = HeldSession::log(source)?;
    if source.from >= MANIFESTS {
        let mut command = source.command(&pg_verifybackup::verify(directory))?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = Child::spawn(command, "pg_verifybackup")?;
        leave_the_disk_to_others(&child, source);
        while !child.has_ended() {
            interrupt::check()?;
            require_room(directory)?;
            std::thread::sleep(TICK);
        }
        child.wait().map_err(|error| {
            let error = error.context(format!("the base backup in {} is damaged", directory.display()));
            if error.kind() == Kind::Program { error.with_kind(Kind::Damaged) } else { error }
        })?;
    }
    Ok(Taken { log, tablespaces })
}

/// What the server keeps as it is for a copy that does not follow it yet.
pub struct Taken {
    log: HeldSession,
    tablespaces: HeldSession,
}

/// Asks the server how far it is; older ones do not say.
fn wait(child: &mut Child, source: &Source<'_>, directory: &Path, progress: &mut dyn Progress) -> Result<()> {
    let mut asked = Instant::now();
    while !child.has_ended() {
        interrupt::check()?;
        require_room(directory)?;
        std::thread::sleep(TICK);
        if asked.elapsed() > 10 * TICK && source.from >= MANIFESTS {
            let sql = "SELECT pg_catalog.to_json(coalesce(pg_catalog.max(backup_streamed), 0))
                FROM pg_catalog.pg_stat_progress_basebackup;";
            if let Ok(done) = source.session().query(HOME, sql) {
                progress.advance(done);
            }
            asked = Instant::now();
        }
    }
    Ok(())
}

/// The server writes its log to the same file system, and ends where that is full. It comes first.
fn require_room(directory: &Path) -> Result<()> {
    let free = files::free_space(directory)?;
    if free >= RESERVE {
        return Ok(());
    }
    let message = format!(
        "only {} are free on the file system of {}; the rest is reserved for the server",
        DecimalBytes(free),
        directory.display()
    );
    Err(Error::new(Kind::NoSpace, message)
        .hint(format!("free space there: df -h {}", files::parent(directory).display())))
}

/// Idle priority where the disk's scheduler knows such (ionice(1)); without it, the copy is as good. Of another user's
/// process root may not say so in the unit, and that user may.
fn leave_the_disk_to_others(child: &Child, source: &Source<'_>) {
    let pid = child.pid().to_string();
    let lowered = tool("ionice", "util-linux").and_then(|program| {
        let mut command = bare(&program);
        command.args(["--class", "idle", "--pid", &pid]);
        source.account.apply(&mut command);
        output(command, "ionice", &[])
    });
    if let Err(error) = lowered {
        log::debug!("{}", error.report());
    }
}

fn full_disk(error: Error, directory: &Path) -> Error {
    let error = error.or_no_space();
    match error.kind() {
        Kind::NoSpace => error.context(format!("not enough disk space for {}", directory.display())),
        _ => error,
    }
}

/// A standby must not have less of these than the server has (chapter "Hot Standby", "Administrator's Overview"). The files
/// may say something else: what waits for a restart, or is overridden by an argument of the server's.
fn limits(source: &Source<'_>) -> Result<Vec<String>> {
    source.session().query(
        HOME,
        "SELECT pg_catalog.json_agg(pg_catalog.format('%s=%s', name, setting)) FROM pg_catalog.pg_settings
            WHERE name IN ('max_connections',
            'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction');",
    )
}

/// A copy that follows the server.
pub struct Follower<'a> {
    server: Private<'a>,
    directory: PathBuf,
    _tablespaces: HeldSession,
}

impl<'a> Follower<'a> {
    /// Starts the copy in `plan.upgrade.copy`, and waits until it receives the log by itself.
    ///
    /// # Errors
    /// [`Kind::Server`] with what it said at last.
    pub fn start(source: &Source<'a>, sockets: &Sockets, plan: &Plan, taken: Taken) -> Result<Self> {
        let (copy, owner) = (plan.upgrade.copy()?, source.account);
        let signal = copy.join("standby.signal");
        owner.with_files(|| files::replace(&signal, ""))?;
        let mut settings = vec![format!("primary_conninfo={}", source.connection.conninfo_for_replication())];
        if source.from >= Major(13) {
            settings.push("wal_receiver_create_temp_slot=on".to_owned());
        }
        settings.extend(limits(source)?);
        let cluster = (Side::Copy, copy, plan.upgrade.from);
        let server = Private::start_with(source.runtime, owner, sockets, plan, cluster, settings)?;
        let Taken { log, tablespaces } = taken;
        let mut follower = Self { server, directory: copy.to_owned(), _tablespaces: tablespaces };
        follower.until(source, |behind| behind.is_some())?;
        drop(log);
        Ok(follower)
    }

    /// The port in the name of its socket.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Waits until it has next to everything, and nothing of that is only in its memory.
    ///
    /// # Errors
    /// [`Kind::Server`] if it does not follow any more.
    pub fn catch_up(&mut self, source: &Source<'_>) -> Result<()> {
        let begun = Instant::now();
        let near = |behind: Option<i64>| behind.is_some_and(|bytes| bytes < near_enough(begun.elapsed()));
        self.until(source, near)?;
        source.checkpoint()?;
        self.until(source, near)?;
        self.checkpoint()
    }

    /// Looks every now and then how many bytes of log it has not replayed yet: nothing while it is not connected.
    fn until(&mut self, source: &Source<'_>, enough: impl Fn(Option<i64>) -> bool) -> Result<()> {
        let sql = format!(
            "SELECT coalesce(pg_catalog.to_json((
                SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn)::bigint
                FROM pg_catalog.pg_stat_replication WHERE application_name = {} AND state = 'streaming' LIMIT 1)), 'null');",
            literal(STANDBY)
        );
        let (mut connected, mut told) = (Instant::now(), Instant::now());
        loop {
            interrupt::check()?;
            require_room(&self.directory)?;
            let behind: Option<i64> = source.session().query(HOME, &sql)?;
            if enough(behind) {
                return Ok(());
            }
            if let Some(bytes) = behind {
                connected = Instant::now();
                if told.elapsed() > MINUTE {
                    log::info!("replication lag of the copy: {}", DecimalBytes(bytes.unsigned_abs()));
                    told = Instant::now();
                }
            }
            if self.server.has_ended() || connected.elapsed() > DISCONNECTED {
                return Err(Error::new(Kind::Server, "the copy lost its replication connection")
                    .hint("try again: the server may have removed WAL that the copy had not received yet"));
            }
            std::thread::sleep(TICK);
        }
    }

    fn checkpoint(&self) -> Result<()> {
        self.server.session().execute(HOME, "CHECKPOINT;")
    }

    /// Makes sure that the copy has everything that the old cluster had at the cut. After a stop both stand at the same
    /// checkpoint, and nothing comes after it.
    ///
    /// # Errors
    /// [`Kind::DataDirectory`] if it has not.
    pub fn prove(&self, source: &Source<'_>, plan: &Plan, cut: &Cut) -> Result<()> {
        let old = match cut {
            Cut::Stopped => control(source, &plan.upgrade.data_directory)?,
            Cut::Running { end } => return self.require_replayed(&format!(">= {}::pg_lsn", literal(end))),
        };
        if !old.is_shut_down() {
            let message = format!(
                "the server was not shut down cleanly: the state of {} is {:?}",
                plan.upgrade.data_directory.display(),
                old.state
            );
            return Err(Error::new(Kind::DataDirectory, message));
        }
        // What is missing then shows in the checkpoint.
        let _ = self.has_replayed(&format!("> {}::pg_lsn", literal(&old.checkpoint)))?;
        self.checkpoint()?;
        let copy = control(source, plan.upgrade.copy()?)?;
        match copy.checkpoint == old.checkpoint {
            true => Ok(()),
            false => Err(Error::new(
                Kind::DataDirectory,
                format!(
                    "the copy is incomplete: its latest checkpoint is {}, that of the old cluster {}",
                    copy.checkpoint, old.checkpoint
                ),
            )),
        }
    }

    fn require_replayed(&self, place: &str) -> Result<()> {
        match self.has_replayed(place)? {
            true => self.checkpoint(),
            false => Err(Error::new(Kind::DataDirectory, "the copy has not replayed all WAL of the server")),
        }
    }

    /// Waits for it as long as that may take.
    fn has_replayed(&self, place: &str) -> Result<bool> {
        let sql = format!(
            "SELECT pg_catalog.to_json(coalesce(pg_catalog.pg_last_wal_replay_lsn() {place}, false));"
        );
        let deadline = Instant::now() + PATIENCE;
        loop {
            let has = self.server.session().query::<bool>(HOME, &sql)?;
            if has || Instant::now() > deadline {
                return Ok(has);
            }
            std::thread::sleep(TICK / 5);
        }
    }

    /// Lets the copy be a cluster of its own, and does something else `meanwhile`.
    ///
    /// # Errors
    /// [`Kind::Server`]; those of what is done meanwhile.
    pub fn promote<T>(self, meanwhile: impl FnOnce(&Session<'_>) -> Result<T>) -> Result<(Private<'a>, T)> {
        let sql = format!("SELECT pg_catalog.to_json(pg_catalog.pg_promote(true, {}));", PATIENCE.as_secs());
        let session = self.server.session();
        let (promoted, done) = together(|| session.query::<bool>(HOME, &sql), || meanwhile(&session));
        match promoted? {
            true => Ok((self.server, done?)),
            false => Err(Error::new(Kind::Server, "the copy could not be promoted")),
        }
    }
}

/// Where so much is written all the time that the copy is never next to the end, it may be further and further away from
/// it: what is left then takes seconds when nobody writes any more.
fn near_enough(waited: Duration) -> i64 {
    NEXT_TO_NOTHING << (waited.as_secs() / MINUTE.as_secs()).min(8)
}

fn control(source: &Source<'_>, directory: &Path) -> Result<Control> {
    let runtime = AsUser { runtime: source.runtime, account: source.account };
    pg_controldata::read(&runtime, source.from, directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_busy_server_is_waited_for_and_not_forever() {
        let after = |minutes: u32| near_enough(MINUTE * minutes) >> 20;
        assert_eq!([0, 1, 5, 8, 1000].map(after), [1, 2, 32, 256, 256]);
    }
}
