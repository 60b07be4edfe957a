//! Loads a custom dump by several connections at the same time, and builds indexes meanwhile.
//!
//! Each loader takes a part of the dump, the largest first, until there is none left. One that can be entered in one
//! place only has one loader. A loader that has come to the end builds indexes, and so nobody waits as long as there is
//! anything to do.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{ScopedJoinHandle, sleep};
use std::time::Duration;

use super::custom::{Body, Rows, Size, Toc};
use super::feed::Feed;
use super::guarded::Guarded;
use super::missing::Missing;
use super::origin::{Origin, Part};
use super::queue::{Queue, Task};
use super::target::{Target, finish_listed};
use crate::error::{Error, Kind, Result};
use crate::postgres::HELPERS;
use crate::report::Progress;
use crate::runtime::{Child, interrupt};

/// How often it is seen whether a program has ended, and how far the work is.
const TICK: Duration = Duration::from_millis(10);

/// More connections than this hardly help: a few tables are most of a dump.
const LOADERS: usize = 4;

/// Rows of a table with more bytes than this are handed on as they come, by a connection of their own.
const SMALL: usize = 1 << 20;

/// The others are gathered until there are so many bytes of them.
const BATCH: usize = 4 << 20;

/// Loaders and builders of one dump.
pub(super) struct ParallelLoader<'a> {
    target: &'a Target<'a>,
    origin: &'a dyn Origin,
    toc: &'a Toc,
    guarded: &'a Guarded,
    /// How many work at the same time.
    jobs: usize,
    /// Those that nobody has taken, the largest last.
    parts: Mutex<Vec<Part>>,
    /// Entries whose rows have come.
    seen: Mutex<BTreeSet<i32>>,
    queue: Mutex<Queue>,
    /// The queue has changed.
    changed: Condvar,
    loading: AtomicUsize,
    bytes: AtomicU64,
    stopped: AtomicBool,
    /// The first error.
    failed: Mutex<Option<Error>>,
    /// What the server has not taken, and can be missed.
    missing: Mutex<Vec<Missing>>,
}

impl<'a> ParallelLoader<'a> {
    pub(super) fn new(
        target: &'a Target<'a>,
        origin: &'a dyn Origin,
        toc: &'a Toc,
        guarded: &'a Guarded,
        mut parts: Vec<Part>,
    ) -> Self {
        parts.sort_by_key(|part| part.bytes);
        Self {
            target,
            origin,
            toc,
            guarded,
            jobs: target.session.runtime.jobs(),
            parts: Mutex::new(parts),
            seen: Mutex::default(),
            queue: Mutex::new(Queue::new(toc, |key| !guarded.later.contains_key(&key.id))),
            changed: Condvar::new(),
            loading: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            failed: Mutex::default(),
            missing: Mutex::default(),
        }
    }

    /// Loads what comes after the table of contents in `first`, which is read to its end, and all parts, but for what is
    /// guarded; returns the entries that have been made besides, or tried, and those of them that the server has not taken.
    ///
    /// # Errors
    /// The first one that anybody comes upon. What is loaded is then of no use.
    pub(super) fn work(
        self,
        first: impl BufRead + Send,
        progress: &mut dyn Progress,
    ) -> Result<(BTreeSet<i32>, Vec<Missing>)> {
        // More than processors, for one or the other waits for the disk most of the time.
        let others = lock(&self.parts).len().min(self.jobs).min(LOADERS - 1);
        let builders = self.jobs + 1 - others;
        self.loading.store(1 + others, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let parallel = &self;
            let mut threads = vec![scope.spawn(move || {
                parallel.try_to(|| parallel.load(first).and_then(|()| parallel.load_parts()));
                parallel.build_to_the_end();
            })];
            threads.extend((0..others).map(|_| {
                scope.spawn(move || {
                    parallel.try_to(|| parallel.load_parts());
                    parallel.build_to_the_end();
                })
            }));
            threads.extend((0..builders).map(|_| scope.spawn(move || parallel.build())));
            let mut loaded = false;
            while threads.iter().any(|thread| !thread.is_finished()) {
                sleep(TICK);
                if parallel.loading.load(Ordering::SeqCst) > 0 {
                    progress.advance(parallel.bytes.load(Ordering::Relaxed));
                } else if !std::mem::replace(&mut loaded, true) {
                    progress.end();
                    progress.begin(&format!("building indexes of {}", parallel.target.shown), None);
                }
                // Nobody ends before the others, but for one that panicked.
                let ended = threads.iter().any(ScopedJoinHandle::is_finished);
                if ended && parallel.check().is_ok() && !lock(&parallel.queue).is_over() {
                    parallel.fail(Error::new(Kind::Bug, "a loading thread panicked"));
                }
            }
        });
        if let Some(error) = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(missing) = self.toc.with_rows().difference(&seen).next() {
            return Err(Error::new(Kind::Damaged, format!("the rows of its entry {missing} are missing")));
        }
        let taken = self.queue.into_inner().unwrap_or_else(PoisonError::into_inner).into_taken();
        Ok((taken, self.missing.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    fn load_parts(&self) -> Result<()> {
        loop {
            let Some(part) = lock(&self.parts).pop() else { return Ok(()) };
            self.load(self.origin.open_part(part.number)?)?;
        }
    }

    fn load(&self, source: impl BufRead) -> Result<()> {
        let wanted = self.toc.with_rows();
        let mut body = Body::new(source, self.toc);
        let mut batch = Batch::default();
        while let Some(rows) = body.next()? {
            self.check()?;
            if self.toc.is_apart(rows.id) {
                body.copy(rows, self.toc, |_| self.check())?;
                continue;
            }
            if !wanted.contains(&rows.id) || !lock(&self.seen).insert(rows.id) {
                return Err(Error::new(
                    Kind::Damaged,
                    format!("it has rows of an unknown entry, {}", rows.id),
                ));
            }
            match self.guarded.rows.contains_key(&rows.id) {
                true => _ = body.copy(rows, self.toc, |_| self.check())?,
                false => self.table(&mut body, rows, &mut batch)?,
            }
        }
        self.send(&mut batch)
    }

    fn table(&self, body: &mut Body<impl BufRead>, rows: Rows, batch: &mut Batch) -> Result<()> {
        let mut start = Vec::new();
        let mut feed = None;
        let copied = body.copy(rows, self.toc, |piece| {
            self.check()?;
            self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if let Some(feed) = &mut feed {
                return Feed::write(feed, piece);
            }
            start.extend_from_slice(piece);
            if start.len() > SMALL {
                let feed = feed.insert(self.target.start_rows(None)?);
                feed.write(&self.toc.archive(&[rows.id], true))?;
                feed.write(&std::mem::take(&mut start))?;
            }
            Ok(())
        });
        if let Some(feed) = feed {
            let mut size = Size::default();
            let ended = feed.finish(copied.map(|copied| size = copied));
            self.skip(rows.id, ended)?;
            self.loaded(rows.id, size);
            return Ok(());
        }
        batch.entries.push(Small { id: rows.id, size: copied?, start: batch.bytes.len() });
        batch.bytes.extend_from_slice(&start);
        match batch.bytes.len() > BATCH {
            true => self.send(batch),
            false => Ok(()),
        }
    }

    fn send(&self, batch: &mut Batch) -> Result<()> {
        let Batch { entries, bytes } = std::mem::take(batch);
        if entries.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = entries.iter().map(|small| small.id).collect();
        match self.feed(&ids, &bytes) {
            // One of them is refused, and none is there.
            Err(error) if error.kind() == Kind::Program && entries.len() > 1 && self.target.skips_rows() => {
                let mut rest = &bytes[..];
                for Small { id, start, .. } in entries.iter().rev() {
                    let (before, own) = rest.split_at(*start);
                    self.check()?;
                    self.skip(*id, self.feed(&[*id], own))?;
                    rest = before;
                }
            }
            ended => self.skip(entries[0].id, ended)?,
        }
        for small in &entries {
            self.loaded(small.id, small.size);
        }
        Ok(())
    }

    fn feed(&self, ids: &[i32], bytes: &[u8]) -> Result<()> {
        let mut feed = self.target.start_rows(None)?;
        let fed = feed.write(&self.toc.archive(ids, false)).and_then(|()| feed.write(bytes));
        feed.finish(fed)
    }

    /// Goes on where the rows of a table may be missing.
    fn skip(&self, id: i32, ended: Result<()>) -> Result<()> {
        if let Err(error) = ended {
            let missing = self.target.skip_rows(self.toc, id, error)?;
            lock(&self.missing).push(missing);
        }
        Ok(())
    }

    fn loaded(&self, id: i32, size: Size) {
        lock(&self.queue).loaded(id, size);
        self.changed.notify_all();
    }

    /// What a loader does when it has come to the end.
    fn build_to_the_end(&self) {
        if self.loading.fetch_sub(1, Ordering::SeqCst) == 1 {
            lock(&self.queue).all_loaded();
            self.changed.notify_all();
        }
        self.build();
    }

    fn build(&self) {
        while let Some((task, helpers)) = self.next() {
            self.try_to(|| {
                let child = self.target.start_listed(&task.0, 1, helpers, None)?;
                self.wait(child)
            });
            lock(&self.queue).finished(&task);
            self.changed.notify_all();
        }
    }

    /// What is to be done next, and how many may help: processors that nobody else uses.
    fn next(&self) -> Option<(Task, usize)> {
        let mut queue = lock(&self.queue);
        loop {
            if self.stopped.load(Ordering::SeqCst) || queue.is_over() {
                return None;
            }
            if let Some(task) = queue.take() {
                let busy = queue.pending() + self.loading.load(Ordering::SeqCst);
                return Some((task, self.jobs.saturating_sub(busy).min(HELPERS)));
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait(&self, mut child: Child) -> Result<()> {
        while !child.has_ended() {
            // It is killed when it is dropped.
            self.check()?;
            sleep(TICK);
        }
        let mut missing = lock(&self.missing).clone();
        let known = missing.len();
        finish_listed(child, self.toc, &mut missing)?;
        lock(&self.missing).extend(missing.drain(known..));
        Ok(())
    }

    fn try_to(&self, work: impl FnOnce() -> Result<()>) {
        if let Err(error) = work() {
            self.fail(error);
        }
    }

    /// Of the others' errors, most are that they were stopped.
    fn fail(&self, error: Error) {
        lock(&self.failed).get_or_insert(error);
        // Whoever waits for the queue looks at this while he holds it.
        let _queue = lock(&self.queue);
        self.stopped.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn check(&self) -> Result<()> {
        interrupt::check()?;
        match self.stopped.load(Ordering::SeqCst) {
            true => Err(Error::new(Kind::Bug, "stopped because of another error")),
            false => Ok(()),
        }
    }
}

/// Small tables, which are loaded by one connection.
#[derive(Default)]
struct Batch {
    entries: Vec<Small>,
    bytes: Vec<u8>,
}

/// One of them, whose rows begin at `start` of the batch.
struct Small {
    id: i32,
    size: Size,
    start: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
