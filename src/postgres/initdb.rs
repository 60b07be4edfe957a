//! initdb(1).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HOME, Major, Session};
use crate::error::Result;
use crate::runtime::Call;

/// A cluster that is thrown away: whoever reaches its socket may log in, so that the socket must be in a
/// directory that is closed to others. Nothing of it is made to last.
pub fn throw_away(directory: &Path, superuser: &str) -> Call {
    let mut call = Call::new(
        "initdb",
        ["--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync", "--username", superuser, "--pgdata"],
    );
    call.arguments.push(directory.into());
    call
}

/// A new cluster as Synapse wants it: UTF8, locale C (Synapse's documentation, "Using Postgres"), with page
/// checksums, and scram for every login that is not mapped.
pub fn create(directory: &Path, superuser: &str) -> Call {
    let mut call = Call::new(
        "initdb",
        [
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--auth-local=peer",
            "--auth-host=scram-sha-256",
            "--username",
            superuser,
            "--pgdata",
        ],
    );
    call.arguments.push(directory.into());
    call
}

/// Writes a whole cluster to the disk, and changes nothing.
pub fn sync(directory: &Path) -> Call {
    let mut call = Call::new("initdb", ["--sync-only", "--pgdata"]);
    call.arguments.push(directory.into());
    call
}

/// What initdb decides for the whole life of a cluster, and what it makes its first databases like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Initialisation {
    /// The role that initdb made (oid 10), whatever it is called now.
    pub superuser: String,
    /// `template0`'s, such as `UTF8`.
    pub encoding: String,
    /// `template0`'s `LC_COLLATE`.
    pub collate: String,
    /// `template0`'s `LC_CTYPE`.
    pub ctype: String,
    /// `template0`'s `datlocprovider`: `c`, `i` or `b`; nothing before PostgreSQL 15.
    pub provider: Option<String>,
    /// `template0`'s locale, if its provider is `i` or `b`.
    pub locale: Option<String>,
    /// `template0`'s `daticurules`; nothing before PostgreSQL 16.
    pub rules: Option<String>,
    /// Size of a WAL file in bytes.
    pub wal_segment: u64,
    /// Whether the owner's group may read the data directory.
    pub group_access: bool,
    /// Those of `template1` and `postgres` whose encoding or locale is not `template0`'s: initdb makes all three
    /// alike, so that in a new cluster these must be dropped and made anew from `template0`.
    pub differing: Vec<String>,
    /// Those of `template1` and `postgres` that were dropped.
    pub missing: Vec<String>,
}

/// Asks a server for what [`like`] needs. Columns that an older server lacks are null in its row as JSON.
///
/// # Errors
/// [`crate::Kind::Server`].
pub fn initialisation(session: &Session<'_>) -> Result<Initialisation> {
    session.query(
        HOME,
        "WITH databases AS (SELECT datname::text AS name, pg_catalog.pg_encoding_to_char(encoding) AS encoding,
                datcollate AS lc_collate, datctype AS lc_ctype, pg_catalog.to_jsonb(d)->>'datlocprovider' AS provider,
                coalesce(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale') AS locale,
                pg_catalog.to_jsonb(d)->>'daticurules' AS rules
            FROM pg_catalog.pg_database d WHERE datname IN ('template0', 'template1', 'postgres')),
        -- template0 can be dropped, too.
        first AS (SELECT * FROM databases ORDER BY name = 'template0' DESC, name = 'template1' DESC LIMIT 1)
        SELECT pg_catalog.json_build_object(
            'superuser', (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10),
            'encoding', encoding,
            'collate', lc_collate,
            'ctype', lc_ctype,
            'provider', provider,
            'locale', locale,
            'rules', rules,
            'wal_segment', (SELECT bytes_per_wal_segment FROM pg_catalog.pg_control_init()),
            'group_access', coalesce(pg_catalog.current_setting('data_directory_mode', true) = '0750', false),
            'differing', (SELECT coalesce(pg_catalog.json_agg(d.name ORDER BY d.name), '[]') FROM databases d
                WHERE d.name <> first.name
                AND (d.encoding, d.lc_collate, d.lc_ctype, d.provider, d.locale, d.rules) IS DISTINCT FROM
                    (first.encoding, first.lc_collate, first.lc_ctype, first.provider, first.locale, first.rules)),
            'missing', (SELECT coalesce(pg_catalog.json_agg(name ORDER BY name), '[]')
                FROM pg_catalog.unnest(ARRAY['template1', 'postgres']) AS name
                WHERE name NOT IN (SELECT name FROM databases)))
        FROM first;",
    )
}

/// A cluster of version `target` in `directory` that can take the databases of the one that `facts` are of, with or
/// without page checksums. It is not made to last: whoever fills it does that. Its configuration is not meant to
/// stay, either: locales for messages and the like, and the rules of who may log in, are in files that are carried.
pub fn like(directory: &Path, facts: &Initialisation, target: Major, checksums: bool) -> Call {
    let mut arguments = vec![
        format!("--encoding={}", facts.encoding),
        "--locale=C".to_owned(),
        format!("--lc-collate={}", facts.collate),
        format!("--lc-ctype={}", facts.ctype),
    ];
    let locale = facts.locale.as_deref().unwrap_or_default();
    match facts.provider.as_deref() {
        _ if target.0 < 15 => {}
        Some("i") => {
            arguments.extend(["--locale-provider=icu".to_owned(), format!("--icu-locale={locale}")]);
            arguments.extend(facts.rules.as_ref().map(|rules| format!("--icu-rules={rules}")));
        }
        Some("b") => {
            arguments.extend(["--locale-provider=builtin".to_owned(), format!("--builtin-locale={locale}")]);
        }
        // The default of all versions so far; said, for that may change.
        _ => arguments.push("--locale-provider=libc".to_owned()),
    }
    arguments.push(format!("--wal-segsize={}", facts.wal_segment >> 20));
    if facts.group_access {
        arguments.push("--allow-group-access".to_owned());
    }
    match checksums {
        true => arguments.push("--data-checksums".to_owned()),
        // The default before 18, which has no word for it.
        false if target.0 < 18 => {}
        false => arguments.push("--no-data-checksums".to_owned()),
    }
    arguments.extend(["--no-sync", "--auth-local=peer", "--auth-host=scram-sha-256"].map(str::to_owned));
    arguments.push(format!("--username={}", facts.superuser));
    let mut call = Call::new("initdb", arguments);
    call.arguments.push("--pgdata".into());
    call.arguments.push(directory.into());
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Initialisation {
        Initialisation {
            superuser: "postgres".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            wal_segment: 16 << 20,
            ..Initialisation::default()
        }
    }

    fn arguments(facts: &Initialisation, target: u16) -> String {
        let call = like(Path::new("/new"), facts, Major(target), true);
        let words: Vec<_> = call.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn from_13_to_17() {
        assert_eq!(
            arguments(&facts(), 17),
            "--encoding=UTF8 --locale=C --lc-collate=C --lc-ctype=C --locale-provider=libc --wal-segsize=16 \
             --data-checksums --no-sync --auth-local=peer --auth-host=scram-sha-256 --username=postgres \
             --pgdata /new"
        );
        // Version 14 has one provider only.
        assert!(!arguments(&facts(), 14).contains("provider"));
    }

    #[test]
    fn from_15_to_17_with_icu() {
        let facts = Initialisation {
            provider: Some("i".into()),
            locale: Some("de-DE".into()),
            collate: "de_DE.UTF-8".into(),
            ctype: "de_DE.UTF-8".into(),
            superuser: "it's me".into(),
            wal_segment: 64 << 20,
            group_access: true,
            ..facts()
        };
        assert_eq!(
            arguments(&facts, 17),
            "--encoding=UTF8 --locale=C --lc-collate=de_DE.UTF-8 --lc-ctype=de_DE.UTF-8 --locale-provider=icu \
             --icu-locale=de-DE --wal-segsize=64 --allow-group-access --data-checksums --no-sync \
             --auth-local=peer --auth-host=scram-sha-256 --username=it's me --pgdata /new"
        );
        let rules = Initialisation { rules: Some("&a < g".into()), ..facts };
        assert!(arguments(&rules, 17).contains("--icu-locale=de-DE --icu-rules=&a < g "));
    }

    #[test]
    fn from_17_to_18_with_the_builtin_provider() {
        let facts = Initialisation { provider: Some("b".into()), locale: Some("C.UTF-8".into()), ..facts() };
        assert!(
            arguments(&facts, 18).contains("--locale-provider=builtin --builtin-locale=C.UTF-8 "),
            "{}",
            arguments(&facts, 18)
        );
    }

    #[test]
    fn checksums_are_said_where_the_default_is_another() {
        let has = |target, checksums, argument: &str| {
            let call = like(Path::new("/new"), &facts(), Major(target), checksums);
            call.arguments.iter().any(|found| found == argument)
        };
        assert!(has(17, true, "--data-checksums") && has(18, true, "--data-checksums"));
        assert!(!has(17, false, "--no-data-checksums") && has(18, false, "--no-data-checksums"));
    }
}
