//! Subscriptions that follow another server, and that an upgrade leaves switched off: a dump does not say that they were on,
//! and pg_upgrade keeps them from 17 on only (pg_dump(1), "Notes"; pg_upgrade(1)).

use std::collections::BTreeMap;

use crate::backup::quoted;
use crate::config::Method;
use crate::postgres::{Major, identifier};
use crate::upgrade::facts::Cluster;

/// The first version whose subscriptions pg_upgrade carries over as they are.
const KEPT: Major = Major(17);

/// Those that will be switched off, by database.
pub fn switched_off(cluster: &Cluster, method: Method, from: Major) -> BTreeMap<String, Vec<String>> {
    if method == Method::Online && from >= KEPT {
        return BTreeMap::new();
    }
    let with = cluster.contents.iter().filter(|(_, contained)| !contained.subscriptions.is_empty());
    with.map(|(name, contained)| (name.clone(), contained.subscriptions.clone())).collect()
}

/// The command that brings one back; the rows that are there are not copied once more.
pub fn command(database: &str, subscription: &str) -> String {
    let name = identifier(subscription);
    format!(
        "matrix-postgres-cli -d {} -c {} -c {}",
        quoted(database),
        quoted(&format!("ALTER SUBSCRIPTION {name} ENABLE")),
        quoted(&format!("ALTER SUBSCRIPTION {name} REFRESH PUBLICATION WITH (copy_data = false)"))
    )
}

/// All of them, a command each.
pub fn commands(off: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    off.iter().flat_map(|(database, names)| names.iter().map(move |name| command(database, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_command() {
        let off = [("homeserver".to_owned(), vec!["s".to_owned(), "the 2nd".to_owned()])].into();
        let commands = super::commands(&off);
        assert_eq!(commands.len(), 2);
        assert!(commands[1].starts_with(
            "matrix-postgres-cli -d homeserver -c 'ALTER SUBSCRIPTION \"the 2nd\" ENABLE' -c 'ALTER SUBSCRIPTION"
        ));
    }

    #[test]
    fn a_name_is_nothing_else_to_a_shell() {
        for name in ["$(id)", "`id`", "it's", "a b", "-x", "a\nb", "\"", "é"] {
            let command = command(name, name).replacen("matrix-postgres-cli", "printf '%s\\0'", 1);
            let printed = std::process::Command::new("sh").args(["-c", &command]).output().unwrap().stdout;
            let printed = String::from_utf8(printed).unwrap();
            let words: Vec<_> = printed.split('\0').collect();
            let enabled = format!("ALTER SUBSCRIPTION {} ENABLE", identifier(name));
            assert_eq!(words[..4], ["-d", name, "-c", &enabled], "{command}");
        }
    }
}
