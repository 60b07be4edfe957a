//! Two pieces of work at the same time.

use crate::error::{Error, Kind, Result};

/// Does one thing in another thread while it does the other one here; returns when both have ended.
pub fn together<There: Send, Here>(
    there: impl FnOnce() -> Result<There> + Send,
    here: impl FnOnce() -> Here,
) -> (Result<There>, Here) {
    std::thread::scope(|scope| {
        let there = scope.spawn(there);
        let here = here();
        (there.join().unwrap_or_else(|_| Err(Error::new(Kind::Bug, "a thread panicked"))), here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_a_panic_of_the_other_thread_is_an_error() {
        assert!(matches!(together(|| Ok(1), || 2), (Ok(1), 2)));
        let (there, here) = together::<(), _>(|| panic!("there"), || 2);
        assert_eq!((there.unwrap_err().kind(), here), (Kind::Bug, 2));
    }
}
