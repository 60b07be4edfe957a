use super::*;
use crate::backup::guarded::Foreseen as Guarded;
use crate::clients::{Connected, Origin};
use crate::config::Method;
use crate::postgres::initdb::Initialisation;
use crate::postgres::occupant::{Container, Occupant};
use crate::postgres::{Contents, DataDirectory, Libraries, Major, ServerFacts};
use crate::systemd::Shadowed;
use crate::upgrade::configuration::Foreseen;
use crate::upgrade::facts::space::tests::space;
use crate::upgrade::facts::units::Units;
use crate::upgrade::facts::{CatalogSetting, Cluster, Contained, LooseKey, Obstacle, Shared, Tried};
use crate::upgrade::records::rehearsal::tests::rehearsal;

fn facts() -> Facts {
    Facts {
        data_directory: DataDirectory {
            path: "/d/data".into(),
            contents: Contents::Cluster(Major(15)),
            owner: None,
            is_mount_point: false,
            postmaster: None,
        },
        occupant: None,
        is_symlink: false,
        data_bytes: 3_000_000_000,
        installed: vec![Major(15), Major(17)],
        target: Some(Major(17)),
        trust_owners: false,
        cluster: Some(Cluster {
            foreseen: Vec::new(),
            server: ServerFacts {
                version: "15.18".into(),
                version_num: 150_018,
                system_identifier: "1".into(),
                data_checksums: true,
            },
            databases: vec![],
            shared: shared(),
            contents: vec![(
                "homeserver".into(),
                Contained { extensions: vec!["plpgsql".into()], ..Contained::default() },
            )],
            initialisation: Initialisation::default(),
            libraries: Libraries::default(),
        }),
        target_extensions: ["plpgsql".to_owned()].into(),
        configuration: vec![],
        settings_gone: vec![],
        space: space([10_000_000_000; 3], [1; 3]),
        method: None,
        programs_together: true,
        replication_refused: None,
        rehearsal: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        dump_directory_problem: None,
        socket_directory: "/run/matrix-postgres".into(),
        system_identifier: Some("1".into()),
        registered: None,
        contained: None,
        remnants: Vec::new(),
        server_unit: "matrix-postgres.service".into(),
        keep_path: ("/d/kept".into(), false),
        misplaced: Vec::new(),
        units: Ok(Units {
            missing: vec![],
            shadowed: vec![],
            clients: vec!["matrix-synapse.service".into()],
            found: vec![],
            connected: Ok(vec![]),
        }),
        trial: None,
        tried: Some(Tried::default()),
    }
}

fn shared() -> Shared {
    Shared {
        wal_level: "replica".into(),
        free_wal_senders: 10,
        free_replication_slots: 10,
        ..Shared::default()
    }
}

fn occupant(unit: &str, is_in_container: bool) -> Occupant {
    let container = Container { name: Some("pg".into()), program: Some("docker".into()) };
    let container = is_in_container.then_some(container);
    Occupant { pid: Some(7), unit: Some(unit.to_owned()), container, program: None }
}

fn units(facts: &mut Facts) -> &mut Units {
    facts.units.as_mut().unwrap()
}

fn cluster(facts: &mut Facts) -> &mut Cluster {
    facts.cluster.as_mut().unwrap()
}

#[test]
fn a_homeserver_as_it_should_be_can_be_upgraded() {
    let report = check(&facts());
    assert!(report.is_possible(), "{report}");
    assert_eq!(
        report.to_string(),
        "upgrade from PostgreSQL 15 to 17: possible\n\n\
         fact     method online: pg_upgrade on a physical copy that is kept in sync by streaming replication; the downtime does \
         not depend on the size\n\
         fact     not rehearsed: the downtime is unknown\n         \
         HINT: matrix-postgres-upgrade rehearse tests the upgrade on a copy, while the homeserver runs\n\
         fact     data directory: 3.00 GB; free space on its file system: 10.00 GB\n\
         fact     services to be stopped and started: matrix-synapse.service\n\
         fact     roles, settings, pg_hba.conf and the schema of every database were tested on an \
         empty cluster of the target version"
    );
}

#[test]
fn only_the_server_of_the_unit_can_be_upgraded() {
    for (unit, is_in_container, is_reached, expected) in [
        (
            "matrix-postgres.service",
            true,
            false,
            "/d/data is in use by the container pg of docker, which matrix-postgres.service runs (process 7), and not by \
             matrix-postgres.service",
        ),
        (
            "postgresql@15-main.service",
            false,
            true,
            "in use by postgresql@15-main.service (process 7), and not by matrix-postgres.service",
        ),
        (
            "matrix-postgres.service",
            false,
            false,
            "matrix-postgres.service (process 7) is running, but has no socket in /run/matrix-postgres",
        ),
    ] {
        let mut facts = facts();
        facts.cluster = facts.cluster.filter(|_| is_reached);
        facts.occupant = Some(occupant(unit, is_in_container));
        let report = check(&facts);
        assert!(report.blockers().any(|finding| finding.message.contains(expected)), "{expected}: {report}");
        assert!(!report.to_string().contains("is not running"), "{report}");
    }
    let mut facts = facts();
    facts.occupant = Some(occupant("matrix-postgres.service", false));
    assert!(check(&facts).is_possible());
}

#[test]
fn everything_that_would_stop_it_half_way_is_found_beforehand() {
    type Change = fn(&mut Facts);
    let cases: [(Change, &str); 24] = [
        (|facts| facts.target = Some(Major(15)), "current 15, target 15"),
        (|facts| facts.target = Some(Major(18)), "PostgreSQL 18, the target version, is not installed"),
        (|facts| facts.installed = vec![Major(17)], "PostgreSQL 15, the current version, is not installed"),
        (|facts| facts.is_symlink = true, "is a symbolic link"),
        (|facts| facts.data_directory.is_mount_point = true, "is a mount point"),
        (
            |facts| facts.misplaced = vec![("upgrade.keep_path", "/d/data/old".into())],
            "upgrade.keep_path is inside the data directory: /d/data/old",
        ),
        (|facts| facts.space = space([3_000_000_000; 3], [1; 3]), "needed about 4.37 GB"),
        (
            |facts| {
                facts.method = Some(Method::Dump);
                facts.dump_directory_problem = Some("the dump directory is open".into());
            },
            "is open",
        ),
        (
            |facts| {
                facts.method = Some(Method::Online);
                cluster(facts).shared.wal_level = "minimal".into();
            },
            "method online is not possible: wal_level is minimal, needed: replica",
        ),
        (
            |facts| {
                facts.method = Some(Method::Dump);
                let obstacles = vec!["role \"a\" owns table s.t, and may not use schema s".into()];
                let foreseen = Guarded { tables: vec!["s.t".into()], obstacles };
                cluster(facts).foreseen = vec![("homeserver".into(), foreseen)];
            },
            "database \"homeserver\" cannot be dumped and restored safely: role \"a\" owns table s.t",
        ),
        (|facts| units(facts).missing = vec!["x.service".into()], "unit x.service not found"),
        (|facts| facts.system_identifier = Some("2".into()), "uses another data directory than /d/data"),
        (|facts| facts.units = Err("no bus".into()), "could not ask systemd for its units: no bus"),
        (|facts| facts.cluster = None, "is not running"),
        (|facts| facts.target_extensions.clear(), "extension plpgsql of database \"homeserver\""),
        (|facts| cluster(facts).shared.synchronous_standbys = "*".into(), "every commit would wait"),
        (|facts| cluster(facts).shared.invalid_databases = vec!["x".into()], "was interrupted"),
        (|facts| cluster(facts).shared.prepared_transactions = 2, "prepared transactions: 2"),
        (|facts| cluster(facts).shared.closed_databases = vec!["x".into()], "does not allow connections"),
        (|facts| cluster(facts).shared.tablespaces = vec!["fast in /ssd".into()], "tablespace fast in /ssd"),
        (
            |facts| {
                facts.configuration =
                    vec![Foreseen::Blocker { message: "library x".into(), hint: "install it".into() }];
            },
            "library x",
        ),
        (
            |facts| {
                let name = "old_snapshot_threshold".into();
                facts.settings_gone = vec![(CatalogSetting { name, ..CatalogSetting::default() }, None)];
            },
            "setting old_snapshot_threshold (ALTER ROLE ALL SET)",
        ),
        (
            |facts| {
                let setting = CatalogSetting {
                    role: Some("old".into()),
                    name: "standard_conforming_strings".into(),
                    value: "off".into(),
                    ..CatalogSetting::default()
                };
                facts.settings_gone = vec![(setting, Some("it is not supported".into()))];
            },
            "the target version rejects standard_conforming_strings = off (ALTER ROLE \"old\" SET): it is not",
        ),
        (
            |facts| {
                units(facts).shadowed =
                    vec![Shadowed { unit: "matrix-postgres.service".into(), file: "/etc/x".into() }];
            },
            "overridden by /etc/x",
        ),
    ];
    for (change, expected) in cases {
        let mut facts = facts();
        change(&mut facts);
        let report = check(&facts);
        assert!(!report.is_possible(), "{expected}");
        let blocker = &report.findings[0];
        assert!(blocker.message.contains(expected), "{expected}: {report}");
        assert!(blocker.hint.is_some(), "{expected}");
    }
}

#[test]
fn who_is_cut_off_is_known_and_how_long_it_may_take() {
    let mut facts = facts();
    let connected = |who: &str, origin: Option<Origin>| Connected {
        who: who.into(),
        origins: origin.into_iter().collect(),
        count: 3,
    };
    let unit = |name: &str| Some(Origin::Unit(name.to_owned()));
    let container = Origin::Container { name: "bot".into(), program: "docker".into() };
    units(&mut facts).connected = Ok(vec![
        connected("synapse@homeserver (unnamed)", unit("matrix-synapse.service")),
        connected("admin@homeserver (x)", unit("session-3.scope")),
        connected("other@homeserver (fdw)", unit("matrix-postgres.service")),
        connected("bot@homeserver (bot)", Some(container)),
        connected("postgres@postgres (psql)", None),
    ]);
    facts.method = Some(Method::Dump);
    facts.trial = Some((jiff::Timestamp::UNIX_EPOCH, 40));
    let text = check(&facts).to_string();
    for expected in [
        "fact     connected: synapse@homeserver (unnamed), sessions: 3, from matrix-synapse.service\n",
        "warning  connected: admin@homeserver (x), sessions: 3, from session-3.scope: will be disconnected",
        "HINT: stop it by hand; or add session-3.scope to clients.units",
        "warning  connected: bot@homeserver (bot), sessions: 3, from the container bot of docker, which no unit runs: will be",
        "HINT: docker stop bot, and start it again afterwards",
        "fact     connected: other@homeserver (fdw), sessions: 3, from matrix-postgres.service\n",
        "warning  connected: postgres@postgres (psql), sessions: 3: will be disconnected",
        "expected downtime: about 40 s",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn only_a_rehearsal_of_such_an_upgrade_is_one() {
    let mut facts = facts();
    facts.data_bytes = 1_000_000_000;
    facts.rehearsal = Some(rehearsal());
    let text = check(&facts).to_string();
    assert!(text.contains("succeeded; downtime 3.5 s expected") && !text.contains("not rehearsed"), "{text}");
    facts.method = Some(Method::Dump);
    let text = check(&facts).to_string();
    for expected in [
        "fact     the rehearsal at 1970-01-01T00:00:00Z is outdated: it was by method online",
        "fact     not rehearsed: the downtime is unknown",
    ] {
        assert!(text.contains(expected) && !text.contains("succeeded"), "{expected}: {text}");
    }
}

#[test]
fn that_it_is_not_known_who_is_connected_is_told() {
    let mut facts = facts();
    units(&mut facts).connected = Err("ss failed".into());
    let report = check(&facts);
    assert!(report.is_possible(), "{report}");
    let finding = report.findings.iter().find(|finding| finding.weight == Weight::Warning).unwrap();
    assert_eq!(finding.message, "could not determine which units are connected to the server: ss failed");
}

#[test]
fn what_only_needs_to_be_known_stops_nothing() {
    let mut facts = facts();
    facts.configuration = vec![
        Foreseen::Change("the setting wal_keep_segments is commented out".into()),
        Foreseen::Note("my.conf is carried".into()),
    ];
    units(&mut facts).clients.clear();
    facts.keep_path.1 = true;
    cluster(&mut facts).shared = Shared {
        md5_roles: vec!["synapse".into()],
        scram_only: true,
        replication_slots: vec!["standby".into()],
        ..shared()
    };
    cluster(&mut facts).initialisation.differing = vec!["template1".into()];
    let report = check(&facts);
    assert!(report.is_possible(), "{report}");
    let text = report.to_string();
    for expected in [
        "warning  the setting wal_keep_segments",
        "fact     my.conf",
        "\"template1\" has another",
        "slot standby",
        "have md5 passwords: synapse",
        "no service of clients.units is running",
        "already exists",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_target_that_is_old_and_passwords_that_are_too_are_told() {
    let mut facts = facts();
    let warned = |facts: &Facts, expected: &str| {
        let report = check(facts);
        let mut warnings = report.warnings();
        warnings.any(|finding| finding.message.contains(expected) && finding.hint.is_some())
    };
    facts.now = "2026-11-28T00:00:00Z".parse().unwrap();
    cluster(&mut facts).shared.md5_roles = vec!["synapse".into(), "bridge".into()];
    let (support, md5) =
        ("out of support since 2026-11-12", "md5 passwords are deprecated in the target version");
    assert!(!warned(&facts, support) && !warned(&facts, md5));
    facts.target = Some(Major(14));
    assert!(warned(&facts, support) && !warned(&facts, md5));
    facts.target = Some(Major(19));
    assert!(
        !warned(&facts, support)
            && warned(&facts, md5)
            && warned(&facts, "warns at each login: synapse, bridge")
    );
}

#[test]
fn where_no_copy_can_follow_the_method_is_another_and_says_why() {
    type Change = fn(&mut Facts);
    let cases: [(Change, &str); 9] = [
        (|facts| facts.programs_together = false, "not on the same host"),
        (|facts| facts.socket_directory = "/run/my server".into(), "a path such as /run/my server"),
        (|facts| facts.data_directory.path = "/my data".into(), "a path such as /my data"),
        (|facts| cluster(facts).shared.wal_level = "minimal".into(), "wal_level is minimal, needed: replica"),
        (
            |facts| cluster(facts).shared.free_wal_senders = 2,
            "free WAL sender slots (max_wal_senders): 2, needed: ",
        ),
        (
            |facts| cluster(facts).shared.free_replication_slots = 0,
            "free replication slots (max_replication_slots): 0, needed: ",
        ),
        (|facts| facts.replication_refused = Some("no pg_hba.conf entry".into()), "no pg_hba.conf entry"),
        (|facts| cluster(facts).contents[0].1.unlogged_bytes = 100_000_000, "have 100.00 MB"),
        (|facts| facts.data_directory.contents = Contents::Cluster(Major(11)), "PostgreSQL 11 is too old"),
    ];
    for (change, expected) in cases {
        let mut facts = facts();
        facts.installed.insert(0, Major(11));
        change(&mut facts);
        let report = check(&facts);
        assert_eq!(report.method, Method::Dump, "{expected}");
        assert!(report.is_possible(), "{report}");
        let text = report.to_string();
        let line = text.lines().find(|line| line.contains("method dump")).unwrap_or_default();
        assert!(line.starts_with("warning") && line.contains(expected), "{text}");
    }
}

#[test]
fn what_only_a_superuser_could_load_stands_in_the_way_of_a_dump_alone() {
    let guarded = || {
        let mut facts = facts();
        let foreseen = Guarded { tables: vec![], obstacles: vec!["an aggregate".into()] };
        cluster(&mut facts).foreseen = vec![("homeserver".into(), foreseen)];
        facts
    };
    assert!(check(&guarded()).is_possible(), "method online");
    let by_dump = Facts { method: Some(Method::Dump), ..guarded() };
    let blocker = check(&by_dump).blockers().next().cloned().unwrap();
    assert_eq!(blocker.hint.as_deref(), Some("upgrade.method = \"online\", or --method online"));
    assert!(check(&Facts { trust_owners: true, ..by_dump.clone() }).is_possible());
    let without_online = Facts { programs_together: false, method: None, ..by_dump };
    let blocker = check(&without_online).blockers().next().cloned().unwrap();
    assert!(blocker.hint.is_some_and(|hint| hint.contains("upgrade.trust_owners")));
}

#[test]
fn auto_and_hints_lead_to_a_method_that_goes_only() {
    type Change = fn(&mut Facts, &mut Tried);
    let obstacle = |message: &str, hint: Option<&str>| Obstacle {
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
    };
    let report = |method: Option<Method>, change: Change| {
        let (mut facts, mut tried) = (facts(), Tried::default());
        facts.method = method;
        change(&mut facts, &mut tried);
        facts.tried = Some(tried);
        check(&facts)
    };
    let aclitem: Change = |_, tried| {
        tried.online.push(Obstacle { message: "aclitem in public.r".into(), hint: None });
    };
    let told = report(None, aclitem);
    assert!(told.is_possible() && told.method == Method::Dump, "{told}");
    assert!(told.to_string().contains("warning  method dump, whose downtime grows"), "{told}");
    let told = report(Some(Method::Online), aclitem).to_string();
    assert!(told.contains("BLOCKER  method online is not possible: aclitem in public.r\n         HINT: upgrade.method = \"dump\""), "{told}");
    // Where neither goes, no hint says that one does.
    let neither: Change = |_, tried| {
        tried.online.push(Obstacle { message: "aclitem".into(), hint: None });
        tried.dump.push(Obstacle { message: "order of columns".into(), hint: None });
    };
    for method in [None, Some(Method::Online), Some(Method::Dump)] {
        let told = report(method, neither);
        assert!(!told.is_possible() && !told.to_string().contains("--method"), "{told}");
        let is_told = |text: &str| told.to_string().contains(text);
        assert_eq!(is_told("method online is not possible: aclitem"), method != Some(Method::Dump), "{told}");
        assert_eq!(is_told("method dump is not possible: order"), method != Some(Method::Online), "{told}");
    }
    let told =
        report(Some(Method::Dump), |_, tried| tried.dump.push(Obstacle { message: "x".into(), hint: None }));
    assert!(told.to_string().contains("or --method online"), "{told}");
    // What a dump has no room for goes neither.
    let told = report(Some(Method::Online), |facts, tried| {
        facts.dump_directory_problem = Some("it is open".into());
        tried.online.push(Obstacle { message: "aclitem".into(), hint: None });
    });
    assert!(!told.to_string().contains("--method dump"), "{told}");
    let loose = |is_violated: Option<bool>| {
        let mut key = LooseKey::default();
        (key.name, key.is_violated) = ("b_id_fkey of b".into(), is_violated);
        let mut facts = facts();
        facts.method = Some(Method::Dump);
        facts.cluster.as_mut().unwrap().contents[0].1.loose_keys.push(key);
        check(&facts)
    };
    assert!(loose(None).is_possible() && loose(Some(false)).is_possible());
    let told = loose(Some(true)).to_string();
    assert!(
        told.contains(
            "method dump is not possible: database \"homeserver\": rows violate foreign key b_id_fkey of b"
        ),
        "{told}"
    );
    let mut apart = facts();
    apart.cluster.as_mut().unwrap().contents[0].1.partitions_apart.push("public.part".into());
    assert_eq!(check(&apart).method, Method::Dump);
    let mut both = facts();
    both.tried = Some(Tried { refused: vec![obstacle("no", Some("do"))], ..Tried::default() });
    assert!(check(&both).to_string().contains("BLOCKER  no\n         HINT: do"));
}

#[test]
fn a_name_that_pg_upgrade_ends_at_goes_by_dump() {
    let mut facts = facts();
    cluster(&mut facts).databases.push(crate::postgres::Database {
        name: "a\nb".into(),
        owner: "x".into(),
        encoding: "UTF8".into(),
        collate: "C".into(),
        ctype: "C".into(),
        size: 1,
    });
    let told = check(&facts);
    assert!(told.is_possible() && told.method == Method::Dump, "{told}");
    assert!(told.to_string().contains("newlines in names: database \"a\\nb\""), "{told}");
}

#[test]
fn what_was_not_tried_is_not_possible() {
    let mut facts = facts();
    facts.tried = None;
    assert!(is_to_be_tried(&facts) && !check(&facts).is_possible());
    cluster(&mut facts).shared.prepared_transactions = 1;
    assert!(!is_to_be_tried(&facts), "blockers come first");
    cluster(&mut facts).shared = Shared { template0_open: true, ..shared() };
    assert!(check(&facts).to_string().contains("ALTER DATABASE template0 ALLOW_CONNECTIONS false"));
}
