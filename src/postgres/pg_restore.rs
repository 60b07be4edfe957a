//! pg_restore(1).

use crate::runtime::Call;

/// Reads a custom dump from standard input to its end and prints the rows as SQL: what a restore would
/// send, without the definitions. Function bodies, which may contain anything, are not among it.
pub fn read_rows() -> Call {
    Call::new("pg_restore", ["--section=data", "--file=-"]).with_bulk_output()
}
