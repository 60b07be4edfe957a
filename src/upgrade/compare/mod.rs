//! The comparison of an old and a new cluster, before the new one is put in place: a difference means that it is not.
//!
//! A [`Snapshot`] of each is taken by the same programs, those of the new major, and made so that two snapshots are equal
//! when nothing was lost. What majors legitimately do in different ways is left out, or is told as a note.
//!
//! - [`globals`]: roles, from pg_dumpall
//! - [`schema`]: objects, from pg_dump
//! - [`catalog`]: relations, validity of indexes and constraints
//! - [`rows`]: tables, sequences and large objects, read in parallel
//! - [`differences`]: two snapshots → sentences
//! - [`sql`]: takes SQL apart

mod catalog;
mod differences;
mod globals;
mod name;
mod parallel;
mod rows;
mod schema;
mod settings;
mod sql;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use catalog::{Constraint, Index, LargeObjects, Relation};
pub use differences::{Difference, differences};
pub use globals::{Globals, Membership, Role};
pub use schema::{Object, Statement};

pub use crate::config::Depth;

use crate::backup::compare::startup_problems;
use crate::error::{Error, Kind, Result};
use crate::postgres::{self, Session, pg_dump};
use crate::report::{Progress, Silent};
use crate::runtime::output;
use crate::upgrade::records::Compared;
use catalog::Catalog;
use rows::{Answer, Item, Portion};

/// Everything of a cluster that must be equal. It holds no password, and no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// How thorough it is.
    pub depth: Depth,
    /// What belongs to no database.
    pub globals: Globals,
    /// The databases that accept connections, by name.
    pub databases: BTreeMap<String, Database>,
    /// Those that do not, which nobody can look into; without `template0`.
    pub closed: Vec<String>,
}

/// One database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// From pg_dump, in order.
    pub objects: Vec<Object>,
    /// Tables, views and sequences, by name.
    pub relations: BTreeMap<String, Relation>,
    /// By name.
    pub indexes: BTreeMap<String, Index>,
    /// By their own name and that of what they belong to.
    pub constraints: BTreeMap<String, Constraint>,
    /// Rows by table.
    pub tables: BTreeMap<String, Rows>,
    /// Last value and whether it has been used, by sequence.
    pub sequences: BTreeMap<String, (String, bool)>,
    /// Large objects.
    pub large_objects: LargeObjects,
    /// A hash of their contents, with [`Depth::Content`].
    pub large_object_contents: Option<String>,
    /// Why the homeserver would not start on it, a sentence each.
    pub startup_problems: Vec<String>,
    /// With [`Depth::Files`]: how many objects of each kind there are, and bytes of each table's file.
    pub counts: BTreeMap<String, u64>,
    /// How many comments there are, of which no tool carries over those of what is gone, or of what initdb makes.
    #[serde(default)]
    pub comments: u64,
}

/// Of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// A hash of all of them, whatever their order, with [`Depth::Content`].
    pub hash: Option<String>,
}

/// What a schema's dump takes, in bytes of tables that are counted meanwhile.
const SCHEMA_WEIGHT: u64 = 256 << 20;

/// So many portions for each connection, so that none ends long before the others.
const PORTIONS: u64 = 8;

/// A part of the work.
enum Task<'a> {
    Globals,
    Schema(&'a str),
    Startup(&'a str),
    Read(&'a Portion),
}

/// What came of it.
enum Part<'a> {
    Globals(Globals),
    Schema(&'a str, Vec<Object>),
    Startup(&'a str, Vec<String>),
    Read(&'a Portion, Vec<Answer>),
}

/// Tells what differs between the two; what may be lost ends the upgrade.
///
/// # Errors
/// [`Kind::Damaged`] naming the most important differences.
pub fn require_equal(old: &Snapshot, new: &Snapshot) -> Result<()> {
    let (serious, notes): (Vec<_>, Vec<_>) =
        differences(old, new).into_iter().partition(|difference| difference.serious);
    for note in notes {
        log::info!("{note}");
    }
    if serious.is_empty() {
        return Ok(());
    }
    for difference in &serious {
        log::error!("{difference}");
    }
    let first: Vec<_> = serious.iter().take(5).map(ToString::to_string).collect();
    let message = format!(
        "the new cluster differs from the old one ({} differences): {}",
        serious.len(),
        first.join("; ")
    );
    Err(Error::new(Kind::Damaged, message))
}

impl Snapshot {
    /// Looks at a cluster that nobody changes meanwhile, by so many connections at a time. The session's programs are
    /// those of the new major, for both clusters.
    ///
    /// # Errors
    /// [`Kind::Server`] or [`Kind::Program`] if something cannot be read: then nothing is known to be equal.
    pub fn take(
        session: &Session<'_>,
        depth: Depth,
        jobs: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        Self::look(session, depth, true, jobs, progress)
    }

    /// The same without a look at any row, or at the value of a sequence: what is to be equal where there are none yet.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub fn definitions(session: &Session<'_>, depth: Depth, jobs: usize) -> Result<Self> {
        Self::look(session, depth, false, jobs, &mut Silent)
    }

    fn look(
        session: &Session<'_>,
        depth: Depth,
        with_rows: bool,
        jobs: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let names: Vec<_> = postgres::databases(session)?.into_iter().map(|database| database.name).collect();
        let closed = postgres::closed_databases(session)?.into_iter().map(|(name, _)| name).collect();
        let size = match depth {
            Depth::Rows | Depth::Files => "pg_relation_size",
            Depth::Content => "pg_table_size",
        };
        let catalogs = parallel::each(jobs, &names, |name| catalog::ask(session, name, size), |_| ())?;
        let portions = if with_rows { portions(&names, &catalogs, depth, jobs) } else { Vec::new() };
        let tasks = tasks(&names, &portions, depth);

        let total = portions.iter().map(|portion| portion.bytes).sum();
        let mut done = 0;
        progress.begin("comparing", Some(total));
        let parts = parallel::each(
            jobs,
            &tasks,
            |task| carry_out(session, task, depth),
            |part| {
                if let Part::Read(portion, _) = part {
                    done += portion.bytes;
                    progress.advance(done);
                }
            },
        );
        progress.end();

        let databases = names.iter().zip(catalogs).map(|(name, catalog)| (name.clone(), of(catalog, depth)));
        let mut snapshot =
            Self { depth, globals: Globals::default(), databases: databases.collect(), closed };
        for part in parts? {
            snapshot.add(part)?;
        }
        Ok(snapshot)
    }

    /// How much it is, for who asks how much was compared.
    pub fn size(&self) -> Compared {
        let rows = (self.depth != Depth::Files).then(|| self.rows());
        Compared { tables: self.tables() as u64, rows }
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.databases.values().flat_map(|database| database.tables.values()).map(|rows| rows.count).sum()
    }

    /// How many tables, whether or not their rows were counted.
    pub fn tables(&self) -> usize {
        let relations = self.databases.values().flat_map(|database| database.relations.values());
        relations.filter(|relation| relation.kind == 'r').count()
    }

    /// The databases' names.
    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.databases.keys().map(String::as_str)
    }

    fn add(&mut self, part: Part<'_>) -> Result<()> {
        let name = match &part {
            Part::Globals(_) => "",
            Part::Schema(name, _) | Part::Startup(name, _) => name,
            Part::Read(portion, _) => &portion.database,
        };
        let database = self.databases.get_mut(name);
        match (part, database) {
            (Part::Globals(globals), _) => self.globals = globals,
            (Part::Schema(_, objects), Some(database)) => database.objects = objects,
            (Part::Startup(_, problems), Some(database)) => database.startup_problems = problems,
            (Part::Read(portion, answers), Some(database)) => {
                for (item, (_, first, second)) in portion.items.iter().zip(answers) {
                    database.answer(item, first, second, self.depth)?;
                }
            }
            (_, None) => {}
        }
        Ok(())
    }
}

fn of(catalog: Catalog, depth: Depth) -> Database {
    Database {
        indexes: catalog.indexes(),
        constraints: catalog.constraints(),
        counts: if depth == Depth::Files { catalog.counts() } else { BTreeMap::new() },
        comments: catalog.comments,
        large_objects: catalog.large_objects,
        relations: catalog.relations.into_iter().map(|found| (found.name.shown(), found.relation)).collect(),
        ..Database::default()
    }
}

impl Database {
    fn answer(&mut self, item: &Item, first: String, second: String, depth: Depth) -> Result<()> {
        let hash = |hash| (depth == Depth::Content).then_some(hash);
        match item {
            Item::Table { name, .. } => {
                let count = first.parse().map_err(|error| {
                    Error::new(Kind::Bug, format!("{first:?} is no number of rows")).because(error)
                })?;
                self.tables.insert(name.shown(), Rows { count, hash: hash(second) });
            }
            Item::Sequence(name) => {
                self.sequences.insert(name.shown(), (first, second == "true"));
            }
            Item::LargeObjects => self.large_object_contents = hash(second),
        }
        Ok(())
    }
}

/// What is to be read of all databases.
fn portions(names: &[String], catalogs: &[Catalog], depth: Depth, jobs: usize) -> Vec<Portion> {
    let total: u64 = catalogs.iter().flat_map(|catalog| &catalog.relations).map(|found| found.bytes).sum();
    let enough = (total / (PORTIONS * jobs.max(1) as u64)).max(1 << 20);
    let items = |catalog: &Catalog| {
        let mut items: Vec<_> = catalog
            .relations
            .iter()
            .filter_map(|found| match found.relation.kind {
                'r' | 'p' if depth != Depth::Files => found.table().map(|table| (table, found.bytes)),
                'S' if depth != Depth::Files || !found.unlogged => {
                    Some((Item::Sequence(found.name.clone()), 0))
                }
                _ => None,
            })
            .collect();
        if depth == Depth::Content && catalog.large_objects.count > 0 {
            items.push((Item::LargeObjects, enough));
        }
        items
    };
    let all = names.iter().zip(catalogs);
    all.flat_map(|(name, catalog)| rows::portions(name, items(catalog), enough)).collect()
}

/// The long ones first. Definitions that pg_upgrade carries over are counted, for that is a matter of a moment.
fn tasks<'a>(names: &'a [String], portions: &'a [Portion], depth: Depth) -> Vec<Task<'a>> {
    let mut tasks = vec![(SCHEMA_WEIGHT / 2, Task::Globals)];
    for name in names {
        if depth != Depth::Files {
            tasks.push((SCHEMA_WEIGHT, Task::Schema(name)));
        }
        tasks.push((SCHEMA_WEIGHT / 4, Task::Startup(name)));
    }
    tasks.extend(portions.iter().map(|portion| (portion.bytes, Task::Read(portion))));
    tasks.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    tasks.into_iter().map(|(_, task)| task).collect()
}

fn carry_out<'a>(session: &Session<'_>, task: &Task<'a>, depth: Depth) -> Result<Part<'a>> {
    Ok(match task {
        Task::Globals => {
            let call = pg_dump::globals_for_comparison(session.connection);
            let for_all = postgres::set_for_all(&postgres::settings_of_all(session)?);
            let parse = |text: &str| globals::parse(&format!("{text}\n{for_all}"));
            Part::Globals(dumped(session, &call, "pg_dumpall", parse)?)
        }
        Task::Schema(name) => {
            let call = pg_dump::schema_for_comparison(session.connection, name);
            let objects = dumped(session, &call, &format!("pg_dump of {name:?}"), schema::parse)?;
            Part::Schema(name, objects)
        }
        Task::Startup(name) => Part::Startup(name, startup_problems(session, name)?),
        Task::Read(portion) => Part::Read(portion, rows::read(session, portion, depth)?),
    })
}

fn dumped<T>(
    session: &Session<'_>,
    call: &crate::runtime::Call,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T> {
    let text = output(session.runtime.command(session.major, call)?, name, &[])?;
    // A database in SQL_ASCII may hold anything; both dumps do.
    parse(&String::from_utf8_lossy(&text)).map_err(|reason| {
        Error::new(Kind::Program, format!("could not parse the output of {name}: {reason}"))
    })
}
