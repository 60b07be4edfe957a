//! PostgreSQL's own regression database, what the tests of its own leave, taken through everything as the odd databases of
//! `corpus` are. What stock programs refuse is dropped before upgrades, as PostgreSQL's own test of `pg_upgrade` does.
//!
//! `regression/recipe.sh` gets the tests, those of 15, and builds what they need. On a server of 17 those of 15 are run, too:
//! a few fail there, as they fail on 15 where they want another superuser, and what they leave is as odd.

#![allow(clippy::doc_markdown)]

use std::process::Command;

use crate::legal::{Everything, Oddity};
use crate::machine::{self, Machine};

const RECIPE: &str = include_str!("regression/recipe.sh");

/// So many tables they leave on every major, and some more.
const TABLES: usize = 500;

/// Runs them all, as `pg_regress` does: the tests of one line at the same time.
const TESTS: &str = r#"
cd /srv/regress
export PATH="/usr/lib/postgresql/$major/bin:$PATH" PGHOST=/run/matrix-postgres PGUSER=postgres
export PG_ABS_SRCDIR=$PWD PG_ABS_BUILDDIR=$PWD PG_LIBDIR='$libdir' PG_DLSUFFIX=.so
export PGTZ=America/Los_Angeles PGDATESTYLE='Postgres, MDY' PGOPTIONS='-c intervalstyle=postgres_verbose'
unset LC_ALL
psql -X -q -d template1 -c 'CREATE DATABASE regression TEMPLATE template0'
for setting in lc_messages=C lc_monetary=C lc_numeric=C lc_time=C bytea_output=hex timezone_abbreviations=Default; do
    psql -X -q -d template1 -c "ALTER DATABASE regression SET ${setting%=*} TO '${setting#*=}'"
done
sed -n 's/^test: //p' parallel_schedule | while read -r tests; do
    for test in $tests; do
        psql -X -a -q -d regression -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on \
            <"sql/$test.sql" >"results/$test.out" 2>&1 &
    done
    wait
done
"#;

/// What they leave on a server of this major.
fn make(machine: &Machine, majors: [u16; 2]) {
    let built = machine::image::made_by(RECIPE, "regression", "2 minutes");
    let built = built.expect("PostgreSQL's own tests should be there");
    let copied =
        Command::new("cp").args(["--recursive"]).arg(&built).arg(machine.path("/srv/regress")).status();
    assert!(copied.is_ok_and(|status| status.success()), "{}", built.display());
    for major in majors {
        machine.copy_in(
            &built.join(format!("regress-{major}.so")),
            &format!("/usr/lib/postgresql/{major}/lib/regress.so"),
        );
    }
    machine.ok("install -d -o matrix-postgres -m 0777 /srv/regress/results && chmod -R a+rX /srv/regress");
    machine.ok(&format!("major={}\n{TESTS}", majors[0]));
}

fn through_everything(machine: &Machine, from: u16, to: u16, text: &str) {
    let mut way = Everything::on(machine, from, to);
    let regression = Oddity::parse("regression", text.to_owned());
    make(machine, [from, to]);
    let size =
        way.sql("regression", "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384");
    let tables: usize = size.stdout.parse().unwrap_or_default();
    assert!(tables >= TABLES, "the tests have left {size}");
    way.reached(&format!("made, with {tables} tables"));
    way.backup_and_restore(&[&regression]);
    way.check(&[&regression]);
    way.run(&regression);
    way.rehearse();
    way.upgrades(&[&regression]);
    way.ends();
}

#[test]
fn of_15_to_17() {
    let Some(machine) = machine::for_test("regression-15") else { return };
    through_everything(&machine, 15, 17, include_str!("regression/15.sql"));
}

#[test]
fn of_17_to_19() {
    let Some(machine) = machine::for_test_on_newer("regression-17") else { return };
    through_everything(&machine, 17, 19, include_str!("regression/17.sql"));
}
