//! The byte pipeline of a dump: source → digest → codec → sink, and the way back.
//!
//! [`store_into`] writes what a producer sends into a file, [`open()`] gives it back, and both
//! say how many bytes there were, stored and unpacked, with the SHA-256 of either. A backup is good when
//! the two answers are the same.
//!
//! Encryption ([`encryption::Encrypted`]) is a sink around a sink, between the codec and the file; what is to be
//! encrypted is read back before, by way of a [`tee()`].
//!
//! A file may consist of [`parts`] that unpack by themselves.
//!
//! A door that is left open, with nothing behind it: a target off this machine is another [`sink::Sink`].

pub mod codec;
mod decryption;
pub mod digest;
pub mod encryption;
pub mod gzip;
mod open;
pub mod parts;
pub mod pipeline;
pub mod sink;
mod source;
pub mod tee;
#[cfg(test)]
mod testing;

pub use codec::{Codec, Packing};
pub use digest::{Digest, Stored};
pub use encryption::{Encrypted, Encryption, Method};
pub use open::{open, open_stored};
pub use parts::{Borders, Part, PartReader, open_part, parts_of};
pub use pipeline::{store_in_parts, store_into};
pub use sink::{FileSink, Sink};
pub use source::{Packed, StoredReader, digest_of, enlarge_pipe, into_error, open_file, open_from_disk};
pub use tee::{Branch, tee};
