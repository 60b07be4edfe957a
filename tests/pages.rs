//! Every command that a page of `docs` shows is run in a booted machine, and what it prints is compared with what the page
//! says. `PAGES=part of a name` takes only some; `PAGES_WRITE=1` writes into the pages what was printed.
//!
//! A page has blocks of the kind `console`, as an administrator's terminal shows them: `# command`, then what it prints. Numbers
//! may be others, and so may the width of gaps; `…` stands for any text, and alone in a line for any lines. Comments of the
//! page, which a reader does not see, say the rest: see [`page::Page`].

mod alike;
mod page;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::machine::containers::Playbook;
use crate::machine::{self, Machine, Synapse, debian, external};
use alike::Names;
use page::{Command, Page, Start};

/// As many at a time as there may well be processors.
const AT_A_TIME: usize = 2;

#[test]
fn what_a_page_says_is_what_happens() {
    let pages = Mutex::new(pages().into_iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(path) = pages.lock().unwrap().next() else { return };
                    if let Err(error) = try_out(&path) {
                        wrong.lock().unwrap().push(format!("{}: {error}", path.display()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn try_out(path: &Path) -> Result<(), String> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a page should be readable");
    let page = Page::parse(&text)?;
    let chosen = std::env::var("PAGES").unwrap_or_default();
    if !name.contains(&chosen) || page.commands().next().is_none() {
        return Ok(());
    }
    let Some(machine) = begin(&name, page.start) else { return Ok(()) };
    let printed = follow(&machine, &page)?;
    if std::env::var_os("PAGES_WRITE").is_some() {
        std::fs::write(path, page.with_output(&text, &printed)).expect("a page should be writable");
    }
    Ok(())
}

fn pages() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let entries = std::fs::read_dir(docs).expect("there should be docs").flatten().map(|entry| entry.path());
    let mut pages: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages
}

/// What there is before the first command.
fn begin(name: &str, start: Start) -> Option<Machine> {
    let name = format!("page-{name}");
    if let Start::Homeserver = start {
        let machine = machine::for_test(&name)?;
        // What a new installation does not have.
        machine.ok("rmdir /matrix/postgres && mkdir -p /etc/matrix-postgres/config.d");
        machine.write("/etc/matrix-postgres/config.d/version.toml", "[server]\nversion = 15\n");
        machine.ok("systemctl start matrix-postgres.service");
        machine.ok("rm /etc/matrix-postgres/config.d/version.toml");
        let block = "/var/lib/matrix-postgres/synapse-database.yaml";
        let synapse = Synapse::set_up_on(&machine, "matrix-postgres.service", block);
        talk(&synapse);
        synapse.settle();
        return Some(machine);
    }
    let machine = machine::bare_for_test(&name)?;
    let package = machine::package::current().expect("the package should be there");
    machine.copy_in(&package, &format!("/root/{}", package.file_name()?.to_string_lossy()));
    match start {
        Start::Bare | Start::Homeserver => {}
        Start::Debian => {
            let unit = "postgresql@15-main.service";
            machine.ok("pg_dropcluster --stop 17 main && pg_createcluster 17 main");
            machine.ok(&format!("pg_createcluster --locale C.UTF-8 --port {} 15 main", debian::PORT));
            machine.ok(&format!("systemctl daemon-reload && systemctl start {unit}"));
            debian::make_database(&machine);
            talk(&Synapse::set_up_on(&machine, unit, debian::BLOCK));
        }
        Start::Playbook => {
            Playbook::set_up(&machine, 15).make_database();
        }
        Start::External => {
            external::other_machine(&machine);
            external::there(
                &machine,
                "postgres",
                "CREATE ROLE matrix_backup LOGIN PASSWORD 'secret-of-the-backup'; GRANT pg_read_all_data TO matrix_backup",
            );
            talk(&Synapse::set_up_on(&machine, "db.service", external::BLOCK));
        }
    }
    Some(machine)
}

fn talk(synapse: &Synapse<'_>) {
    let user = synapse.register("ada");
    let room = synapse.create_room(&user, "pages");
    for number in 1..=20 {
        synapse.send(&user, &room, &format!("message {number}"));
    }
}

/// What each command printed, or the first thing that is not as the page says.
fn follow(machine: &Machine, page: &Page) -> Result<Vec<String>, String> {
    let write = std::env::var_os("PAGES_WRITE").is_some();
    let mut names = Names::default();
    let mut printed = Vec::new();
    for step in page.commands() {
        let Command { line, text, status, expected, is_shown } = step;
        let script = names.actual(text);
        // As a terminal has them: in the order in which they come.
        let run = machine.run(&format!("cd /root; exec 2>&1; export COLUMNS=120\n{script}"));
        if run.status != *status {
            return Err(format!(
                "line {line}: # {text}\nexit status {}, not {status}\n{}",
                run.status, run.stdout
            ));
        }
        if !is_shown {
            continue;
        }
        let said = run.stdout.trim_end().to_owned();
        names.learn(expected, &said);
        let said = names.shown(&said);
        if !write && !alike::are(expected, &said) {
            return Err(format!("line {line}: # {text}\nthe page says:\n{expected}\nit prints:\n{said}"));
        }
        printed.push(said);
    }
    Ok(printed)
}
