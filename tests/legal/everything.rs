//! One machine, on which databases go through everything.

use std::fmt::Write as _;
use std::time::Instant;

use super::dumps::{differences, without_names_of_not_null};
use super::{Oddity, Restores};
use crate::machine::synapse::quote;
use crate::machine::{Machine, Output};

/// Of the programs' contract: see `matrix_postgres::error::Kind`.
const NOT_TAKEN: i32 = 44;

const CONFIGURATION: &str = "/etc/matrix-postgres/config.toml";
const NEWEST: &str = "\"$(ls /var/backups/matrix-postgres | tail -n 1)\"";

/// Every so many databases are restored in place, beside those that ask for it.
const IN_PLACE: usize = 12;

/// The way of databases of one major, on one machine, and what went wrong on it.
pub struct Everything<'a> {
    machine: &'a Machine,
    from: u16,
    to: u16,
    failures: Vec<String>,
    upgrades: usize,
    clock: Instant,
}

impl<'a> Everything<'a> {
    /// With a server of the one major, which will be upgraded to the other.
    pub fn on(machine: &'a Machine, from: u16, to: u16) -> Self {
        let configuration = "[upgrade]\nbackup_within = \"never\"\n";
        let server = format!("[server]\nversion = {from}\n{configuration}");
        machine.ok("mkdir -p /etc/matrix-postgres /srv/corpus");
        machine.write(CONFIGURATION, &server);
        machine
            .ok("systemctl start matrix-postgres.service || { journalctl -u matrix-postgres >&2; false; }");
        machine.write(CONFIGURATION, &format!("{configuration}to = {to}\n"));
        let way = Self { machine, from, to, failures: Vec::new(), upgrades: 0, clock: Instant::now() };
        way.sql("template1", "ALTER SYSTEM SET fsync = off");
        way.sql("template1", "SELECT pg_reload_conf()");
        way
    }

    /// The same where upgrades compare every value of every row.
    pub fn comparing_contents(self) -> Self {
        let configuration = self.machine.ok(&format!("cat {CONFIGURATION}"));
        self.machine.write(CONFIGURATION, &format!("{configuration}\ncompare = \"content\"\n"));
        self
    }

    /// Tells how far it is.
    pub fn reached(&self, what: &str) {
        let name = format!("{} to {}", self.from, self.to);
        let (elapsed, worked) = (self.clock.elapsed().as_secs(), self.machine.processor_time().as_secs());
        eprintln!("{name}: {elapsed:4} s, {worked:4} s of a processor: {what}");
    }

    /// # Panics
    /// Where something was not as expected.
    pub fn ends(self) {
        self.reached(&format!("all, with {} upgrades", self.upgrades));
        let failures = self.failures;
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    }

    pub fn failed(&mut self, stage: &str, what: &str, why: &str) {
        eprintln!("FAILED {stage}: {what}: {why}");
        self.failures.push(format!("{stage}: {what}: {why}"));
    }

    pub fn expect(&mut self, stage: &str, what: &str, status: i32, output: &Output) -> bool {
        if output.status != status {
            self.failed(stage, what, &format!("expected {status}: {output}"));
        }
        output.status == status
    }

    pub fn sql(&self, database: &str, statement: &str) -> Output {
        self.machine.run(&format!(
            "PGDATABASE={} psql -h /run/matrix-postgres -U postgres -XAtqc {} 2>&1",
            quote(database),
            quote(statement)
        ))
    }

    pub fn make(&mut self, oddity: &Oddity) -> bool {
        let name = oddity.database.replace('"', "\"\"");
        let create = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 {}", oddity.create);
        let created = self.sql("template1", &create);
        if !self.expect("create", &oddity.file, 0, &created) {
            return false;
        }
        self.run(oddity)
    }

    /// Runs its text.
    pub fn run(&mut self, oddity: &Oddity) -> bool {
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
        let (mut was, mut is) = (self.read(before, oddity), self.read(after, oddity));
        if ways.contains(&"majors") {
            (was, is) = (without_names_of_not_null(&was), without_names_of_not_null(&is));
        }
        if was.is_empty() || is.is_empty() {
            return self.failed(stage, &oddity.file, "there is nothing to compare");
        }
        let moving = if ways.contains(&"dump") { &oddity.moving[..] } else { &[] };
        let is_unqualified = oddity.unqualified && ways.contains(&"majors");
        let differences = differences(&was, &is, &oddity.allowed(ways), moving, is_unqualified);
        if !differences.is_empty() {
            let shown = differences.iter().take(60).map(String::as_str).collect::<Vec<_>>().join("\n");
            self.failed(stage, &oddity.file, &format!("pg_dump differs:\n{shown}"));
        }
    }

    /// Backup, read back, trial, and each restored beside itself and some in their places.
    pub fn backup_and_restore(&mut self, all: &[&Oddity]) {
        let run = |script: &str| self.machine.run(script);
        let backup = run("matrix-postgres-backup run 2>&1");
        let verified = run("matrix-postgres-backup verify 2>&1");
        let trial = run("matrix-postgres-backup verify --trial 2>&1");
        self.reached("backed up and tried");
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

        self.reached(&format!("{} restored", restored.len()));
        let chosen = all.iter().enumerate().filter(|(at, one)| one.in_place || at % IN_PLACE == 0);
        let live: Vec<_> = chosen.map(|(_, oddity)| (*oddity, oddity.database.clone())).collect();
        self.dump("before", self.from, "--create", &live);
        let live: Vec<_> = live.into_iter().filter(|(one, _)| self.restore(one, "in place", "")).collect();
        self.dump("in-place", self.from, "--create", &live);
        for (oddity, _) in &live {
            self.compare("in place", "before", "in-place", oddity, &["dump"]);
        }
        self.reached(&format!("{} restored in place", live.len()));
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
    pub fn stand_in_the_way(&mut self, alone: &[&Oddity]) {
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
        self.reached(&format!("{} stood in the way", alone.len()));
    }

    pub fn remove(&self, oddity: &Oddity) {
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

    pub fn check(&mut self, all: &[&Oddity]) {
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

    /// By either method; nothing changes.
    pub fn rehearse(&mut self) {
        for method in ["dump", "online"] {
            let rehearsed =
                self.machine.run(&format!("matrix-postgres-upgrade rehearse --method {method} 2>&1"));
            self.expect("rehearse", method, 0, &rehearsed);
            self.reached(&format!("rehearsed by {method}"));
        }
    }

    /// By either method, and back.
    pub fn upgrades(&mut self, all: &[&Oddity]) {
        let live: Vec<_> = all.iter().map(|oddity| (*oddity, oddity.database.clone())).collect();
        self.dump("old", self.to, "--create", &live);
        let globals = self.globals(self.to);
        for method in ["dump", "online"] {
            let stage = format!("upgrade by {method}");
            let run = self.machine.run(&format!("matrix-postgres-upgrade run --method {method} 2>&1"));
            if !self.expect(&stage, "all", 0, &run) {
                continue;
            }
            self.upgrades += 1;
            self.reached(&format!("upgraded by {method}"));
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
            self.reached("compared, and rolled back");
        }
    }
}
