//! The ids of journal entries that programs and catalogs know (journalctl --catalog,
//! `packaging/common/matrix-postgres.catalog`). They never change.

/// A backup was made and read back whole.
pub const COMPLETE: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c01";
/// A run that was to make a backup failed.
pub const FAILED: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c02";
/// A backup is not what was written.
pub const DAMAGED: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c03";
/// Backups that no rule keeps were removed.
pub const PRUNED: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c04";
/// A notice did not reach whom it was for.
pub const NOT_DELIVERED: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c05";
/// Not all is well, although a backup was made.
pub const NOT_WELL: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c06";
/// The server runs on a newer major version.
pub const UPGRADED: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c07";
/// An upgrade failed, was refused, or was undone.
pub const NOT_UPGRADED: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c08";

/// A backup was sent to a target.
pub const SENT: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c09";
/// A target did not get what it should have.
pub const NOT_SENT: &str = "5b1c0d2f7a864e3c9d58a1e24f6b7c0a";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_explains_each() {
        let catalog = include_str!("../../packaging/common/matrix-postgres.catalog");
        let ids = [
            COMPLETE,
            FAILED,
            DAMAGED,
            PRUNED,
            NOT_DELIVERED,
            NOT_WELL,
            UPGRADED,
            NOT_UPGRADED,
            SENT,
            NOT_SENT,
        ];
        let explained: Vec<_> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(explained, ids);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
        assert_eq!(catalog.matches("Subject: ").count(), ids.len());
    }
}
