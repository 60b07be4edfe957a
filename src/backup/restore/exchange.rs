//! The new database gets its name, while those are stopped who use the old one.

use std::fmt::Write as _;

use super::plan::Plan;
use super::work::Work;
use crate::backup::leftovers;
use crate::backup::outage::outage;
use crate::clients;
use crate::error::Result;
use crate::postgres::{HOME, identifier, literal};
use crate::systemd::Manager;

/// How often the exchange is tried against clients that come back at once.
const TRIES: usize = 10;

/// PostgreSQL's error code of a database that somebody is connected to (appendix "Error Codes").
const OBJECT_IN_USE: &str = "55006";

impl Work<'_> {
    /// Both renames are one transaction: after a kill at any instant the name belongs to the old database or to
    /// the new one, and both are there.
    pub(super) fn exchange(&self) -> Result<()> {
        let plan = self.plan;
        if !plan.stops_clients {
            return self.rename();
        }
        let manager = Manager::connect()?;
        let configured = &self.settings.clients;
        let mut wanted = manager.clients(&configured.units)?;
        wanted.extend(clients::found(&manager, self.settings, &self.session(), Some(&plan.name)));
        let (renamed, again) =
            outage(&manager, "restore of a database", &wanted, configured.timeout, || self.rename())?;
        match (renamed, again) {
            (Ok(()), again) => again.map_err(|error| error.state("the restored database is in place")),
            (Err(error), Ok(())) => {
                Err(error.state(format!("database {:?} is unchanged, and its services run again", plan.name)))
            }
            (Err(error), Err(other)) => {
                log::error!("{}", other.report());
                Err(error.state(format!("database {:?} is unchanged", plan.name)))
            }
        }
    }

    fn rename(&self) -> Result<()> {
        let Plan { name, unfinished, kept, dump, .. } = self.plan;
        let comment = match &dump.properties.comment {
            Some(comment) => literal(comment),
            None => "NULL".to_owned(),
        };
        let mut script = String::from("\\set VERBOSITY verbose\nBEGIN;\n");
        let disconnect = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname IN ({}, {}){};\n",
            literal(name),
            literal(unfinished),
            // Of others' sessions it would fail.
            if self.connection.is_superuser() {
                ""
            } else {
                " AND pg_catalog.pg_has_role(usesysid, 'MEMBER')"
            }
        );
        if let Some(kept) = kept {
            // Writing to a String cannot fail.
            let _ = writeln!(script, "ALTER DATABASE {} RENAME TO {};", identifier(name), identifier(kept));
            script.push_str(&leftovers::mark(kept));
        }
        let _ = writeln!(
            script,
            "ALTER DATABASE {0} RENAME TO {1};\nCOMMENT ON DATABASE {1} IS {comment};\n\
             ALTER DATABASE {1} CONNECTION LIMIT {limit};\n{template}COMMIT;",
            identifier(unfinished),
            identifier(name),
            template = match dump.properties.is_template {
                true => format!("ALTER DATABASE {} IS_TEMPLATE true;\n", identifier(name)),
                false => String::new(),
            },
            limit = dump.properties.connection_limit.filter(|&limit| limit >= 0).unwrap_or(-1)
        );
        let mut tries = 0;
        loop {
            tries += 1;
            // A client that is no unit of ours may come back in between.
            match self.session().execute(HOME, &(disconnect.clone() + &script)) {
                Err(error) if tries < TRIES && error.report().contains(OBJECT_IN_USE) => {}
                Err(error) => {
                    return Err(error
                        .context(format!("could not rename the new database to {name:?}"))
                        .hint("end the sessions of that database: matrix-postgres-cli -c 'TABLE pg_catalog.pg_stat_activity'"));
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}
