//! Logins for what is [`guarded`](super::guarded): each has the rights of one owner of tables, and no others.
//!
//! A function may change who a session acts as, but not who has logged in: such a login is a role made for this load, no
//! superuser, and a member of that owner only. It is gone afterwards; what a killed restore has left, the next one removes.
//!
//! Such a function may also change what belongs to its owner, in the database that is being made: whatever comes afterwards
//! is done by a superuser to definitions that are still those of the dump, or not at all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};

use super::guarded::{Facts, Guarded, Table};
use super::making::{closed, opened};
use super::scratch::Scratch;
use crate::error::{Error, Kind, Result};
use crate::postgres::{HOME, Session, identifier, key, literal, psql_script_over, scram};
use crate::runtime::{interrupt, output};

/// What our roles begin with, and what is noted of them: only such are ever dropped.
const PREFIX: &str = "matrix-postgres-loader-";
const COMMENT: &str = "matrix-postgres: a login of a restore that is not finished";

/// Nobody logs in with such a password later than this, even if nobody removes the role.
const VALID_HOURS: i64 = 48;

/// How often it is seen whether a session has ended.
const TICK: Duration = Duration::from_millis(20);

/// The caller's own decision.
pub(super) const TRUST: &str = "--trust-owners";

/// One login for each owner; they are removed when dropped.
pub(super) struct Loaders<'a> {
    session: &'a Session<'a>,
    database: &'a str,
    logins: BTreeMap<String, Login>,
    /// Those whose owners may not add rows themselves.
    closed_tables: Vec<Table>,
    /// How many may be connected to the database, but for the superuser.
    limit: i64,
}

struct Login {
    role: String,
    conninfo: String,
}

impl<'a> Loaders<'a> {
    /// Makes them, and tries each.
    ///
    /// # Errors
    /// [`Kind::Config`] with the names of what is guarded, if one cannot log in.
    pub(super) fn make(
        session: &'a Session<'a>,
        database: &'a str,
        scratch: &Scratch,
        guarded: &Guarded,
        facts: Facts,
    ) -> Result<Self> {
        let closed_tables = facts.tables.into_iter().filter(|table| !table.may_insert).collect();
        let limit = session.query(
            database,
            "SELECT pg_catalog.to_json(datconnlimit) FROM pg_catalog.pg_database
             WHERE datname = pg_catalog.current_database();",
        )?;
        let mut loaders = Self { session, database, logins: BTreeMap::new(), closed_tables, limit };
        for owner in guarded.owners() {
            loaders.add(owner, scratch)?;
        }
        loaders.grant("GRANT", "TO")?;
        loaders.open()?;
        loaders.logins.values().try_for_each(|login| loaders.try_out(login)).map_err(|error| {
            Error::new(
                Kind::Config,
                format!(
                    "constraints of {} call functions of their owners, and no login with the privileges of these owners is possible \
                     to load the rows",
                    guarded.names.join(", ")
                ),
            )
            .because(error)
            .hint(format!(
                "add this line to pg_hba.conf: local all all scram-sha-256; or use {TRUST}, if these functions may run with \
                 superuser privileges"
            ))
        })?;
        loaders.close()?;
        Ok(loaders)
    }

    /// The connection string for what is this owner's.
    ///
    /// # Errors
    /// If there is no such login.
    pub(super) fn conninfo(&self, owner: &str) -> Result<String> {
        let login = self.logins.get(owner).map(|login| login.conninfo.clone());
        login.ok_or_else(|| Error::new(Kind::Bug, "there is no login for an owner"))
    }

    /// Lets `work` log in, and afterwards nobody. Definitions that have changed meanwhile, or are to stay as they are and do
    /// not, are an error.
    ///
    /// # Errors
    /// Those of `work`; [`Kind::Damaged`].
    pub(super) fn with_logins(&self, are_changed: bool, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.definitions()?;
        self.open()?;
        work().map_err(|error| error.hint(format!("{TRUST} loads everything as the superuser")))?;
        self.close()?;
        if !are_changed && self.definitions()? != before {
            return Err(Error::new(
                Kind::Damaged,
                "functions in table constraints have changed the schema while rows were loaded",
            ));
        }
        Ok(())
    }

    /// Removes them.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub(super) fn finish(mut self) -> Result<()> {
        self.grant("REVOKE", "FROM")?;
        while let Some((_, login)) = self.logins.first_key_value() {
            remove(self.session, self.database, &login.role)?;
            self.logins.pop_first();
        }
        let limit = format!("ALTER DATABASE {} CONNECTION LIMIT {};", identifier(self.database), self.limit);
        self.session.execute(HOME, &limit)
    }

    fn add(&mut self, owner: &str, scratch: &Scratch) -> Result<()> {
        let role = format!("{PREFIX}{}", &key()?[..12]);
        let (password, salt) = (key()?, key()?);
        let until = Timestamp::now() + VALID_HOURS.hours();
        // One transaction: none is without its mark.
        let sql = format!(
            "BEGIN;\nCREATE ROLE {name} LOGIN CONNECTION LIMIT 2 VALID UNTIL {until} PASSWORD {verifier};\n\
             COMMENT ON ROLE {name} IS {comment};\nGRANT {owner} TO {name};\nCOMMIT;\n",
            name = identifier(&role),
            until = literal(&until.to_string()),
            verifier = literal(&scram::verifier(&password, &salt.as_bytes()[..16])),
            comment = literal(COMMENT),
            owner = identifier(owner),
        );
        let passfile = scratch.write_secret(&role, format!("*:*:*:{role}:{password}\n").as_bytes())?;
        let connection = self.session.connection.clone().as_role(&role);
        let conninfo = connection.conninfo_for_loading_as(self.database, owner, &passfile);
        self.session.execute_foreign(HOME, &sql)?;
        let name = identifier(&role);
        let may_connect = format!(
            "SELECT pg_catalog.to_json(pg_catalog.has_database_privilege({}, {}, 'CONNECT'));",
            literal(&role),
            literal(self.database)
        );
        self.logins.insert(owner.to_owned(), Login { role, conninfo });
        // The owner of a table may be no user of its database.
        if !self.session.query::<bool>(HOME, &may_connect)? {
            let database = identifier(self.database);
            let grant = format!("GRANT CONNECT ON DATABASE {database} TO {name};");
            self.session.execute(HOME, &grant)?;
        }
        Ok(())
    }

    fn try_out(&self, login: &Login) -> Result<()> {
        let Session { runtime, major, .. } = self.session;
        let call = psql_script_over(&login.conninfo);
        let answer = output(runtime.command(*major, &call)?, "psql", WHO.as_bytes())?;
        match String::from_utf8_lossy(&answer).trim() == format!("{} off", login.role) {
            true => Ok(()),
            false => Err(Error::new(Kind::Server, "a login as the temporary role got another role")),
        }
    }

    /// Owners may add rows while we load; not all may afterwards.
    fn grant(&self, verb: &str, to: &str) -> Result<()> {
        let mut sql = String::new();
        for Table { schema, name, owner, .. } in &self.closed_tables {
            let (table, owner) = (format!("{}.{}", identifier(schema), identifier(name)), identifier(owner));
            // Writing to a String cannot fail.
            let _ = writeln!(sql, "{verb} INSERT ON TABLE {table} {to} {owner};");
        }
        match sql.is_empty() {
            true => Ok(()),
            false => self.session.execute(self.database, &sql),
        }
    }

    fn open(&self) -> Result<()> {
        self.session.execute(HOME, &opened(self.database))
    }

    /// Who is still there may have logged in with a password that one of the functions has set.
    fn close(&self) -> Result<()> {
        self.session.execute(HOME, &closed(self.database))?;
        end_sessions(self.session, &format!("datname = {}", literal(self.database)))
    }

    fn definitions(&self) -> Result<String> {
        self.session.query(self.database, DEFINITIONS)
    }
}

impl Drop for Loaders<'_> {
    fn drop(&mut self) {
        for login in self.logins.values() {
            if let Err(error) = remove(self.session, self.database, &login.role) {
                log::warn!("could not drop the role {:?}: {}", login.role, error.report());
            }
        }
    }
}

/// Removes the logins that a killed restore has left.
///
/// # Errors
/// [`Kind::Server`].
pub(super) fn remove_left(session: &Session<'_>) -> Result<()> {
    let left: Vec<String> = session.query(
        HOME,
        &format!(
            "SELECT coalesce(pg_catalog.json_agg(rolname), '[]') FROM pg_catalog.pg_roles
             WHERE pg_catalog.starts_with(rolname, {}) AND NOT rolsuper
               AND pg_catalog.shobj_description(oid, 'pg_authid') = {};",
            literal(PREFIX),
            literal(COMMENT)
        ),
    )?;
    for role in left {
        log::warn!("dropping the role {role:?}, a leftover of a restore that was killed");
        if let Err(error) = remove(session, HOME, &role) {
            log::warn!("could not drop the role {role:?}: {}", error.report());
        }
    }
    Ok(())
}

/// Nobody logs in as this role any more, and it owns nothing: not even what it has made where it was not expected.
fn remove(session: &Session<'_>, database: &str, role: &str) -> Result<()> {
    let name = identifier(role);
    session.execute(HOME, &format!("ALTER ROLE {name} NOLOGIN PASSWORD NULL;"))?;
    end_sessions(session, &format!("usename = {}", literal(role)))?;
    let mut databases: Vec<String> = session.query(
        HOME,
        &format!(
            "SELECT coalesce(pg_catalog.json_agg(DISTINCT datname), '[]')
             FROM pg_catalog.pg_shdepend JOIN pg_catalog.pg_database d ON d.oid = dbid
             WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
               AND refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {});",
            literal(role)
        ),
    )?;
    databases.push(database.to_owned());
    for database in databases {
        session.execute(&database, &format!("DROP OWNED BY {name};"))?;
    }
    session.execute(HOME, &format!("DROP ROLE {name};"))
}

fn end_sessions(session: &Session<'_>, whose: &str) -> Result<()> {
    loop {
        let left: u64 = session.query(
            HOME,
            &format!(
                "SELECT pg_catalog.to_json(pg_catalog.count(pg_catalog.pg_terminate_backend(pid)))
                 FROM pg_catalog.pg_stat_activity WHERE {whose} AND pid <> pg_catalog.pg_backend_pid();"
            ),
        )?;
        if left == 0 {
            return Ok(());
        }
        interrupt::check()?;
        sleep(TICK);
    }
}

const WHO: &str = "SELECT session_user || ' ' || pg_catalog.current_setting('is_superuser');";

/// All definitions of a database, but for what the server notes there by itself.
const DEFINITIONS: &str = "SET jit = off;
SELECT pg_catalog.to_json(pg_catalog.md5(pg_catalog.string_agg(hash, '' ORDER BY hash COLLATE \"C\"))) FROM (
    SELECT pg_catalog.md5((pg_catalog.to_jsonb(c) - '{relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid}'::text[])::text)
        FROM pg_catalog.pg_class c WHERE relpersistence <> 't'
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(a)::text) FROM pg_catalog.pg_attribute a
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = attrelid AND relpersistence = 't')
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_attrdef x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_constraint x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_trigger x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_rewrite x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_policy x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_event_trigger x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_index x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_inherits x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_partitioned_table x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_proc x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_aggregate x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_operator x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_cast x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(x)::text) FROM pg_catalog.pg_range x
    UNION ALL SELECT pg_catalog.md5(pg_catalog.to_jsonb(t)::text) FROM pg_catalog.pg_type t
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE reltype IN (t.oid, typelem) AND relpersistence = 't')
) AS h (hash);";
