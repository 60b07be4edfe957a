//! The new database: made, loaded, compared.

use std::process::Stdio;

use super::plan::Plan;
use crate::backup::compare::{Expected, differences};
use crate::backup::making::{self, closed};
use crate::backup::missing::{self, Missing};
use crate::backup::rows::Contents;
use crate::backup::scratch::{Need, Scratch, check_space};
use crate::backup::source::Source;
use crate::backup::target::{Authority, RefusedRows, Target};
use crate::backup::{leftovers, load, ownership};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::postgres::pg_restore::Tablespaces;
use crate::postgres::{self, Connection, Database, HOME, Major, Session, identifier, literal, vacuumdb};
use crate::report::Progress;
use crate::runtime::{Child, Runtime, interrupt};

/// A trigger of the table's owner would be run by us: none is, and each is enabled afterwards as it was before. What is not a table
/// is not Synapse's.
const WITHOUT_ONE_TIME_KEYS: &str = "DO $$ DECLARE keys pg_catalog.regclass; as_before pg_catalog.text; BEGIN
    SELECT oid INTO keys FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('public.e2e_one_time_keys_json')
        AND relkind = 'r';
    IF keys IS NULL THEN RETURN; END IF;
    SELECT pg_catalog.string_agg(pg_catalog.format('ENABLE %s TRIGGER %I', CASE tgenabled
            WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' ELSE '' END, tgname), ', ')
        INTO as_before FROM pg_catalog.pg_trigger WHERE tgrelid = keys AND NOT tgisinternal AND tgenabled <> 'D';
    IF as_before IS NULL THEN
        TRUNCATE public.e2e_one_time_keys_json;
    ELSE
        ALTER TABLE public.e2e_one_time_keys_json DISABLE TRIGGER USER;
        TRUNCATE public.e2e_one_time_keys_json;
        EXECUTE 'ALTER TABLE public.e2e_one_time_keys_json ' OPERATOR(pg_catalog.||) as_before;
    END IF;
END $$;";

/// What a restore works with.
pub(super) struct Work<'a> {
    pub(super) settings: &'a Settings,
    pub(super) runtime: &'a dyn Runtime,
    pub(super) plan: &'a Plan,
    pub(super) connection: Connection,
    pub(super) major: Major,
}

impl<'a> Work<'a> {
    pub(super) fn new(settings: &'a Settings, runtime: &'a dyn Runtime, plan: &'a Plan) -> Result<Self> {
        let connection = settings.connection();
        let session = Session::newest(runtime, &connection);
        let major = postgres::server_facts(&session)?.major()?;
        let owner = &plan.dump.database.owner;
        if !postgres::roles(&session)?.contains(owner) {
            return Err(Error::new(
                Kind::Server,
                format!("the owner of the database, role {owner:?}, does not exist"),
            )
            .state("nothing was changed")
            .hint("restore the roles first: matrix-postgres-backup restore --globals NAME"));
        }
        let connection = connection.to_server(major);
        Ok(Self { settings, runtime, plan, connection, major })
    }

    pub(super) fn session(&self) -> Session<'_> {
        Session { runtime: self.runtime, major: self.major, connection: &self.connection }
    }

    /// Until it has been compared the database is ours: its owner could let himself in. Where a script is carried out as superuser
    /// anyway, it is its owner's from the beginning, as who the script may make schemas and tables
    /// (`pg_dump --use-set-session-authorization`).
    pub(super) fn ours(&self) -> Database {
        let database = self.plan.dump.database.clone();
        match self.plan.as_superuser {
            true => database,
            false => Database { owner: self.connection.user.clone(), ..database },
        }
    }

    pub(super) fn check_space(&self) -> Result<()> {
        // What is free on another machine only its administrators know.
        if self.settings.server.remote.is_some() {
            return Ok(());
        }
        let size = self.plan.dump.database.size;
        check_space(&[Need { path: self.settings.data_directory.clone(), bytes: size + size / 5 }])
    }

    /// Who is no superuser would lock himself out.
    fn closed(&self, name: &str) -> String {
        if self.connection.is_superuser() { closed(name) } else { String::new() }
    }

    /// What killed restores left behind.
    pub(super) fn drop_unfinished(&self) -> Result<()> {
        for name in leftovers::unfinished(&self.session())? {
            log::warn!("dropping {name:?}, an unfinished database of a restore that was killed");
            leftovers::drop_database(&self.session(), &name, "WITH (FORCE)")?;
        }
        Ok(())
    }

    pub(super) fn restore(
        &self,
        scratch: &Scratch,
        source: Source<'_>,
        authority: Authority,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Missing>> {
        let Plan { dump, unfinished: name, .. } = self.plan;
        let session = self.session();
        // One script, so that psql comes to the mark even when we are killed in between.
        let create = making::create(name, &self.ours(), &dump.properties, self.major);
        let mark =
            format!("COMMENT ON DATABASE {} IS {};\n", identifier(name), literal(leftovers::UNFINISHED));
        session.execute(HOME, &(create + &mark + &self.closed(name)))?;
        let target = Target {
            session: &session,
            name,
            shown: &self.plan.name,
            tablespaces: Tablespaces::AsDumped,
            scratch,
            authority,
            without: &self.plan.apart,
            refused_rows: match self.plan.skip_broken {
                true => RefusedRows::Skip,
                false => RefusedRows::Offer,
            },
        };
        let missing = load::load(&target, source, dump, progress)?;
        if dump.foreign.is_some_and(|foreign| foreign.gives_owner) {
            session.execute(name, &ownership::give(&dump.database.owner)).map_err(|error| {
                error.context(format!(
                    "could not change the owner of its objects to {:?}",
                    dump.database.owner
                ))
            })?;
        }
        interrupt::check()?;
        progress.begin(&format!("gathering statistics of {}", self.plan.name), None);
        let mut command = self
            .runtime
            .command(self.major, &vacuumdb::analyze(&self.connection, name, self.runtime.jobs()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let gathered = Child::spawn(command, "vacuumdb")?.wait();
        progress.end();
        vacuumdb::only_warn(gathered)?;
        Ok(missing)
    }

    /// What could not be made in a database of another name than its own.
    pub(super) fn bring_apart(&self, scratch: &Scratch, source: Source<'_>) -> Result<()> {
        let Plan { dump, name, .. } = self.plan;
        let apart = self.plan.apart(true);
        if apart.is_empty() {
            return Ok(());
        }
        let session = self.session();
        let target = Target {
            session: &session,
            name,
            shown: name,
            tablespaces: Tablespaces::AsDumped,
            scratch,
            // Only what extensions of the superuser's own have made.
            authority: Authority::Superuser,
            without: &[],
            refused_rows: RefusedRows::Fail,
        };
        target.bring_apart(source, dump, &apart)
    }

    pub(super) fn compare(&self, missing: &[Missing]) -> Result<Contents> {
        let Plan { dump, unfinished: name, .. } = self.plan;
        let Some(contents) = &dump.contents else {
            return Err(Error::new(
                Kind::Damaged,
                "the backup was never read back, so its row counts are unknown",
            )
            .hint("matrix-postgres-backup verify reads it back"));
        };
        let session = self.session();
        let mut extensions = dump.properties.extensions.clone();
        let mut contents = missing::without_empty(contents.clone(), missing);
        for apart in &self.plan.apart {
            extensions.retain(|extension| *extension != apart.extension);
            contents.tables.retain(|name, _| !apart.has(name));
            contents.sequences.retain(|name, _| !apart.has(name));
        }
        let database = self.ours();
        let expected = Expected { database: Some(&database), contents: &contents, extensions: &extensions };
        let found = differences(&session, name, &expected)?;
        if !found.is_empty() {
            let what = if dump.foreign.is_some() { "the file" } else { "the backup" };
            let message = format!("the restored database differs from {what}: {}", found.join("; "));
            return Err(Error::new(Kind::Damaged, message));
        }
        // A one-time key that is used twice breaks encrypted conversations (Synapse's documentation, "Backups").
        session.execute(name, WITHOUT_ONE_TIME_KEYS)?;
        let owner =
            format!("ALTER DATABASE {} OWNER TO {};\n", identifier(name), identifier(&dump.database.owner));
        let dress = making::dress(name, &dump.database, &dump.properties);
        session.execute(HOME, &(owner + &dress + &self.closed(name)))?;
        Ok(contents)
    }

    /// The new database, if it does not have its name yet.
    pub(super) fn clean_up(&self) {
        // What was killed may not have noticed yet.
        let name = &self.plan.unfinished;
        if let Err(error) = leftovers::drop_database(&self.session(), name, "WITH (FORCE)") {
            log::warn!("could not drop the unfinished {name:?}: {}", error.report());
        }
    }
}
