//! Facts → place. Pure.

use super::Place;
use super::cluster::{Cluster, Packaging};
use super::container::Container;
use super::facts::{Candidate, Facts, Unasked};
use super::homeserver::Database;
use crate::config::{ServerKind, Settings};
use crate::postgres::Contents;

/// Where the lines go that settle what cannot be told.
const FILE: &str = "/etc/matrix-postgres/config.toml";

/// Where the server is: what is written counts first, then where the homeserver's data certainly are. That a package has
/// made a cluster means nothing: Debian's do so on every machine.
pub fn decide(settings: &Settings, facts: &Facts) -> Place {
    match settings.server.kind {
        Some((ServerKind::Own, key)) => Place::Own { why: says(key) },
        Some((ServerKind::Debian, key)) => written(settings, facts, key),
        Some((ServerKind::External, key)) => external(settings, key),
        Some((ServerKind::Container, key)) => match &facts.container {
            Some(found) => container(found, facts, says(key)),
            None => Place::Unknown {
                why: format!("{}, and the file of {} starts no container", says(key), settings.server.unit),
                hint: format!("server.unit = \"NAME.service\" in {FILE}, the unit that runs it"),
            },
        },
        None => found(settings, facts),
    }
}

fn says(key: &str) -> String {
    match key {
        "server.kind" => "server.kind says so".to_owned(),
        key => format!("{key} is configured"),
    }
}

/// The server that `server.host` names.
fn external(settings: &Settings, key: &str) -> Place {
    let host = settings.server.remote.as_ref().map(|remote| remote.host.clone()).unwrap_or_default();
    Place::External { host, port: settings.server.port, homeserver: None, why: says(key) }
}

/// The cluster of Debian's that is meant.
fn written(settings: &Settings, facts: &Facts, key: &str) -> Place {
    let debians: Vec<_> = facts
        .candidates
        .iter()
        .filter(|candidate| candidate.cluster.packaging == Packaging::Debian)
        .collect();
    let names = listed(&debians);
    if let Some(name) = &settings.server.cluster {
        let find = |name: &str| debians.iter().find(|candidate| candidate.cluster.name == name);
        let heir = |candidate: &&&Candidate| find(candidate.cluster.successor.as_deref()?);
        return match find(name).map(|candidate| (candidate, heir(&candidate))) {
            Some((_, Some(heir))) => {
                debian(heir, facts, format!("server.cluster is {name:?}, which was upgraded to it"))
            }
            Some((candidate, None)) => debian(candidate, facts, says("server.cluster")),
            None => Place::Unknown {
                why: format!("server.cluster is {name:?}, and pg_lsclusters shows {}", or_none(&names)),
                hint: one_of(&debians),
            },
        };
    }
    let debians: Vec<_> = debians.into_iter().filter(|candidate| candidate.is_current()).collect();
    match debians.as_slice() {
        [] => Place::Unknown {
            why: format!("{key} is set for one of Debian's clusters, and pg_lsclusters shows none"),
            hint: format!(
                "pg_createcluster makes one; for a server of our own: server.kind = \"own\" in {FILE}"
            ),
        },
        [only] => debian(only, facts, format!("{}, and it is the only one", says(key))),
        several => {
            let (database, of) = database(settings, facts);
            match of_homeserver(several, facts, &database).as_slice() {
                [one] => debian(one, facts, format!("{}, and it has {of}", says(key))),
                _ => Place::Unknown {
                    why: format!("pg_lsclusters shows {names}, and which of them has {of} is not certain"),
                    hint: one_of(&debians),
                },
            }
        }
    }
}

/// Nothing is written.
fn found(settings: &Settings, facts: &Facts) -> Place {
    let data = settings.data_directory.display();
    let candidates: Vec<_> = facts.candidates.iter().filter(|candidate| candidate.is_current()).collect();
    let is_there = |there: &&Candidate| there.cluster.data_directory == settings.data_directory;
    if let Some(there) = facts.candidates.iter().find(is_there) {
        return debian(there, facts, "data_directory is its directory".to_owned());
    }
    if let Some(found) = &facts.container {
        return container(found, facts, format!("{} starts it", found.unit_file.display()));
    }
    match facts.contents {
        None => return Place::Own { why: format!("{data} is there, and cannot be looked into") },
        Some(Contents::Cluster(major)) => {
            return Place::Own { why: format!("a cluster of PostgreSQL {major} is in {data}") };
        }
        Some(Contents::Foreign) => return Place::Own { why: format!("there is something in {data}") },
        Some(Contents::Missing | Contents::Empty) => {}
    }
    let (database, of) = database(settings, facts);
    let having = of_homeserver(&candidates, facts, &database);
    if let Some(place) = elsewhere(settings, facts, &having) {
        return place;
    }
    match having.as_slice() {
        [one] => return debian(one, facts, format!("it has {of}, and {data} holds no cluster")),
        [] => {}
        several => {
            return Place::Unknown {
                why: format!("{} all have {of}, and {data} holds no cluster", listed(several)),
                hint: one_of(several),
            };
        }
    }
    match candidates
        .iter()
        .find_map(|candidate| Some((&candidate.cluster, candidate.databases.as_ref().err()?)))
    {
        Some((cluster, unasked)) => Place::Unknown {
            why: format!("{data} holds no cluster, and {}", why_unasked(cluster, unasked)),
            hint: hint(cluster, unasked),
        },
        None => Place::Own { why: format!("nothing else is found, and {data} holds no cluster yet") },
    }
}

/// The playbook's homeserver knows the container by its name, or by a directory of its own.
fn container(container: &Container, facts: &Facts, why: String) -> Place {
    let is_its = |database: &&Database| match database.host.as_deref() {
        Some(host) => host == container.name || host.starts_with('/'),
        None => false,
    };
    let homeserver = facts.homeserver.as_ref().filter(is_its);
    let homeserver = homeserver.map(|database| (database.name.clone(), database.role.clone()));
    Place::Container { container: container.clone(), homeserver, why }
}

/// Where homeserver.yaml names another machine. A database of the same name in a cluster of this one may be what was left there.
fn elsewhere(settings: &Settings, facts: &Facts, having: &[&Candidate]) -> Option<Place> {
    let named = facts.homeserver.as_ref().filter(|_| !settings.server.is_database_named)?;
    let host = named.host_elsewhere(&facts.hostname)?;
    let why = format!(
        "{} names it, and {} holds no cluster",
        named.file.display(),
        settings.data_directory.display()
    );
    if having.is_empty() {
        let homeserver = Some(named.clone());
        return Some(Place::External { host: host.to_owned(), port: named.port, homeserver, why });
    }
    Some(Place::Unknown {
        why: format!(
            "{} names the host {host:?}, and {} of this machine has a database {:?}, too",
            named.file.display(),
            listed(having),
            named.name
        ),
        hint: format!("server.host = {host:?} or {}", one_of(having)),
    })
}

fn debian(candidate: &Candidate, facts: &Facts, why: String) -> Place {
    let cluster = candidate.cluster.clone();
    let homeserver = facts.homeserver.as_ref().filter(|database| database.is_on(&cluster));
    let homeserver = homeserver.map(|database| (database.name.clone(), database.role.clone()));
    Place::Debian { cluster, homeserver, why }
}

/// The homeserver's database, and what it is called in a sentence.
fn database(settings: &Settings, facts: &Facts) -> (String, String) {
    let configured = &settings.server.database;
    match facts.homeserver.as_ref().filter(|_| !settings.server.is_database_named) {
        Some(Database { name, file, .. }) => {
            (name.clone(), format!("the homeserver's database {name:?}, as {} names it", file.display()))
        }
        None => (configured.clone(), format!("the homeserver's database {configured:?}")),
    }
}

/// The clusters that have the homeserver's database; of several, the one that homeserver.yaml names.
fn of_homeserver<'a>(candidates: &[&'a Candidate], facts: &Facts, database: &String) -> Vec<&'a Candidate> {
    let has = |candidate: &Candidate| {
        candidate.databases.as_ref().is_ok_and(|databases| databases.contains(database))
    };
    let is_named = |candidate: &Candidate| {
        facts.homeserver.as_ref().is_some_and(|homeserver| homeserver.is_on(&candidate.cluster))
    };
    let having: Vec<_> = candidates.iter().copied().filter(|candidate| has(candidate)).collect();
    let named: Vec<_> = having.iter().copied().filter(|candidate| is_named(candidate)).collect();
    if named.is_empty() { having } else { named }
}

fn why_unasked(cluster: &Cluster, unasked: &Unasked) -> String {
    match unasked {
        Unasked::Needless | Unasked::Owner => {
            format!("the server of {cluster} tells only {}, its owner, which databases it has", cluster.owner)
        }
        Unasked::Down => {
            format!("the server of {cluster}, which may have the homeserver's database, does not run")
        }
        Unasked::Refused(reason) => {
            format!("the server of {cluster} does not tell which databases it has: {reason}")
        }
    }
}

fn hint(cluster: &Cluster, unasked: &Unasked) -> String {
    match unasked {
        Unasked::Needless | Unasked::Owner => super::SETUP.to_owned(),
        Unasked::Down | Unasked::Refused(_) => format!(
            "systemctl start {}; or, if the homeserver's data are elsewhere: server.kind = \"own\" in {FILE}",
            cluster.unit
        ),
    }
}

fn listed(candidates: &[&Candidate]) -> String {
    let names: Vec<_> = candidates.iter().map(|candidate| candidate.cluster.name.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn or_none(names: &str) -> &str {
    if names.is_empty() { "none" } else { names }
}

/// The line to write.
fn one_of(candidates: &[&Candidate]) -> String {
    let names: Vec<_> =
        candidates.iter().map(|candidate| format!("server.cluster = {:?}", candidate.cluster.name)).collect();
    match names.is_empty() {
        true => format!("server.kind = \"own\" in {FILE}"),
        false => format!("{} in {FILE}", names.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fragment;
    use crate::runtime::Engine;
    use crate::version::Major;
    use std::path::Path;

    fn settings(text: &str) -> Settings {
        Settings::from_fragment(Fragment::parse(text, Path::new("c.toml")).unwrap()).unwrap()
    }

    fn candidate(name: &str, port: u16, databases: Result<&[&str], Unasked>) -> Candidate {
        let (version, _) = name.split_once('/').unwrap();
        Candidate {
            cluster: Cluster {
                packaging: Packaging::Debian,
                name: name.into(),
                major: Major(version.parse().unwrap()),
                data_directory: format!("/var/lib/postgresql/{name}").into(),
                socket_directory: "/var/run/postgresql".into(),
                port,
                unit: format!("postgresql@{}.service", name.replace('/', "-")),
                owner: "postgres".into(),
                is_online: databases != Err(Unasked::Down),
                successor: None,
            },
            databases: databases.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    fn facts(candidates: Vec<Candidate>) -> Facts {
        Facts {
            contents: Some(Contents::Missing),
            candidates,
            homeserver: None,
            hostname: "here".into(),
            container: None,
        }
    }

    fn homeserver(name: &str, port: u16) -> Database {
        let file = "/etc/matrix-synapse/homeserver.yaml".into();
        Database {
            file,
            name: name.into(),
            role: Some("synapse_user".into()),
            host: None,
            port,
            sslrootcert: None,
        }
    }

    /// In short: which one, or the hint.
    fn decided(text: &str, facts: &Facts) -> String {
        match decide(&settings(text), facts) {
            Place::Own { .. } => "own".into(),
            Place::Debian { cluster, .. } => cluster.name,
            Place::Container { container, .. } => container.name,
            Place::External { host, port, .. } => format!("{host} {port}"),
            Place::Unknown { hint, .. } => hint,
        }
    }

    #[test]
    fn that_debian_has_made_a_cluster_means_nothing() {
        let empty = facts(vec![candidate("17/main", 5432, Ok(&["postgres", "template1"]))]);
        assert_eq!(decided("", &empty), "own");
        let with = facts(vec![candidate("17/main", 5432, Ok(&["homeserver", "postgres"]))]);
        assert_eq!(decided("", &with), "17/main");
        assert_eq!(decided("server.database = \"other\"", &with), "own");
        assert_eq!(decided("server.kind = \"own\"", &with), "own");
        assert_eq!(decided("socket_directory = \"/s\"", &with), "own");
    }

    #[test]
    fn data_of_our_own_stay_where_they_are() {
        let mut both = facts(vec![candidate("17/main", 5432, Err(Unasked::Needless))]);
        for contents in [Some(Contents::Cluster(Major(15))), Some(Contents::Foreign), None] {
            both.contents = contents;
            assert_eq!(decided("", &both), "own");
        }
        assert_eq!(decided("data_directory = \"/var/lib/postgresql/17/main\"", &both), "17/main");
        assert_eq!(decided("server.kind = \"debian\"", &both), "17/main");
    }

    #[test]
    fn homeserver_yaml_says_which_database_it_is_and_where() {
        let both = |databases: [&[&str]; 2]| {
            let [one, other] = databases;
            facts(vec![candidate("15/main", 5432, Ok(one)), candidate("17/main", 5433, Ok(other))])
        };
        let mut found = both([&["homeserver"], &["synapse"]]);
        assert_eq!(decided("", &found), "15/main");
        found.homeserver = Some(homeserver("synapse", 5433));
        assert_eq!(decided("", &found), "17/main");
        let place = decide(&settings(""), &found).settle(settings("")).unwrap();
        assert_eq!((place.server.database.as_str(), place.server.role.as_str()), ("synapse", "synapse_user"));
        assert_eq!((place.server.port, place.server.user.as_str()), (5433, "postgres"));
        found = both([&["synapse"], &["synapse"]]);
        assert!(
            decided("server.database = \"synapse\"", &found).starts_with("server.cluster = \"15/main\" or ")
        );
        found.homeserver = Some(homeserver("synapse", 5433));
        assert_eq!(decided("", &found), "17/main");
    }

    #[test]
    fn what_cannot_be_told_names_the_line_to_write() {
        let two = facts(vec![candidate("15/main", 5432, Ok(&[])), candidate("17/main", 5433, Ok(&[]))]);
        let line = "server.cluster = \"15/main\" or server.cluster = \"17/main\" in /etc/matrix-postgres/config.toml";
        assert_eq!(decided("server.kind = \"debian\"", &two), line);
        assert_eq!(decided("server.cluster = \"16/main\"", &two), line);
        assert_eq!(decided("server.cluster = \"17/main\"", &two), "17/main");
        assert!(decided("server.kind = \"debian\"", &facts(vec![])).contains("server.kind = \"own\""));
        let error = decide(&settings("server.cluster = \"16/main\""), &two).settle(settings("")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is not known where the server is: server.cluster is \"16/main\", and pg_lsclusters shows 15/main and 17/main"
        );
        assert!(decided("server.kind = \"container\"", &two).starts_with("server.unit = "));
    }

    #[test]
    fn a_host_that_is_not_this_machine_is_the_servers() {
        let mut found = facts(vec![candidate("17/main", 5432, Ok(&["postgres"]))]);
        assert_eq!(decided("server = { host = \"db\", port = 5433 }", &found), "db 5433");
        let on = |host: &str| Some(Database { host: Some(host.into()), ..homeserver("synapse", 5444) });
        found.homeserver = on("db.example.org");
        assert_eq!(decided("", &found), "db.example.org 5444");
        let settled = decide(&settings(""), &found).settle(settings("")).unwrap();
        assert_eq!((settled.server.superuser.as_str(), settled.server.port), ("synapse_user", 5444));
        assert_eq!(settled.server.remote.unwrap().sslmode.name(), "verify-full");
        for here in ["localhost", "127.0.0.1", "/run/postgresql", "here"] {
            found.homeserver = on(here);
            assert_eq!(decided("", &found), "own", "{here}");
        }
        // A copy of what has moved there, or what has not moved?
        found.homeserver = on("db.example.org");
        found.candidates = vec![candidate("17/main", 5432, Ok(&["synapse"]))];
        let line = decided("", &found);
        assert!(
            line.starts_with("server.host = \"db.example.org\" or server.cluster = \"17/main\""),
            "{line}"
        );
        assert_eq!(decided("server.cluster = \"17/main\"", &found), "17/main");
        found.contents = Some(Contents::Cluster(Major(17)));
        assert_eq!(decided("", &found), "own");
    }

    #[test]
    fn what_was_upgraded_is_the_cluster_that_came_of_it() {
        let mut old = candidate("15/main", 5433, Err(Unasked::Down));
        old.cluster.successor = Some("17/main".into());
        let both = facts(vec![old.clone(), candidate("17/main", 5432, Ok(&["homeserver"]))]);
        for text in ["", "server.kind = \"debian\"", "server.cluster = \"15/main\""] {
            assert_eq!(decided(text, &both), "17/main", "{text}");
        }
        // The other one was removed: what is named is meant.
        assert_eq!(decided("server.cluster = \"15/main\"", &facts(vec![old])), "15/main");
    }

    #[test]
    fn who_may_not_ask_is_told_who_may() {
        let owners = facts(vec![candidate("17/main", 5432, Err(Unasked::Owner))]);
        assert_eq!(decided("", &owners), "matrix-postgres setup");
        let down = facts(vec![candidate("17/main", 5432, Err(Unasked::Down))]);
        assert!(decided("", &down).starts_with("systemctl start postgresql@17-main.service"));
    }

    #[test]
    fn a_playbooks_container_is_seen() {
        let mut facts = facts(vec![]);
        facts.contents = Some(Contents::Cluster(Major(15)));
        facts.container = Some(Container {
            engine: Engine::Docker,
            name: "matrix-postgres".into(),
            image: "postgres:15".into(),
            network: Some("matrix".into()),
            unit: "matrix-postgres.service".into(),
            unit_file: "/u".into(),
            data_directory: Some("/matrix/postgres/data".into()),
            inside: Some("/data".into()),
            is_inside_named: true,
            run: super::super::image::Run { image: "postgres:15".into(), data: None },
            socket_directory: Some("/matrix/postgres/run".into()),
            environment: None,
            major: Some(Major(15)),
            owner: "matrix".into(),
            superuser: Some("root".into()),
            database: Some("main".into()),
        });
        assert_eq!(decided("", &facts), "matrix-postgres");
        assert_eq!(decided("server.kind = \"own\"", &facts), "own");
        let settled =
            |facts: &Facts, text: &str| decide(&settings(text), facts).settle(settings(text)).unwrap();
        let found = settled(&facts, "");
        assert_eq!((found.server.user.as_str(), found.server.superuser.as_str()), ("matrix", "root"));
        assert_eq!((found.server.database.as_str(), found.server.is_unit_named), ("main", true));
        assert_eq!(found.socket_directory, Path::new("/matrix/postgres/run"));
        let mut database = homeserver("synapse", 5432);
        for (host, expected) in
            [("localhost", "main"), ("matrix-postgres", "synapse"), ("/run-postgres", "synapse")]
        {
            database.host = Some(host.into());
            facts.homeserver = Some(database.clone());
            assert_eq!(settled(&facts, "").server.database, expected);
        }
        assert_eq!(settled(&facts, "server.database = \"x\"").server.database, "x");
    }
}
