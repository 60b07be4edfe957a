//! pg_basebackup(1): a copy of a running cluster's files, with the log of what changes meanwhile.

use std::path::Path;

use super::Connection;
use crate::runtime::Call;

/// A copy in `directory`, which is not made to last. Where pages carry checksums they are verified. `rate` is in
/// kilobytes a second.
pub fn copy(connection: &Connection, directory: &Path, rate: Option<u64>) -> Call {
    let mut call = Call::new(
        "pg_basebackup",
        ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-password", "--dbname"],
    );
    call.arguments.push(connection.conninfo_for_replication().into());
    call.arguments.extend(rate.map(|rate| format!("--max-rate={}", rate.clamp(32, 1 << 20)).into()));
    call.arguments.push("--pgdata".into());
    call.arguments.push(directory.into());
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_stays_within_what_the_server_allows() {
        let connection = Connection::new(Path::new("/s"), 5432, "u");
        let rate = |rate| {
            let call = copy(&connection, Path::new("/copy"), rate);
            let text: Vec<_> = call.arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
            text.into_iter().find(|argument| argument.starts_with("--max-rate"))
        };
        assert_eq!(rate(None), None);
        assert_eq!(rate(Some(10_000)).as_deref(), Some("--max-rate=10000"));
        assert_eq!(rate(Some(1)).as_deref(), Some("--max-rate=32"));
        assert_eq!(rate(Some(u64::MAX)).as_deref(), Some("--max-rate=1048576"));
    }
}
