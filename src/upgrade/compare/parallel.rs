//! Many small tasks, a few at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::runtime::interrupt;

/// Works on all tasks in order, `jobs` at a time; results are in the order of the tasks. `done` is told of each as it
/// comes. The first failure ends it once the tasks that have been begun are over.
pub(super) fn each<T: Sync, R: Send>(
    jobs: usize,
    tasks: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
    mut done: impl FnMut(&R),
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    let mut collected: Vec<Option<R>> = tasks.iter().map(|_| None).collect();
    let mut failure = None;
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, tasks.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(number) else { break };
                    let result = interrupt::check().and_then(|()| work(task));
                    if result.is_err() {
                        next.store(tasks.len(), Ordering::Relaxed);
                    }
                    if sender.send((number, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (number, result) in results {
            match result {
                Ok(result) => {
                    done(&result);
                    collected[number] = Some(result);
                }
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => collected
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| Error::new(Kind::Bug, "a part of the work was not done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_tasks() {
        let tasks: Vec<u64> = (0..100).collect();
        let mut sum = 0;
        let squares = each(7, &tasks, |n| Ok(n * n), |n| sum += n).unwrap();
        assert_eq!(squares, tasks.iter().map(|n| n * n).collect::<Vec<_>>());
        assert_eq!(sum, squares.iter().sum::<u64>());
        assert!(each(2, &[0; 0], |n| Ok(*n), |_| ()).unwrap().is_empty());
    }

    #[test]
    fn the_first_failure_ends_it() {
        let worked = AtomicUsize::new(0);
        let work = |n: &u32| {
            worked.fetch_add(1, Ordering::Relaxed);
            match n {
                3 => Err(Error::new(Kind::Server, "three")),
                _ => Ok(()),
            }
        };
        let tasks: Vec<_> = (0..1000).collect();
        assert_eq!(each(1, &tasks, work, |()| ()).unwrap_err().to_string(), "three");
        assert_eq!(worked.into_inner(), 4);
    }
}
