//! Legal databases that are odd, each in a file of `corpus`, taken through everything: backup, read back, trial, restore,
//! restore in place, upgrade by either method, rehearsals. Whether two databases are equal is what `pg_dump` says, and not
//! our own comparison. `CORPUS=part of a name` takes only some.
//!
//! What is expected is written in a file's first lines, the comments:
//! - `create: OPTIONS` of CREATE DATABASE, `database: NAME` if it is not the file's, `in place`: restored so as well
//! - `since: MAJOR` and `until: MAJOR`, of the server that it is made on
//! - `check: TEXT` that `check` must say of it
//! - `differs: TEXT`: what `pg_dump` writes of an object with this text need not be equal; `differs by dump`,
//!   `differs across majors` and `differs online`: by way of a dump, from one major to another, by `pg_upgrade` only
//! - `rows move: TABLE TABLE`: by way of a dump, rows of one may come to another
//! - `not taken: TEXT`: restores and trials end with 44 and say so, and all else is there
//! - `no part`: of what is not taken, a restore has not even the rest
//! - `alone: METHOD STATUS`: with it there, an upgrade by this method ends with this status before anything is stopped;
//!   it is gone before the upgrades of all others; `alone: nothing`: no upgrade is tried
//! - `online ends with: STATUS`: an upgrade by this method, which goes, as it tells that not all statistics were gathered
//! - `no restore`: the backup is without it, which is told

#[path = "machine/mod.rs"]
mod machine;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use machine::synapse::quote;
use machine::{Machine, Output};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_TAKEN: i32 = 44;

const NEWEST: &str = "\"$(ls /var/backups/matrix-postgres | tail -n 1)\"";

/// Every so many databases are restored in place, beside those that ask for it.
const IN_PLACE: usize = 12;

/// One of the files.
#[derive(Debug, Default)]
struct Oddity {
    file: String,
    text: String,
    database: String,
    create: String,
    since: u16,
    until: u16,
    in_place: bool,
    restores: Restores,
    apart: bool,
    online: i32,
    check: Vec<String>,
    not_taken: Vec<String>,
    /// The prefix of a way, and the text.
    differs: Vec<(&'static str, String)>,
    /// Tables whose rows may change places by way of a dump.
    moving: Vec<String>,
    /// Method and status.
    alone: Vec<(String, i32)>,
}

/// What can be restored of one.
#[derive(Debug, Default, PartialEq, Eq)]
enum Restores {
    /// All that is taken.
    #[default]
    All,
    /// Nothing, for something is not taken.
    NoPart,
    /// It is not in a backup.
    NotBackedUp,
}

/// Ways to another database; "" is all of them.
const DIFFERS: [(&str, &str); 4] = [
    ("differs: ", ""),
    ("differs by dump: ", "dump"),
    ("differs across majors: ", "majors"),
    ("differs online: ", "online"),
];

impl Oddity {
    fn parse(file: &str, text: String) -> Self {
        let mut oddity =
            Self { file: file.to_owned(), database: file.to_owned(), until: u16::MAX, ..Self::default() };
        for line in text.lines().map_while(|line| line.strip_prefix("-- ")) {
            let value = |key: &str| line.strip_prefix(key).map(str::to_owned);
            let major = |value: String| value.parse().unwrap_or_else(|_| panic!("{file}: {line}"));
            match line {
                "in place" => oddity.in_place = true,
                "no restore" => oddity.restores = Restores::NotBackedUp,
                "no part" => oddity.restores = Restores::NoPart,
                _ => {}
            }
            oddity.database = value("database: ").unwrap_or(oddity.database);
            oddity.create = value("create: ").unwrap_or(oddity.create);
            oddity.since = value("since: ").map_or(oddity.since, major);
            oddity.until = value("until: ").map_or(oddity.until, major);
            oddity
                .moving
                .extend(value("rows move: ").iter().flat_map(|line| line.split(' ').map(str::to_owned)));
            oddity.online =
                value("online ends with: ").map_or(oddity.online, |status| status.parse().unwrap_or(-1));
            oddity.check.extend(value("check: "));
            oddity.not_taken.extend(value("not taken: "));
            oddity.differs.extend(DIFFERS.iter().filter_map(|(key, way)| Some((*way, value(key)?))));
            oddity.apart |= line.starts_with("alone: ");
            oddity.alone.extend(value("alone: ").filter(|value| value != "nothing").map(|value| {
                let (method, status) = value.split_once(' ').unwrap_or_else(|| panic!("{file}: {line}"));
                (method.to_owned(), status.parse().unwrap_or_else(|_| panic!("{file}: {line}")))
            }));
        }
        oddity.text = text;
        oddity
    }

    /// Texts that objects have which need not be equal on this way.
    fn allowed(&self, ways: &[&str]) -> Vec<&str> {
        let allowed = self.differs.iter().filter(|(way, _)| way.is_empty() || ways.contains(way));
        allowed.map(|(_, text)| text.as_str()).collect()
    }
}

fn oddities(major: u16) -> Vec<Oddity> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let chosen = std::env::var("CORPUS").unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the corpus should be there") {
        let path = entry.expect("it should be readable").path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a file should be readable");
        found.push(Oddity::parse(&name, text));
    }
    found.retain(|one| (one.since..=one.until).contains(&major) && one.file.contains(&chosen));
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

/// A machine with all of them, and what went wrong.
struct Corpus<'a> {
    machine: &'a Machine,
    from: u16,
    to: u16,
    failures: Vec<String>,
}

impl Corpus<'_> {
    fn failed(&mut self, stage: &str, what: &str, why: &str) {
        eprintln!("FAILED {stage}: {what}: {why}");
        self.failures.push(format!("{stage}: {what}: {why}"));
    }

    fn expect(&mut self, stage: &str, what: &str, status: i32, output: &Output) -> bool {
        if output.status != status {
            self.failed(stage, what, &format!("expected {status}: {output}"));
        }
        output.status == status
    }

    fn sql(&self, database: &str, statement: &str) -> Output {
        self.machine.run(&format!(
            "PGDATABASE={} psql -h /run/matrix-postgres -U postgres -XAtqc {} 2>&1",
            quote(database),
            quote(statement)
        ))
    }

    fn make(&mut self, oddity: &Oddity) -> bool {
        let name = oddity.database.replace('"', "\"\"");
        let create = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 {}", oddity.create);
        let created = self.sql("template1", &create);
        if !self.expect("create", &oddity.file, 0, &created) {
            return false;
        }
        let file = format!("/srv/corpus/{}.sql", oddity.file);
        self.machine.write(&file, &oddity.text);
        let made = self.machine.run(&format!(
            "export PGCLIENTENCODING=UTF8 PGDATABASE={}; \
             psql -h /run/matrix-postgres -U postgres -Xq -v ON_ERROR_STOP=1 -o /dev/null -f {file} 2>&1",
            quote(&oddity.database)
        ));
        self.expect("create", &oddity.file, 0, &made)
    }

    /// What `pg_dump` writes of these databases, into a directory each; under the names of the oddities.
    fn dump(&mut self, into: &str, major: u16, options: &str, databases: &[(&Oddity, String)]) {
        let mut script = format!(
            "mkdir -p /srv/corpus/{into}; cd /srv/corpus/{into}; \
             d() {{ PGDATABASE=$2 /usr/lib/postgresql/{major}/bin/pg_dump -h /run/matrix-postgres -U postgres {options} \
             --file=\"$1\" || echo \"$1\" failed; }}\nexport PGOPTIONS='-c event_triggers=off'\n"
        );
        if self.major() < 17 {
            script.push_str("unset PGOPTIONS\n");
        }
        for (at, (oddity, database)) in databases.iter().enumerate() {
            let _ = writeln!(script, "d {} {} &", oddity.file, quote(database));
            if at % 2 == 1 {
                script.push_str("wait\n");
            }
        }
        let dumped = self.machine.run(&format!("({script}wait) 2>&1"));
        if dumped.status != 0 || dumped.stdout.contains("failed") {
            self.failed("pg_dump", into, &dumped.to_string());
        }
    }

    fn major(&self) -> u16 {
        let version = self.sql("template1", "SHOW server_version_num").stdout;
        version[..version.len().min(2)].parse().unwrap_or(0)
    }

    fn read(&self, directory: &str, oddity: &Oddity) -> String {
        let path = self.machine.path(&format!("/srv/corpus/{directory}/{}", oddity.file));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    fn compare(&mut self, stage: &str, before: &str, after: &str, oddity: &Oddity, ways: &[&str]) {
        let (was, is) = (self.read(before, oddity), self.read(after, oddity));
        if was.is_empty() || is.is_empty() {
            return self.failed(stage, &oddity.file, "there is nothing to compare");
        }
        let moving = if ways.contains(&"dump") { &oddity.moving[..] } else { &[] };
        let differences = differences(&was, &is, &oddity.allowed(ways), moving);
        if !differences.is_empty() {
            let shown = differences.iter().take(12).map(String::as_str).collect::<Vec<_>>().join("\n");
            self.failed(stage, &oddity.file, &format!("pg_dump differs:\n{shown}"));
        }
    }

    /// Backup, read back, trial, and each restored beside itself and some in their places.
    fn backup_and_restore(&mut self, all: &[&Oddity]) {
        let run = |script: &str| self.machine.run(script);
        let backup = run("matrix-postgres-backup run 2>&1");
        let verified = run("matrix-postgres-backup verify 2>&1");
        let trial = run("matrix-postgres-backup verify --trial 2>&1");
        let left_out: Vec<_> = all.iter().filter(|oddity| oddity.restores == Restores::NotBackedUp).collect();
        if backup.status != 0 && left_out.is_empty() {
            self.failed("backup", "all", &backup.to_string());
        }
        for oddity in left_out {
            if !backup.stdout.contains(&oddity.database) {
                self.failed("backup", &oddity.file, &format!("it is not told that it is left out: {backup}"));
            }
        }
        self.expect("verify", "all", 0, &verified);
        let not_taken: Vec<_> = all.iter().flat_map(|oddity| &oddity.not_taken).collect();
        self.expect("trial", "all", if not_taken.is_empty() { 0 } else { NOT_TAKEN }, &trial);
        for text in not_taken {
            if !trial.stdout.contains(text) {
                self.failed("trial", text, &format!("it is not told: {trial}"));
            }
        }

        let all: Vec<_> =
            all.iter().copied().filter(|oddity| oddity.restores != Restores::NotBackedUp).collect();
        let mut restored = Vec::new();
        for oddity in &all {
            let name = format!("r_{}", oddity.file);
            if self.restore(oddity, "restore", &format!("--as {name}")) {
                restored.push((*oddity, name));
            }
        }
        let live: Vec<_> = all.iter().map(|oddity| (*oddity, oddity.database.clone())).collect();
        self.dump("live", self.from, "", &live);
        self.dump("restored", self.from, "", &restored);
        for (oddity, _) in &restored {
            self.compare("restore", "live", "restored", oddity, &["dump"]);
        }
        let drops: Vec<_> = restored.iter().map(|(_, name)| format!("DROP DATABASE {name};\n")).collect();
        self.machine.write("/srv/corpus/drops.sql", &drops.concat());
        self.machine.ok("psql -h /run/matrix-postgres -U postgres -d template1 -XAtqf /srv/corpus/drops.sql");

        let chosen = all.iter().enumerate().filter(|(at, one)| one.in_place || at % IN_PLACE == 0);
        let live: Vec<_> = chosen.map(|(_, oddity)| (*oddity, oddity.database.clone())).collect();
        self.dump("before", self.from, "--create", &live);
        let live: Vec<_> = live.into_iter().filter(|(one, _)| self.restore(one, "in place", "")).collect();
        self.dump("in-place", self.from, "--create", &live);
        for (oddity, _) in &live {
            self.compare("in place", "before", "in-place", oddity, &["dump"]);
        }
        let cleaned = self.machine.run("matrix-postgres-backup clean --yes 2>&1");
        self.expect("clean", "all", 0, &cleaned);
    }

    fn restore(&mut self, oddity: &Oddity, stage: &str, arguments: &str) -> bool {
        let output = self.machine.run(&format!(
            "matrix-postgres-backup restore {NEWEST} --database {} {arguments} --yes 2>&1",
            quote(&oddity.database)
        ));
        let status = if oddity.not_taken.is_empty() { 0 } else { NOT_TAKEN };
        for text in oddity.not_taken.iter().filter(|text| !output.stdout.contains(*text)) {
            self.failed(stage, &oddity.file, &format!("{text:?} is not told"));
        }
        self.expect(stage, &oddity.file, status, &output) && oddity.restores != Restores::NoPart
    }

    /// Each alone stands in the way of an upgrade, and is gone afterwards.
    fn stand_in_the_way(&mut self, alone: &[&Oddity]) {
        for oddity in alone {
            if !self.make(oddity) {
                continue;
            }
            let before =
                self.machine.ok("systemctl show --property=MainPID,NRestarts matrix-postgres.service");
            self.check(&[oddity]);
            for (method, status) in &oddity.alone {
                let run = self.machine.run(&format!("matrix-postgres-upgrade run --method {method} 2>&1"));
                self.expect(&format!("upgrade by {method}"), &oddity.file, *status, &run);
                let after =
                    self.machine.ok("systemctl show --property=MainPID,NRestarts matrix-postgres.service");
                if before != after {
                    self.failed(
                        &format!("upgrade by {method}"),
                        &oddity.file,
                        &format!("it was begun: {run}"),
                    );
                }
            }
            self.remove(oddity);
        }
    }

    fn remove(&self, oddity: &Oddity) {
        let name = oddity.database.replace('"', "\"\"");
        self.sql("template1", &format!("ALTER DATABASE \"{name}\" IS_TEMPLATE false"));
        self.sql("template1", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"));
        self.sql("template1", "DROP TABLESPACE IF EXISTS corpus_space");
        let roles = format!(
            "DO $$ DECLARE r name; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{}') LOOP \
             EXECUTE format('DROP ROLE %I', r); END LOOP; END $$",
            oddity.file
        );
        self.sql("template1", &roles);
    }

    fn check(&mut self, all: &[&Oddity]) {
        let check = self.machine.run("matrix-postgres-upgrade check 2>&1");
        for oddity in all {
            for text in oddity.check.iter().filter(|text| !check.stdout.contains(*text)) {
                self.failed("check", &oddity.file, &format!("{text:?} is not said: {check}"));
            }
        }
    }

    fn globals(&self, major: u16) -> Vec<String> {
        let text = self.machine.ok(&format!(
            "/usr/lib/postgresql/{major}/bin/pg_dumpall -h /run/matrix-postgres -U postgres --globals-only; \
             psql -h /run/matrix-postgres -U postgres -d template1 -XAtqc \
             'SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase = 0 AND setrole = 0'"
        ));
        let mut lines: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.contains("restrict ") && !line.starts_with("--"))
            // 16 has options of memberships, and keeps grantors with care.
            .map(|line| match line.starts_with("GRANT ") && !line.contains(" ON ") {
                true => line.split(" WITH ").next().unwrap_or(line).split(" GRANTED ").next().unwrap_or(line),
                false => line,
            })
            .map(|line| line.trim_end_matches(';').to_owned())
            .collect();
        lines.sort();
        lines.dedup();
        lines
    }

    fn upgrades(&mut self, all: &[&Oddity]) {
        let live: Vec<_> = all.iter().map(|oddity| (*oddity, oddity.database.clone())).collect();
        self.dump("old", self.to, "--create", &live);
        let globals = self.globals(self.to);
        self.check(all);
        for method in ["dump", "online"] {
            let rehearsed =
                self.machine.run(&format!("matrix-postgres-upgrade rehearse --method {method} 2>&1"));
            self.expect("rehearse", method, 0, &rehearsed);
        }
        for method in ["dump", "online"] {
            let stage = format!("upgrade by {method}");
            let run = self.machine.run(&format!("matrix-postgres-upgrade run --method {method} 2>&1"));
            let status = all.iter().map(|oddity| oddity.online).max().filter(|_| method == "online");
            if !self.expect(&stage, "all", status.unwrap_or(0), &run) {
                continue;
            }
            let directory = format!("by-{method}");
            self.dump(&directory, self.to, "--create", &live);
            for oddity in all {
                self.compare(&stage, "old", &directory, oddity, &[method, "majors"]);
            }
            let now = self.globals(self.to);
            let gone: Vec<_> = globals.iter().filter(|line| !now.contains(line)).collect();
            let come: Vec<_> = now.iter().filter(|line| !globals.contains(line)).collect();
            if !gone.is_empty() || !come.is_empty() {
                self.failed(&stage, "globals", &format!("gone: {gone:#?}, come: {come:#?}"));
            }
            let back = self.machine.run("matrix-postgres-upgrade rollback --yes 2>&1");
            self.expect(&stage, "rollback", 0, &back);
            self.machine.ok("rm -rf /matrix/postgres/data.upgrade-*");
        }
    }
}

/// What `pg_dump` writes of each object; rows in any order.
fn objects(dump: &str, moving: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut header, mut lines) = (String::new(), Vec::new());
    let mut moved = Vec::new();
    let mut close = |header: String, mut lines: Vec<String>| {
        // The order of settings means nothing.
        if header.contains("; Type: DATABASE PROPERTIES; ") {
            lines.sort();
        }
        if header.starts_with("-- Data for ") {
            if moving.iter().any(|table| header.starts_with(&format!("-- Data for Name: {table}; "))) {
                lines.retain(|line| !line.starts_with("COPY ") && line != "\\.");
                return moved.append(&mut lines);
            }
            lines.sort();
        }
        objects.entry(header).or_default().push(lines.join("\n"));
    };
    let mut before = "";
    for line in dump.lines() {
        if before == "--" && (line.starts_with("-- Name: ") || line.starts_with("-- Data for Name: ")) {
            close(std::mem::replace(&mut header, line.to_owned()), std::mem::take(&mut lines));
        } else if !(line.is_empty()
            || line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ")
            || line.starts_with("--"))
        {
            lines.extend(without_stamp(line));
        }
        before = line;
    }
    close(header, lines);
    moved.sort();
    objects.entry("rows that move".to_owned()).or_default().push(moved.join("\n"));
    for same in objects.values_mut() {
        same.sort();
    }
    objects
}

/// Without the stamp that servers since November 2026 put on a column, which older versions of `pg_dump` write as an option.
fn without_stamp(line: &str) -> Option<String> {
    let Some((before, after)) = line.split_once("pg_attver=").filter(|_| line.starts_with("ALTER TABLE "))
    else {
        return Some(line.to_owned());
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    match (before.strip_suffix(", "), rest.strip_prefix(", ")) {
        (Some(before), _) => Some(format!("{before}{rest}")),
        (None, Some(rest)) => Some(format!("{before}{rest}")),
        (None, None) => None,
    }
}

fn differences(was: &str, is: &str, allowed: &[&str], moving: &[String]) -> Vec<String> {
    let (was, is) = (objects(was, moving), objects(is, moving));
    let none = Vec::new();
    let mut found = Vec::new();
    let mut headers: Vec<_> = was.keys().chain(is.keys()).collect();
    headers.sort();
    headers.dedup();
    for header in headers {
        let (old, new) = (was.get(header).unwrap_or(&none), is.get(header).unwrap_or(&none));
        let is_allowed = |text: &str| allowed.iter().any(|part| text.contains(part));
        if old == new || is_allowed(header) || old.iter().chain(new).any(|text| is_allowed(text)) {
            continue;
        }
        found.push(format!("  {header}"));
        let lines = |texts: &[String]| {
            texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect::<Vec<_>>()
        };
        let (old, new) = (lines(old), lines(new));
        let cut = |line: &String| line.chars().take(200).collect::<String>();
        found.extend(
            old.iter().filter(|line| !new.contains(line)).map(|line| format!("    was: {}", cut(line))),
        );
        found.extend(
            new.iter().filter(|line| !old.contains(line)).map(|line| format!("    is: {}", cut(line))),
        );
    }
    found
}

fn through_everything(machine: &Machine, from: u16, to: u16) {
    let mut corpus = Corpus { machine, from, to, failures: Vec::new() };
    machine
        .ok("mkdir -p /etc/matrix-postgres /srv/corpus && install -d -o matrix-postgres /srv/corpus_space");
    for name in ["config.control", "config--1.0.sql", "counter.control", "counter--1.0.sql"] {
        let file = format!("corpus_{name}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/extensions").join(&file);
        for major in [from, to] {
            machine.copy_in(&path, &format!("/usr/share/postgresql/{major}/extension/{file}"));
        }
    }
    let configuration = "[upgrade]\nbackup_within = \"never\"\n";
    machine
        .write("/etc/matrix-postgres/config.toml", &format!("[server]\nversion = {from}\n{configuration}"));
    machine.ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
    machine.write("/etc/matrix-postgres/config.toml", configuration);
    corpus.sql("template1", "ALTER SYSTEM SET fsync = off");
    corpus.sql("template1", "SELECT pg_reload_conf()");

    let mut all = oddities(from);
    if from == to {
        all.retain(|oddity| oddity.since == from);
    }
    let clock = std::time::Instant::now();
    let made: Vec<_> = all.iter().filter(|oddity| !oddity.apart && corpus.make(oddity)).collect();
    let alone: Vec<_> = all.iter().filter(|oddity| oddity.apart).collect();
    eprintln!("{from}: {} made, {:.0} s", made.len(), clock.elapsed().as_secs_f64());
    corpus.backup_and_restore(&made);
    eprintln!("{from}: restored, {:.0} s", clock.elapsed().as_secs_f64());
    if from != to {
        corpus.upgrades(&made);
        eprintln!("{from}: upgraded, {:.0} s", clock.elapsed().as_secs_f64());
    }

    for oddity in made {
        corpus.remove(oddity);
    }
    let restorable: Vec<_> = alone.iter().copied().filter(|oddity| corpus.make(oddity)).collect();
    if !restorable.is_empty() {
        corpus.backup_and_restore(&restorable);
    }
    for oddity in &restorable {
        corpus.remove(oddity);
    }
    if from != to {
        corpus.stand_in_the_way(&alone);
    }
    eprintln!("{from}: all, {:.0} s", clock.elapsed().as_secs_f64());
    let failures = corpus.failures;
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn odd_databases_of_15_go_through_everything() {
    let Some(machine) = machine::for_test("corpus") else { return };
    through_everything(&machine, 15, 17);
}

#[test]
fn odd_databases_of_17_go_through_everything() {
    let Some(machine) = machine::for_test_on_newer("corpus-17") else { return };
    through_everything(&machine, 17, 18);
}

#[test]
fn odd_databases_of_18_are_restored() {
    let Some(machine) = machine::for_test_on_newer("corpus-18") else { return };
    through_everything(&machine, 18, 18);
}
