//! pg_dump's custom format as a stream: a table of contents, and then each table's rows, in its order.
//!
//! Reading it here is what lets a restore load several tables at the same time and build their indexes meanwhile,
//! from a file that is unpacked on the way and never lies on the disk: an archive of a few tables is the table of
//! contents with only these in it, and then their rows. The format is that of PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c` (`ReadHead`, `ReadToc`) and `pg_backup_custom.c`.
//!
//! - [`fields`]: numbers and texts
//! - [`header`]: how a dump begins
//! - [`toc`]: the table of contents
//! - [`entry`]: one of its entries
//! - [`order`]: what of it can be made when, and what can be missed
//! - [`evaluated`]: what of it makes the server run code of others
//! - [`body`]: the rows
//! - [`borders`]: where these begin, found while a dump passes
//! - [`binary`]: rows in COPY's binary format, which a server takes faster

mod binary;
mod body;
mod borders;
mod entry;
mod evaluated;
mod fields;
mod header;
mod order;
#[cfg(test)]
mod testing;
mod toc;

pub(super) use body::{Body, Rows, Size};
pub(super) use borders::EntryBorders;
pub(super) use fields::{LARGE_OBJECTS, ROWS, put_int};
pub(super) use order::Key;
pub(super) use toc::Toc;
