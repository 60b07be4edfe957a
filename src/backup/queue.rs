//! What of a dump can be made when: indexes as soon as their table is loaded, keys between tables as soon as these have
//! their indexes, the rest at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::custom::{Key, Size, Toc};

/// Each index of a table with more bytes than this is built by itself, and a key whose rows they are is made by itself.
const LARGE: u64 = 1 << 20;

/// Of the other indexes, so many are built together: a program is started for each group.
const GROUP: usize = 100;

/// Entries of a dump that are made one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task(pub(super) Vec<i32>);

/// What there is to do, and what has been done.
#[derive(Debug, Default)]
pub(super) struct Queue {
    indexes: BTreeMap<i32, Vec<i32>>,
    keys: Vec<Key>,
    /// With about how much work each is.
    ready: Vec<(u64, Task)>,
    small: Vec<i32>,
    large: BTreeSet<i32>,
    done: BTreeSet<i32>,
    /// What was handed out.
    taken: BTreeSet<i32>,
    running: usize,
    loaded: bool,
}

impl Queue {
    /// Of a dump of which nothing is loaded yet.
    /// Keys that are not `wanted` are left out.
    pub(super) fn new(toc: &Toc, wanted: impl Fn(&Key) -> bool) -> Self {
        Self {
            indexes: toc.with_rows().into_iter().map(|rows| (rows, toc.indexes_of(rows))).collect(),
            keys: toc.keys().into_iter().filter(wanted).collect(),
            ..Self::default()
        }
    }

    /// The rows of this entry are in their table.
    pub(super) fn loaded(&mut self, rows: i32, size: Size) {
        let indexes = self.indexes.remove(&rows).unwrap_or_default();
        if size.bytes > LARGE {
            self.large.insert(rows);
            self.ready.extend(indexes.into_iter().map(|index| (size.blocks, Task(vec![index]))));
        } else {
            self.small.extend(indexes);
        }
        self.complete(&[rows]);
    }

    /// All rows are in their tables.
    pub(super) fn all_loaded(&mut self) {
        self.loaded = true;
        let small = std::mem::take(&mut self.small);
        self.ready.extend(small.chunks(GROUP).map(|group| (0, Task(group.to_vec()))));
    }

    /// The largest task that can be done now, but first what a key waits for: it takes long, and nobody else can do
    /// anything with its tables meanwhile.
    pub(super) fn take(&mut self) -> Option<Task> {
        let is_waited_for = |task: &Task| {
            let by = |key: &Key| {
                self.large.contains(&key.rows) && task.0.iter().any(|entry| key.needs.contains(entry))
            };
            self.keys.iter().any(by)
        };
        let rank = |(work, task): &(u64, Task)| (*work == u64::MAX, is_waited_for(task), *work);
        // Of equal ones the first.
        let (at, _) = self.ready.iter().enumerate().rev().max_by_key(|(_, ready)| rank(ready))?;
        let (_, task) = self.ready.remove(at);
        self.taken.extend(&task.0);
        self.running += 1;
        Some(task)
    }

    /// What [`Self::take`] gave has been done.
    pub(super) fn finished(&mut self, task: &Task) {
        self.running -= 1;
        self.complete(&task.0);
    }

    /// How many tasks are being done, or could be.
    pub(super) fn pending(&self) -> usize {
        self.running + self.ready.len()
    }

    /// Whether nothing will come any more.
    pub(super) fn is_over(&self) -> bool {
        self.loaded && self.ready.is_empty() && self.running == 0
    }

    /// What was handed out.
    pub(super) fn into_taken(self) -> BTreeSet<i32> {
        self.taken
    }

    fn complete(&mut self, entries: &[i32]) {
        self.done.extend(entries);
        let (done, large) = (&self.done, &self.large);
        // Those of few rows are left: each needs a moment, but would wait for others that have its tables.
        let possible = |key: &mut Key| key.needs.is_subset(done) && large.contains(&key.rows);
        self.ready.extend(self.keys.extract_if(.., possible).map(|key| (u64::MAX, Task(vec![key.id]))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue {
            indexes: [(1, vec![11, 12]), (2, vec![21]), (3, vec![31])].into(),
            keys: vec![
                Key { id: 91, rows: 1, needs: [1, 11, 12, 3, 31].into() },
                Key { id: 92, rows: 2, needs: [2, 21].into() },
            ],
            ..Queue::default()
        }
    }

    fn task(queue: &mut Queue) -> Option<Vec<i32>> {
        queue.take().map(|task| task.0)
    }

    #[test]
    fn indexes_of_large_tables_come_at_once_and_the_largest_first() {
        let mut queue = queue();
        assert_eq!(task(&mut queue), None);
        queue.loaded(1, Size { blocks: 10, bytes: 2 * LARGE });
        queue.loaded(2, Size { blocks: 20, bytes: 10 });
        queue.loaded(3, Size { blocks: 30, bytes: 2 * LARGE });
        assert_eq!([31, 11, 12].map(Some), [0; 3].map(|_| task(&mut queue).map(|task| task[0])));
        assert_eq!(task(&mut queue), None);
        assert!(!queue.is_over());
        queue.all_loaded();
        assert_eq!(task(&mut queue), Some(vec![21]));
    }

    #[test]
    fn keys_of_large_tables_wait_for_all_that_they_need_and_others_are_left() {
        let mut queue = queue();
        for (rows, size) in [(1, 2 * LARGE), (2, 10), (3, 10)] {
            queue.loaded(rows, Size { blocks: 1, bytes: size });
        }
        queue.all_loaded();
        let tasks = [0; 3].map(|_| queue.take().unwrap());
        assert_eq!(tasks.each_ref().map(|task| &task.0[..]), [&[11][..], &[12], &[21, 31]]);
        assert_eq!(queue.take(), None);
        queue.finished(&tasks[2]);
        queue.finished(&tasks[0]);
        assert_eq!(queue.take(), None);
        assert!(!queue.is_over());
        queue.finished(&tasks[1]);
        let key = queue.take().unwrap();
        assert_eq!(key.0, [91]);
        assert!(!queue.is_over());
        queue.finished(&key);
        assert!(queue.is_over());
        assert_eq!(queue.into_taken(), [11, 12, 21, 31, 91].into());
    }
}
