//! Settings that have another name, or another way to say the same, in a later version (the release notes'
//! sections "Migration"). What was removed without a successor is not here: the target itself names that.

use crate::postgres::Major;

const IO_WORKERS: &str = "io_max_workers";

/// How far what [`translated`] gives means what it did.
pub(super) fn remark(name: &str) -> &'static str {
    match name {
        IO_WORKERS => "which is the most of them; the server starts as many as it needs",
        _ => "which means the same",
    }
}

/// What `name = value` of version `from` is in version `to`, if it is not the same; `segment` is the size of a WAL
/// file in bytes.
pub(super) fn translated(
    name: &str,
    value: &str,
    from: Major,
    to: Major,
    segment: u64,
) -> Option<(&'static str, String)> {
    // A name that is there means what it did, whatever the old version; a value may have changed its meaning.
    let crosses = |major: u16| from.0 < major && to.0 >= major;
    let same = || value.to_owned();
    match name.to_ascii_lowercase().as_str() {
        // Release 13: "wal_keep_segments" counted files.
        "wal_keep_segments" if to.0 >= 13 => {
            let megabytes = value.parse::<u64>().ok()?.checked_mul(segment)? >> 20;
            Some(("wal_keep_size", format!("{megabytes}MB")))
        }
        // Release 13: the same disks take another number, for which it has the formula. 1000 is the most.
        "effective_io_concurrency" if crosses(13) => {
            let old = value.parse::<u32>().ok().filter(|old| (2..=1000).contains(old))?;
            let new: f64 = (1..=old).map(|n| f64::from(old) / f64::from(n)).sum();
            Some(("effective_io_concurrency", format!("{:.0}", new.min(1000.0))))
        }
        // Release 14: what it meant since version 10.
        "password_encryption" if crosses(14) && is_true(value) => {
            Some(("password_encryption", "md5".to_owned()))
        }
        "force_parallel_mode" if to.0 >= 16 => Some(("debug_parallel_query", same())),
        "logical_replication_mode" if to.0 >= 17 => Some(("debug_logical_replication_streaming", same())),
        // The old name is still taken; the new one is what the documentation explains.
        "ssl_ecdh_curve" if to.0 >= 18 => Some(("ssl_groups", same())),
        // There were always as many; now there are at most so many, and as few as io_min_workers.
        "io_workers" if to.0 >= 19 => Some((IO_WORKERS, same())),
        _ => None,
    }
}

/// As `parse_bool` has it: each word may be cut short.
fn is_true(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let short = |word: &str| !value.is_empty() && word.starts_with(&value);
    value == "1" || value == "on" || short("true") || short("yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_where_its_version_is_crossed() {
        let to = |name, value, from, to| translated(name, value, Major(from), Major(to), 16 << 20);
        let some = |name, value: &str| Some((name, value.to_owned()));
        assert_eq!(to("WAL_keep_segments", "32", 12, 17), some("wal_keep_size", "512MB"));
        assert_eq!(to("wal_keep_segments", "32", 11, 12), None);
        assert_eq!(to("wal_keep_segments", "many", 12, 17), None);
        assert_eq!(to("force_parallel_mode", "on", 15, 16), some("debug_parallel_query", "on"));
        assert_eq!(to("force_parallel_mode", "on", 13, 15), None);
        assert_eq!(to("password_encryption", "tr", 13, 14), some("password_encryption", "md5"));
        assert_eq!(to("password_encryption", "scram-sha-256", 13, 17), None);
        assert_eq!(to("ssl_ecdh_curve", "prime256v1", 17, 18), some("ssl_groups", "prime256v1"));
        assert_eq!(to("io_workers", "5", 18, 19), some("io_max_workers", "5"));
        assert_eq!(to("io_workers", "5", 17, 18), None);
        assert_eq!(
            (remark("io_max_workers") == remark("ssl_groups"), remark("x")),
            (false, "which means the same")
        );
        // The release notes: SELECT round(sum(OLD / n::float)) FROM generate_series(1, OLD) s(n)
        assert_eq!(to("effective_io_concurrency", "10", 12, 13), some("effective_io_concurrency", "29"));
        assert_eq!(to("effective_io_concurrency", "300", 12, 13), some("effective_io_concurrency", "1000"));
        assert_eq!(to("effective_io_concurrency", "1", 12, 13), None);
    }

    #[test]
    fn the_clusters_own_size_of_wal_files_counts() {
        let translated = translated("wal_keep_segments", "3", Major(12), Major(15), 64 << 20);
        assert_eq!(translated, Some(("wal_keep_size", "192MB".to_owned())));
    }
}
