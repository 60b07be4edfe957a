//! What the program says: log lines and progress while it works, notices afterwards. The library
//! itself never prints.

pub mod event;
pub mod log;
pub mod notice;
mod plain;
mod table;
mod terminal;
mod unit;

pub use indicatif::{DecimalBytes, HumanCount};
pub use plain::{one_line, plain};
pub use table::columns;
pub use terminal::Bar;
pub use unit::Status;

/// Somebody who wants to know how far the work is.
pub trait Progress {
    /// A part of the work begins; `total` is about how many bytes it will take.
    fn begin(&mut self, what: &str, total: Option<u64>);
    /// So many bytes of it are done. Called often, and cheap.
    fn advance(&mut self, done: u64);
    /// The part has ended.
    fn end(&mut self);
}

/// Nobody is told.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, _done: u64) {}
    fn end(&mut self) {}
}

/// Progress as it fits the place: a bar on a terminal, else systemd's status line.
pub fn progress(on_terminal: bool) -> Box<dyn Progress> {
    match on_terminal {
        true => Box::new(Bar::default()),
        false => Box::new(Status::default()),
    }
}
