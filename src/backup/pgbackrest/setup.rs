//! What a server needs in order to be backed up by pgBackRest: a stanza, and a server that archives its WAL.
//!
//! [`plan`] says what is missing and refuses what is not ours; [`carry_out`] does it and proves that a segment is archived. Done
//! again, it finds nothing to do but that.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::archive::{self, Archiving};
use super::configuration;
use super::info::Stanza;
use super::program::Program;
use super::record::{Gone, Record};
pub use super::refusal::{SETUP, require_near};
use super::refusal::{missing, of_another, unreadable};
use crate::account::Account;
use crate::config::{Engine, Settings};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::files::{self, beneath};
use crate::lock::Lock;
use crate::postgres::{self, HOME, ServerFacts, Session, account_of, identifier, literal};
use crate::runtime::Runtime;
use crate::systemd::{Manager, Stopped};

/// The file that names the engine.
pub const FILE: &str = "/etc/matrix-postgres/config.d/20-engine.toml";

/// How long a segment may stay open, so that not more is lost than what was written meanwhile.
const TIMEOUT: &str = "60s";

/// A file of configuration is no longer than that.
const LONGEST: u64 = 1 << 20;

/// What is found.
#[derive(Debug)]
pub struct Facts {
    /// What pgBackRest knows of the stanza.
    pub stanza: Stanza,
    /// What the server says.
    pub server: ServerFacts,
    /// The same of archiving.
    pub archiving: Archiving,
    /// Whose the cluster is, and whose the backups are.
    pub owners: (String, String),
    /// What the server is to call.
    pub command: String,
    /// The files that are to be there, with what is to be in them and what is.
    pub files: Vec<(PathBuf, String, Option<String>)>,
    /// Whether the directory of the repository is there.
    pub has_repository: bool,
    /// Backups that must be there.
    pub expected: Option<Gone>,
    /// The command that sets this up.
    pub again: String,
    /// Whether a stanza of another cluster is to become that of this one.
    pub upgrades: bool,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A directory for the repository.
    MakeRepository(PathBuf),
    /// A file, with what is in it.
    Write(PathBuf, String),
    /// `stanza-create`
    CreateStanza,
    /// `stanza-upgrade`
    UpgradeStanza,
    /// `ALTER SYSTEM`
    Set(&'static str, String),
    /// The server reads its configuration again.
    Reload,
    /// The server is started anew: `archive_mode` and `wal_level` change at no other time.
    Restart(String),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Step>);

impl Plan {
    /// Whether the server is started anew.
    pub fn restarts(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Restart(_)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::MakeRepository(path) => {
                    writeln!(f, "create the directory {} for pgBackRest", path.display())?;
                }
                Step::Write(path, text) => {
                    writeln!(f, "write {}:", path.display())?;
                    for line in text.lines().filter(|line| !line.starts_with('#')) {
                        writeln!(f, "    {line}")?;
                    }
                }
                Step::CreateStanza => writeln!(f, "create the stanza: pgbackrest stanza-create")?,
                Step::UpgradeStanza => {
                    writeln!(f, "make it the stanza of this cluster: pgbackrest stanza-upgrade")?;
                }
                Step::Set(name, value) => writeln!(f, "ALTER SYSTEM SET {name} = {}", literal(value))?,
                Step::Reload => writeln!(f, "reload the configuration of the server; no restart is needed")?,
                Step::Restart(unit) => {
                    writeln!(
                        f,
                        "restart {unit}, once: archive_mode and wal_level take effect at a start only"
                    )?;
                }
            }
        }
        writeln!(f, "archive a segment of the WAL and wait for it: pgbackrest check")
    }
}

/// Gathers the facts.
///
/// # Errors
/// [`Kind::NotInstalled`] without pgBackRest; [`Kind::Server`] if no server runs.
pub fn gather(
    settings: &Settings,
    runtime: &dyn Runtime,
    engine: Engine,
    upgrades: bool,
) -> Result<(Facts, Program)> {
    require_near(settings)?;
    let owner = account_of(&settings.data_directory, &settings.server.user).ok_or_else(|| {
        Error::new(
            Kind::DataDirectory,
            format!("the owner of {} is not known", settings.data_directory.display()),
        )
    })?;
    let program = Program::find(&settings.backup, Some(owner.clone()))?;
    let connection = settings.connection();
    if connection.is_absent() {
        return Err(Error::new(Kind::Server, format!("no server is listening on {}", connection.place()))
            .state("nothing was changed")
            .hint(format!("systemctl start {}", settings.server.unit)));
    }
    let session = Session::newest(runtime, &connection);
    let backups = Directory::open(&settings.backup.directory).at("open", &settings.backup.directory)?.owner();
    let text = format!(
        "# Written by \"matrix-postgres setup --engine\".\n[backup]\nengine = \"{}\"\n",
        word(engine)
    );
    let wanted = [
        (configuration::file(settings), configuration::text(settings, program.version)),
        (PathBuf::from(FILE), text),
    ];
    let files = wanted.map(|(file, text)| {
        let now = beneath::read(&file, LONGEST).ok().map(|now| String::from_utf8_lossy(&now).into_owned());
        (file, text, now)
    });
    let facts = Facts {
        stanza: program.info(&settings.backup.repository)?,
        server: postgres::server_facts(&session)?,
        archiving: archive::read(&session)?,
        owners: (owner.name, backups.name),
        command: program.archive_command(),
        files: files.into(),
        has_repository: settings.backup.repository.is_dir(),
        expected: Record::load(&settings.backup.directory).expected(&settings.backup),
        again: match settings.backup.engine == engine {
            true => SETUP.to_owned(),
            false => format!("{SETUP} --engine {}", word(engine)),
        },
        upgrades,
    };
    Ok((facts, program))
}

fn word(engine: Engine) -> &'static str {
    match engine {
        Engine::Dump => "dump",
        Engine::Pgbackrest => "pgbackrest",
        Engine::Both => "both",
    }
}

/// What is missing.
///
/// # Errors
/// [`Kind::Config`] if the server archives to others, is a standby, or has another owner than the backups; or if the stanza is of
/// another cluster. [`Kind::File`] if the repository cannot be read.
pub fn plan(facts: &Facts, settings: &Settings) -> Result<Plan> {
    require_free(facts).map_err(|error| error.state("nothing was changed"))?;
    let Facts { stanza, archiving, command, .. } = facts;
    // One made anew in the empty directory of a disk that is not mounted would hide that.
    if let (false, Some(gone)) = (stanza.exists(), &facts.expected) {
        return Err(missing(Some(gone)).state("nothing was changed"));
    }
    let mut steps = Vec::new();
    if !facts.has_repository {
        steps.push(Step::MakeRepository(settings.backup.repository.clone()));
    }
    for (file, text, _) in facts.files.iter().filter(|(_, text, now)| now.as_ref() != Some(text)) {
        steps.push(Step::Write(file.clone(), text.clone()));
    }
    if !stanza.exists() {
        steps.push(Step::CreateStanza);
    } else if !stanza.is_of(&facts.server) {
        steps.push(Step::UpgradeStanza);
    }
    let before = steps.len();
    // A command is not shown by a server whose archive_mode is off.
    if archiving.command != *command {
        steps.push(Step::Set("archive_command", command.clone()));
    }
    if archiving.timeout == 0 {
        steps.push(Step::Set("archive_timeout", TIMEOUT.to_owned()));
    }
    let mut restarts = false;
    if archiving.mode == "off" {
        steps.push(Step::Set("archive_mode", "on".to_owned()));
        restarts = true;
    }
    if archiving.level == "minimal" {
        steps.push(Step::Set("wal_level", "replica".to_owned()));
        restarts = true;
    }
    match (restarts, steps.len() > before) {
        (true, _) => steps.push(Step::Restart(settings.server.unit.clone())),
        (false, true) => steps.push(Step::Reload),
        (false, false) => {}
    }
    Ok(Plan(steps))
}

pub(super) fn require_free(facts: &Facts) -> Result<()> {
    let Facts { stanza, archiving, command, owners: (owner, backups), again, .. } = facts;
    if archiving.recovery {
        return Err(Error::new(
            Kind::Config,
            "the server is a standby, and pgBackRest is set up for a primary",
        )
        .hint("run it on the machine of the primary"));
    }
    if owner != backups {
        return Err(Error::new(
            Kind::Config,
            format!("the cluster belongs to {owner}, and the backups to {backups}: pgBackRest reads the one and writes the other"),
        )
        .hint(format!(
            "server.user = {owner:?} in /etc/matrix-postgres/config.toml; then matrix-postgres setup, and {again}"
        )));
    }
    if !archiving.library.is_empty() {
        return Err(Error::new(
            Kind::Config,
            format!("the server archives its WAL by a library: archive_library = {:?}", archiving.library),
        )
        .hint(format!("if it is not needed any more: ALTER SYSTEM RESET archive_library; then {again}")));
    }
    let foreign = &archiving.command;
    if !["", "(disabled)", command.as_str()].contains(&foreign.as_str()) {
        return Err(Error::new(
            Kind::Config,
            format!("the server archives its WAL by another command: archive_command = {foreign:?}"),
        )
        .hint(format!("if it is not needed any more: ALTER SYSTEM RESET archive_command; then {again}")));
    }
    if let Some(reason) = stanza.unreadable() {
        return Err(unreadable(reason));
    }
    match !stanza.exists() || stanza.is_of(&facts.server) || facts.upgrades {
        true => Ok(()),
        false => Err(of_another(stanza, &facts.server, again)),
    }
}

/// Does it, as root; `again` is the command for after a failure.
///
/// # Errors
/// [`Kind::File`], [`Kind::Locked`], [`Kind::Server`], [`Kind::Program`]; those of systemd.
pub fn carry_out(
    settings: &Settings,
    runtime: &dyn Runtime,
    program: &Program,
    plan: &Plan,
    owner: &Account,
    again: &str,
) -> Result<()> {
    let _lock = Lock::take(settings, "setup")?;
    let connection = settings.connection();
    let session = Session::newest(runtime, &connection);
    let state = "what was done before stays; the server runs as before, unless it is named here";
    for step in &plan.0 {
        carry_out_step(settings, &session, program, step, owner)
            .map_err(|error| error.state(state).hint(format!("then again: {again}")))?;
    }
    program.check().map_err(|error| {
        error
            .context("no segment of the WAL was archived")
            .state("the server keeps all WAL until it is archived, which fills its disk")
            .hint(format!(
                "check the log of the server: journalctl --unit={}; then {again}",
                settings.server.unit
            ))
    })
}

pub(super) fn carry_out_step(
    settings: &Settings,
    session: &Session<'_>,
    program: &Program,
    step: &Step,
    owner: &Account,
) -> Result<()> {
    match step {
        Step::MakeRepository(path) => {
            owner.with_files(|| DirBuilder::new().recursive(true).mode(0o750).create(path).at("create", path))
        }
        Step::Write(file, text) => {
            make_public(files::parent(file))?;
            files::publish(file, text)
        }
        Step::CreateStanza => program.create_stanza(),
        Step::UpgradeStanza => program.upgrade_stanza(),
        Step::Set(name, value) => {
            session.execute(HOME, &format!("ALTER SYSTEM SET {} = {};", identifier(name), literal(value)))
        }
        Step::Reload => session.execute(HOME, "SELECT pg_catalog.pg_reload_conf();"),
        Step::Restart(unit) => {
            let manager = Manager::connect()?;
            Stopped::stop(&manager, std::slice::from_ref(unit), settings.server.start_timeout)?.start_again()
        }
    }
}

/// As packages of pgBackRest make it, where they do.
fn make_public(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let missing: Vec<_> = directory.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        DirBuilder::new().mode(0o755).create(path).at("create", path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
            .at("change the mode of", path)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::archive::tests::archiving;
    use super::super::info::parse;
    use super::super::info::tests::{OLD, UPGRADED, server};
    use super::*;
    use crate::config::Fragment;

    fn settings() -> Settings {
        Settings::from_fragment(Fragment::default()).unwrap()
    }

    /// Of a server that archives nothing, before anything is set up.
    fn fresh() -> Facts {
        let mut archiving = archiving();
        archiving.mode = "off".into();
        archiving.command = "(disabled)".into();
        archiving.timeout = 0;
        Facts {
            stanza: parse("[]", "matrix-postgres").unwrap(),
            server: server(OLD),
            archiving,
            owners: ("a".into(), "a".into()),
            command: "ours".into(),
            files: vec![("/f".into(), "text".into(), None)],
            has_repository: false,
            again: SETUP.to_owned(),
            expected: None,
            upgrades: false,
        }
    }

    pub(crate) fn done() -> Facts {
        let mut stanza = parse(UPGRADED, "matrix-postgres").unwrap();
        stanza.db.truncate(1);
        let mut archiving = archiving();
        archiving.command = "ours".into();
        let files = vec![("/f".into(), "text".into(), Some("text".into()))];
        Facts { stanza, archiving, files, has_repository: true, ..fresh() }
    }

    #[test]
    fn one_restart_is_needed_and_said_before_and_the_second_time_nothing() {
        let found = plan(&fresh(), &settings()).unwrap();
        assert!(found.restarts());
        assert!(matches!(found.0.last(), Some(Step::Restart(_))), "{found}");
        assert!(found.to_string().contains("restart matrix-postgres.service, once"), "{found}");
        let create = found.0.iter().position(|step| *step == Step::CreateStanza).unwrap();
        let archive =
            found.0.iter().position(|step| matches!(step, Step::Set("archive_command", _))).unwrap();
        assert!(create < archive, "a server must not archive before there is a stanza");
        assert_eq!(plan(&done(), &settings()).unwrap().0, []);
        let mut no_command = done();
        no_command.archiving.command = String::new();
        assert_eq!(plan(&no_command, &settings()).unwrap().0.last(), Some(&Step::Reload));
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut Facts)| {
            let mut facts = done();
            change(&mut facts);
            plan(&facts, &settings()).unwrap_err().report()
        };
        assert!(
            refused(&|facts| facts.archiving.command = "cp %p /x".into())
                .contains("archive_command = \"cp %p /x\"")
        );
        assert!(
            refused(&|facts| facts.archiving.library = "lib".into()).contains("archive_library = \"lib\"")
        );
        assert!(refused(&|facts| facts.archiving.recovery = true).contains("is a standby"));
        assert!(refused(&|facts| facts.owners.0 = "b".into()).contains("server.user = \"b\""));
        assert!(refused(&|facts| facts.server = server("1")).contains("is of another cluster"));
        assert!(refused(&|facts| facts.stanza.status.code = 99).contains("cannot read its repository"));
        let mut upgraded = done();
        upgraded.server = server("1");
        upgraded.upgrades = true;
        assert_eq!(plan(&upgraded, &settings()).unwrap().0, [Step::UpgradeStanza]);
    }
}
