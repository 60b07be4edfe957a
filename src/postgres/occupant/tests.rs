use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A process as the process file system shows it.
fn process(root: &Path, pid: i32, name: &str, works_in: &str, files: &[(&str, &str)]) {
    let process = root.join("proc").join(pid.to_string());
    fs::create_dir_all(&process).unwrap();
    fs::write(process.join("comm"), format!("{name}\n")).unwrap();
    symlink(root.join(works_in), process.join("cwd")).unwrap();
    for (file, text) in files {
        fs::write(process.join(file), text).unwrap();
    }
}

fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["proc", "data", "other"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    root
}

fn look(root: &Path) -> Option<Occupant> {
    Occupant::here(&root.join("data"), &root.join("proc")).unwrap()
}

#[test]
fn a_server_is_found_by_where_it_works_whatever_its_file_says() {
    let root = machine();
    let root = root.path();
    fs::write(root.join("data/postmaster.pid"), "1\n/var/lib/postgresql/data\n").unwrap();
    process(root, 1, "systemd", "other", &[]);
    process(root, 7, "postgres", "other", &[]);
    process(root, 8, "bash", "data", &[]);
    assert_eq!(look(root), None);
    let apart = "PPid:\t60\nNSpid:\t4711\t1\n";
    let group = format!("0::/system.slice/docker-{ID}.scope\n");
    process(root, 4712, "postgres", "data", &[("status", "PPid:\t4711\n"), ("cgroup", &group)]);
    let words = "postgres\0-c\0max_connections=200\0";
    process(root, 4711, "postgres", "data", &[("status", apart), ("cgroup", &group), ("cmdline", words)]);
    let found = look(root).unwrap();
    let container = Container { name: Some("001122334455".into()), program: Some("docker".into()) };
    let expected = Occupant {
        pid: Some(4711),
        unit: None,
        container: Some(container),
        program: Some("postgres".into()),
    };
    assert_eq!(found, expected);
    let report = found.refusal(Path::new("/d/data")).report();
    assert_eq!(
        report,
        "/d/data is in use by the container 001122334455 of docker (process 4711, postgres)\n\
         HINT: docker stop 001122334455"
    );
    assert!(!found.is_of("matrix-postgres.service"));
}

#[test]
fn a_unit_is_named_with_what_it_runs() {
    let root = machine();
    let root = root.path();
    let group = "0::/system.slice/matrix-postgres.service\n";
    process(
        root,
        9,
        "postgres",
        "data",
        &[("status", "NSpid:\t9\n"), ("cgroup", group), ("cmdline", "/x/postgres\0")],
    );
    let found = look(root).unwrap();
    assert!(found.is_of("matrix-postgres.service") && !found.is_of("other.service"));
    assert_eq!(found.to_string(), "matrix-postgres.service (process 9)");
    assert_eq!(found.hint(), "systemctl stop matrix-postgres.service");
    // The same in a container that the unit has in its own group.
    let group = format!("0::/system.slice/matrix-postgres.service/libpod-payload-{ID}\n");
    fs::write(root.join("proc/9/cgroup"), group).unwrap();
    let found = look(root).unwrap();
    assert!(!found.is_of("matrix-postgres.service"));
    assert_eq!(
        found.to_string(),
        "the container 001122334455 of podman, which matrix-postgres.service runs (process 9)"
    );
}

#[test]
fn by_hand_in_a_namespace_or_unseen() {
    let root = machine();
    let root = root.path();
    process(root, 9, "postgres", "data", &[("cmdline", "/x/postgres\0-D\0/data\0")]);
    assert_eq!(look(root).unwrap().to_string(), "another server (process 9, /x/postgres)");
    fs::write(root.join("proc/9/status"), "NSpid:\t9\t1\n").unwrap();
    let found = look(root).unwrap();
    assert_eq!(found.to_string(), "a server in a namespace of its own (process 9, /x/postgres)");
    assert!(found.hint().starts_with("ps -f 9 shows it"));
    fs::remove_dir_all(root.join("proc/9")).unwrap();
    assert_eq!(look(root), None);
    let directory = Directory::open(&root.join("data")).unwrap();
    let claim = Claim::take(&directory).unwrap();
    let found = look(root).unwrap();
    assert_eq!(found.to_string(), "another server, which cannot be seen from here");
    drop(claim);
    assert_eq!(look(root), None);
    assert_eq!(Occupant::here(&root.join("none"), &root.join("proc")).unwrap(), None);
}

#[test]
fn the_unit_of_a_container_is_that_of_what_has_started_it() {
    let inspected = format!(
        r#"[{{"Id": "{ID}", "Name": "/matrix-postgres", "State": {{"Pid": 4711}}, "Config": {{}}}}]"#
    );
    let container = containers::Container::parse(&inspected).unwrap().pop().unwrap();
    let client = |words: &str, unit: &str| Process {
        name: "docker".into(),
        words: words.split(' ').map(str::to_owned).collect(),
        group: super::super::control_group::ControlGroup::parse(&format!("0::/system.slice/{unit}")),
        ..Process::default()
    };
    let seen = [
        client("docker logs -f matrix-postgres", "logs.service"),
        client("docker start --attach matrix-postgres-2", "two.service"),
        client("/usr/bin/docker start --attach matrix-postgres", "matrix-postgres.service"),
    ];
    let of = |seen: &[Process]| Occupant::of_container("docker", &container, seen).to_string();
    let by_unit =
        "the container matrix-postgres of docker, which matrix-postgres.service runs (process 4711)";
    assert_eq!(of(&seen), by_unit);
    assert_eq!(of(&[client("docker run --rm --name=matrix-postgres x", "matrix-postgres.service")]), by_unit);
    assert_eq!(of(&seen[..2]), "the container matrix-postgres of docker (process 4711)");
}
