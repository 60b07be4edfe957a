//! The byte pipeline of a dump: source → digest → codec → sink, and the way back.
//!
//! [`pipeline::store`] writes what a producer sends into a file, [`pipeline::open_stored`] gives it back, and
//! both say how many bytes there were, stored and unpacked, with the SHA-256 of either. A backup is good when
//! the two answers are the same.
//!
//! Doors that are left open, with nothing behind them: a target off this machine is another [`sink::Sink`], and
//! encryption is a sink around a sink, between the codec and the file.

pub mod codec;
pub mod digest;
pub mod gzip;
pub mod pipeline;
pub mod sink;
#[cfg(test)]
mod testing;

pub use codec::{Codec, default_threads};
pub use digest::Digest;
pub use pipeline::{Stored, StoredReader, enlarge_pipe, into_error, open_stored, store};
