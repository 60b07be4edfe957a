//! Defaults that are others in a later version, of settings that a homeserver feels. All others of a version are in the
//! release notes.

use super::tree::Tree;
use crate::postgres::Major;

struct Default {
    since: Major,
    name: &'static str,
    was: &'static str,
    is: &'static str,
    /// What comes of it.
    so: &'static str,
}

/// As `boot_val` in pg_settings has them.
const OTHERS: [Default; 3] = [
    Default {
        since: Major(19),
        name: "jit",
        was: "on",
        is: "off",
        so: "long analytical queries may take longer, and short queries are planned faster",
    },
    Default {
        since: Major(19),
        name: "default_toast_compression",
        was: "pglz",
        is: "lz4",
        so: "new TOAST values are compressed faster; existing ones stay as they are",
    },
    Default {
        since: Major(19),
        name: "log_lock_waits",
        was: "off",
        is: "on",
        so: "sessions that wait for a lock longer than deadlock_timeout are logged",
    },
];

/// Of the 64 that were asked for, 18 had room for nearly twice as many.
const LOCKS: (Major, &str) = (Major(19), "max_locks_per_transaction");

/// What changes for whoever has not said how he wants it, and for whoever has, if the meaning has changed; a sentence each.
pub(super) fn changed(tree: &Tree, from: Major, to: Major) -> Vec<String> {
    let crossed = |since: Major| from < since && to >= since;
    let others =
        OTHERS.iter().filter(|other| crossed(other.since) && tree.effective(other.name).is_none()).map(
            |Default { name, was, is, so, .. }| format!("default of {name} changed from {was} to {is}: {so}"),
        );
    let (since, name) = LOCKS;
    let locks = tree.effective(name).filter(|_| crossed(since)).map(|value| {
        format!(
            "{name} = {value} is kept, and allows about half as many locks as before: the default is 128 now, \
             and was 64"
        )
    });
    others.chain(locks).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::Found;
    use super::*;

    #[test]
    fn what_the_administrator_has_set_has_no_default() {
        let mut tree = Tree::default();
        let told = |tree: &Tree, from, to| changed(tree, Major(from), Major(to));
        assert_eq!(told(&tree, 13, 18).len() + told(&tree, 19, 20).len(), 0);
        let all = told(&tree, 15, 19);
        assert!(all.len() == 3 && all[0].starts_with("default of jit changed from on to off: "), "{all:?}");
        for (name, value) in [("JIT", "on"), ("max_locks_per_transaction", "64")] {
            tree.settings.push(Found {
                file: "postgresql.conf".into(),
                line: 1,
                name: name.into(),
                value: value.into(),
            });
        }
        let all = told(&tree, 18, 19);
        assert!(all.len() == 3 && all.iter().all(|told| !told.contains("jit")), "{all:?}");
        assert!(all[2].starts_with("max_locks_per_transaction = 64 is kept, and allows"), "{all:?}");
    }
}
