//! What of a dump is made when: definitions, rows, and the rest; what runs code of its owners comes last, as they.

use std::io::BufRead;
use std::path::Path;

use super::custom::{Body, Toc};
use super::guarded::{Facts, Guarded};
use super::loader::{Loaders, TRUST};
use super::missing::Missing;
use super::origin::{Origin, Part};
use super::parallel::ParallelLoader;
use super::target::{Authority, TOC, Target, finish_listed};
use crate::error::{Error, Kind, Result};
use crate::postgres::Apart;
use crate::postgres::pg_restore::Part as Step;
use crate::report::Progress;
use crate::runtime::interrupt;

/// The types of each table's columns, by what pg_dump's `COPY` says of it.
const COLUMNS: &str = "SELECT coalesce(pg_catalog.json_object_agg(name, types), '{}') FROM (
    SELECT pg_catalog.format('%I.%I (%s)', nspname, relname,
            pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum)) AS name,
        pg_catalog.json_agg(atttypid::bigint ORDER BY attnum) AS types
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
        JOIN pg_catalog.pg_attribute ON attrelid = c.oid
    WHERE relkind = 'r' AND nspname <> 'pg_catalog' AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    GROUP BY c.oid, nspname, relname) AS tables;";

/// What of a dump is still to be restored.
pub(super) struct Rest<'a> {
    toc: Toc,
    /// Entries, in order.
    entries: Vec<i32>,
    guarded: Guarded,
    /// Where anything is guarded.
    loaders: Option<Loaders<'a>>,
    /// What the server has not taken.
    missing: Vec<Missing>,
}

impl<'a> Target<'a> {
    /// Makes everything in the custom dump, but for what is returned: definitions, and what follows the table of contents
    /// in `content` and in `parts`.
    pub(super) fn rows(
        &self,
        content: impl BufRead + Send,
        toc: Toc,
        origin: &dyn Origin,
        parts: Vec<Part>,
        progress: &mut dyn Progress,
    ) -> Result<Rest<'a>> {
        let mut toc = toc;
        for Apart { extension, schema, .. } in self.without {
            if toc.take_apart(extension, schema) {
                log::warn!("extension {extension:?} and its schema {schema:?} are skipped");
            }
        }
        let file = self.scratch.write(TOC, &toc.bytes())?;
        let mut not_made = Vec::new();
        self.definitions(&toc, &file, &mut not_made)?;
        let before = toc.before_rows();
        if !before.is_empty() {
            finish_listed(self.start_listed(&before, 1, 0, None)?, &toc, &mut Vec::new())?;
        }
        // Where names are no UTF-8, they cannot be asked for.
        let toc = match toc.is_utf8() {
            true => toc.with_binary(&self.session.query(self.name, COLUMNS)?),
            false => toc,
        };
        let (guarded, loaders) = self.guarded(&toc)?;
        // Before any of their code runs, everything else is there.
        let (made, missing) =
            ParallelLoader::new(self, origin, &toc, &guarded, parts).work(content, progress)?;
        let missing = [not_made, missing].concat();
        let left = |id: &i32| !made.contains(id) && !guarded.later.contains_key(id);
        let entries = toc.after_rows().filter(left).collect();
        Ok(Rest { toc, entries, guarded, loaders, missing })
    }

    /// Makes what may hold rows.
    fn definitions(&self, toc: &Toc, file: &Path, missing: &mut Vec<Missing>) -> Result<()> {
        let everything = |missing: &mut Vec<Missing>| {
            finish_listed(self.start(Step::Definitions, Some((file, 1)), self.conninfo(0))?, toc, missing)
        };
        if self.authority == Authority::Superuser {
            return everything(missing);
        }
        if toc.calling_keys().next().is_some() {
            let facts = Facts::find(self.session, self.name)?;
            let keys = toc.calling_keys().filter(|(_, owner)| facts.is_foreign(owner));
            require_none("are in the keys", keys.map(|(name, _)| name).collect())?;
        }
        let Some((first, last)) = toc.evaluated_definitions() else { return everything(missing) };
        let listed = |entries: &[i32], missing: &mut Vec<Missing>| {
            let child = self.start_part_from_list(Step::ListedDefinitions, entries, 1, self.conninfo(0))?;
            finish_listed(child, toc, missing)
        };
        listed(&first, missing)?;
        let facts = Facts::find(self.session, self.name)?;
        let mut evaluated = facts.keys.clone();
        if !facts.types.is_empty() {
            evaluated.extend(toc.aggregates(|owner| facts.is_foreign(owner)));
        }
        let functions = format!("of the types {} are in the definitions", facts.types.join(", "));
        require_none(&functions, evaluated)?;
        listed(&last, missing)
    }

    fn guarded(&self, toc: &Toc) -> Result<(Guarded, Option<Loaders<'a>>)> {
        if self.authority == Authority::Superuser {
            return Ok((Guarded::default(), None));
        }
        let facts = Facts::find(self.session, self.name)?;
        let guarded = Guarded::new(toc, &facts);
        if guarded.owners().is_empty() {
            return Ok((guarded, None));
        }
        log::info!("with the privileges of their owners: {}", guarded.names.join(", "));
        let loaders = Loaders::make(self.session, self.name, self.scratch, &guarded, facts)?;
        Ok((guarded, Some(loaders)))
    }

    /// Makes what [`Self::rows`] has left out.
    pub(super) fn finish(
        &self,
        mut rest: Rest<'_>,
        origin: &dyn Origin,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Missing>> {
        if !rest.guarded.rows.is_empty() {
            progress.begin(
                &format!("loading tables that call functions of their owners into {}", self.shown),
                None,
            );
            let missing = self.guarded_rows(origin, &rest)?;
            rest.missing.extend(missing);
            progress.end();
        }
        progress.begin(&format!("finishing {}", self.shown), None);
        self.rest(&mut rest)?;
        progress.end();
        Ok(rest.missing)
    }

    /// Reads the dump once more, for the rows that were left out.
    fn guarded_rows(&self, origin: &dyn Origin, rest: &Rest<'_>) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        let Some(loaders) = &rest.loaders else { return Ok(missing) };
        // Of another dump of the same, the numbers may be others.
        let tables = rest.toc.tables(&rest.guarded.rows);
        loaders.with_logins(false, || {
            origin.again(&rest.guarded.rows.keys().copied().collect(), &mut |toc, content| {
                let owners =
                    toc.rows_of(|schema, name| tables.get(&(schema.to_vec(), name.to_vec())).cloned());
                if owners.len() != rest.guarded.rows.len() {
                    return Err(Error::new(Kind::Damaged, "its tables differ when it is read again"));
                }
                let mut body = Body::new(content, &toc);
                let mut left = owners.len();
                while let Some(rows) = body.next()? {
                    let Some(owner) = owners.get(&rows.id) else {
                        body.copy(rows, &toc, |_| interrupt::check())?;
                        continue;
                    };
                    let mut feed = self.start_rows(Some(loaders.conninfo(owner)?))?;
                    let fed = feed.write(&toc.archive(&[rows.id], false)).and_then(|()| {
                        body.copy(rows, &toc, |piece| interrupt::check().and_then(|()| feed.write(piece)))
                    });
                    if let Err(error) = feed.finish(fed) {
                        missing.push(self.skip_rows(&toc, rows.id, error)?);
                    }
                    left -= 1;
                }
                match left {
                    0 => Ok(()),
                    _ => Err(Error::new(Kind::Damaged, "its rows differ when it is read again")),
                }
            })
        })?;
        Ok(missing)
    }

    /// What is guarded comes last: it may change what belongs to its owner.
    fn rest(&self, rest: &mut Rest<'_>) -> Result<()> {
        let Rest { toc, entries, guarded, loaders, missing } = rest;
        finish_listed(self.start_listed(entries, self.session.runtime.jobs(), 0, None)?, toc, missing)?;
        let Some(loaders) = loaders.take() else { return Ok(()) };
        if !guarded.later.is_empty() {
            loaders.with_logins(true, || {
                guarded.later.iter().try_for_each(|(entry, owner)| {
                    let child = self.start_listed(&[*entry], 1, 0, Some(loaders.conninfo(owner)?))?;
                    finish_listed(child, toc, missing)
                })
            })?;
        }
        loaders.finish()
    }
}

/// What only a superuser could make, and would evaluate on the way.
fn require_none(functions: &str, evaluated: Vec<String>) -> Result<()> {
    match evaluated.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Config,
            format!(
                "functions of their owners {functions} of {}, which only a superuser can create",
                evaluated.join(", ")
            ),
        )
        .hint(format!("{TRUST}, if these functions may run with superuser privileges"))),
    }
}
