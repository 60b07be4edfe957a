//! Restore: into a new database beside the old one, compared with the manifest, and only then given its name.
//! Nothing is dropped: the database that was there stays under another name.
//!
//! - [`plan`](mod@plan): what is done
//! - `work`: the new database, made, loaded and compared
//! - `exchange`: it gets its name

mod exchange;
mod plan;
mod work;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

pub use plan::{Plan, RestoreRequest, plan, trusted};

use self::work::Work;
use super::catalogue::Entry;
use super::globals::Globals;
use super::loader;
use super::missing;
use super::rows::Contents;
use super::scratch::Scratch;
use super::source::{self, Source};
use crate::config::Settings;
use crate::error::Result;
use crate::postgres::{self, HOME, Session};
use crate::report::{HumanCount, Progress};
use crate::runtime::Runtime;

/// A finished restore, in a sentence.
#[derive(Debug)]
pub struct Outcome(pub String);

/// Carries a plan out; the caller holds the lock.
///
/// # Errors
/// Every kind. Until the exchange, the databases that there were are as they were; the new one is dropped.
/// [`Kind::NotTaken`] also once it is in place, without an index or the rows of a view.
pub fn carry_out(
    settings: &Settings,
    runtime: &dyn Runtime,
    plan: &Plan,
    request: &RestoreRequest<'_>,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let work = Work::new(settings, runtime, plan)?;
    let clock = Instant::now();
    let source = Source {
        files: &*request.entry.files,
        manifest: trusted(request.entry)?,
        identity: request.identity,
    };
    let authority = plan::authority(settings, request);
    let scratch = Scratch::make_for(&plan.scratch, runtime.account())?;
    work.check_space()?;
    work.drop_unfinished()?;
    loader::remove_left(&work.session())?;
    let done = work.restore(&scratch, source, authority, progress).and_then(|missing| {
        let loaded = clock.elapsed();
        progress.begin(&format!("comparing {}", plan.name), None);
        let contents = work.compare(&missing)?;
        progress.end();
        Ok((rows_of(&contents), loaded, missing))
    });
    let (rows, loaded, missing) = done.inspect_err(|_| work.clean_up()).map_err(|error| {
        error.state(match &plan.kept {
            Some(_) => format!("database {:?} is unchanged, and its services were not stopped", plan.name),
            None => format!("database {:?} was not created, and nothing else was changed", plan.name),
        })
    })?;
    let compared = clock.elapsed().saturating_sub(loaded);
    let clock = Instant::now();
    work.exchange().inspect_err(|_| work.clean_up())?;
    let brought = work.bring_apart(&scratch, source);
    drop(scratch);
    let kept = match &plan.kept {
        Some(kept) => format!("; the previous database is now {kept:?}"),
        None => String::new(),
    };
    let mut said = format!(
        "database {:?} was restored, {rows}: loaded in {:.1} s, compared in {:.1} s, renamed in {:.1} s{kept}",
        plan.name,
        loaded.as_secs_f64(),
        compared.as_secs_f64(),
        clock.elapsed().as_secs_f64(),
    );
    for sentence in plan.left_out() {
        let _ = write!(said, "; {sentence}");
    }
    match missing::told(&missing).or(brought.err()) {
        None => Ok(Outcome(said)),
        Some(error) => Err(error.context("the restore is incomplete").state(said)),
    }
}

/// Brings back the roles of a backup that are not there; those that are stay as they are.
///
/// # Errors
/// [`Kind::Damaged`] if the file is not what was written, [`Kind::Server`] with the server's own words.
pub fn globals(
    settings: &Settings,
    runtime: &dyn Runtime,
    entry: &Entry,
    identity: Option<&Path>,
) -> Result<Outcome> {
    let source = Source { files: &*entry.files, manifest: trusted(entry)?, identity };
    let globals = Globals::parse(&source::text(source, &source.manifest.globals)?)?;
    let connection = settings.connection();
    let session = Session::newest(runtime, &connection);
    let (made, sql) = globals.missing(&postgres::roles(&session)?);
    let (set, for_all) = globals.missing_for_all(&postgres::settings_of_all(&session)?);
    session
        .execute_foreign(HOME, &format!("BEGIN;\n{sql}{for_all}COMMIT;\n"))
        .map_err(|error| error.state("no role and no setting was changed"))?;
    let mut said = match made.is_empty() {
        true => "every role of the backup already exists".to_owned(),
        false => format!("created the roles {}; existing roles are unchanged", made.join(", ")),
    };
    if !set.is_empty() {
        let _ = write!(said, "; restored settings of ALTER ROLE ALL: {}", set.join(", "));
    }
    Ok(Outcome(said))
}

/// How many rows there are, as far as they were counted.
fn rows_of(contents: &Contents) -> String {
    let counted = HumanCount(contents.rows());
    match (contents.not_counted, contents.tables.is_empty()) {
        (0, _) => format!("{counted} rows"),
        (_, true) => "rows not counted".to_owned(),
        (1, false) => format!("{counted} rows, not counting those of 1 statement"),
        (others, false) => format!("{counted} rows, not counting those of {others} statements"),
    }
}
