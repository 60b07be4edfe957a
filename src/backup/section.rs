//! What belongs to one database in the SQL of pg_dump and pg_dumpall.
//!
//! Such SQL may name databases: `\connect` leads psql into another one, `ALTER DATABASE` and the like change one that
//! is there. A restore is into a new database, and into nothing else. What pg_dump and pg_dumpall write about databases,
//! roles and other databases is left out, as is what `--clean` writes to drop what is there already; everything else is
//! kept, or the file is refused.

use std::collections::BTreeSet;

use super::attempts::Attempts;
use super::frame::{
    BEGIN, CLUSTER, CLUSTER_END, END, cleans, connected, is_header, is_schema_public, is_setting,
};
use super::missing::Missing as Missed;
use super::rows::{Contents, Tally};
use crate::sql::guard::{
    about_shared, beginning, command, is_plain_setting_of_strings, refused_command, refused_statement,
};
use crate::sql::tokens::{self, Token, roles};
use crate::sql::{Item, Output, Refusal, Script, Visitor};

/// Windows' programs write it in front of UTF-8; psql leaves it out.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Fed with SQL in pieces of any size; hands on what belongs to the database.
#[derive(Debug)]
pub(super) struct Section {
    script: Script,
    reader: Reader,
    /// How much of a byte order mark has been seen; nothing after anything else.
    mark: Option<usize>,
}

/// What a dump of SQL holds for one database.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its rows.
    pub(super) contents: Contents,
    /// Roles that own what is in it, or have privileges on it.
    pub(super) roles: BTreeSet<String>,
    /// Those of them that own something.
    pub(super) owners: BTreeSet<String>,
}

/// Why it cannot be restored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Its last line.
    End(&'static str),
    /// The end of a table's rows.
    Rows(String),
    /// The database; it has these.
    Database(Vec<String>),
    /// Any database; it has roles only.
    AnyDatabase,
    /// That there is only one dump of the database in it.
    One,
    /// Anything that pg_dump writes.
    Dump,
    /// That it has only what a restore carries out; this, in this line, is not.
    Refused(usize, Refusal),
}

/// Where we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before any dump.
    Front,
    /// Among what is of the whole cluster.
    Globals,
    /// Before a dump's first entry: with `--clean`, what is there already is dropped here, databases too.
    Preamble,
    /// Within an entry.
    Entries,
    /// Behind a dump.
    Behind,
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Reader {
    database: String,
    place: Place,
    /// Within a cluster's dump.
    cluster: bool,
    /// The cluster's dump was not ended.
    cluster_open: bool,
    /// What comes belongs to the database.
    inside: bool,
    /// Within an entry about the database as a whole, after which pg_dump connects to it.
    about_database: bool,
    /// Whether the last statement is handed on, and so its rows.
    keeps_statement: bool,
    /// What is tried, where it is to be loaded.
    attempts: Option<Attempts>,
    output: Output,
    tally: Tally,
    found: Option<Contents>,
    /// A dump has begun, wanted or not.
    begun: bool,
    /// How many dumps could be the database's.
    dumps: usize,
    databases: Vec<String>,
    roles: BTreeSet<String>,
    owners: BTreeSet<String>,
}

impl Section {
    /// What belongs to `database`; a dump of one database is that, whatever its name.
    pub(super) fn new(database: &str) -> Self {
        let mut reader = Reader {
            database: database.to_owned(),
            place: Place::Front,
            cluster: false,
            cluster_open: false,
            inside: true,
            about_database: false,
            keeps_statement: true,
            attempts: None,
            output: Output::default(),
            tally: Tally::default(),
            found: None,
            begun: false,
            dumps: 0,
            databases: Vec::new(),
            roles: BTreeSet::new(),
            owners: BTreeSet::new(),
        };
        reader.output.keeps = true;
        Self { script: Script::default(), reader, mark: Some(0) }
    }

    /// The same, to be loaded: what can be missed is tried.
    pub(super) fn to_load(database: &str) -> Self {
        let mut section = Self::new(database);
        section.reader.attempts = Some(Attempts::default());
        section
    }

    /// What has failed of that, by what psql said.
    pub(super) fn missing(&self, said: &str) -> Vec<Missed> {
        self.reader.attempts.as_ref().map(|attempts| attempts.missing(said)).unwrap_or_default()
    }

    /// Takes the next piece, and appends to `kept` what is to be restored of it. A statement that is open is not yet.
    pub(super) fn feed(&mut self, mut piece: &[u8], kept: &mut Vec<u8>) {
        while let (Some(seen), Some(first)) = (self.mark, piece.first()) {
            if BYTE_ORDER_MARK.get(seen) == Some(first) {
                piece = &piece[1..];
                self.mark = Some(seen + 1);
            } else {
                self.mark = None;
                // Part of one is no mark.
                let seen = if seen == BYTE_ORDER_MARK.len() { 0 } else { seen };
                self.script.feed(&BYTE_ORDER_MARK[..seen], &mut self.reader);
            }
        }
        self.script.feed(piece, &mut self.reader);
        self.reader.output.append_to(kept);
    }

    /// What must not be loaded, and in which line.
    pub(super) fn refused(&self) -> Option<&(usize, Refusal)> {
        self.reader.output.refused()
    }

    /// What was found.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn finish(mut self) -> Result<Found, Missing> {
        let rows = self.script.is_in_rows().then(|| self.script.rows());
        let refused = self.refused().cloned();
        let whole = self.script.finish(&mut self.reader);
        let reader = self.reader;
        if !reader.begun && reader.databases.is_empty() && reader.place == Place::Front {
            return Err(Missing::Dump);
        }
        // A statement without an end is cut off, whatever it looks like.
        if let Some((line, refusal)) = if whole { reader.output.refused().cloned() } else { refused } {
            return Err(Missing::Refused(line, refusal));
        }
        if let (Some(rows), Some(table)) = (rows, reader.tally.table()) {
            return Err(Missing::Rows(format!("it is truncated after {rows} rows of table {table}")));
        }
        if reader.cluster_open {
            return Err(Missing::End("pg_dumpall's end marker is missing"));
        }
        if !whole || [Place::Preamble, Place::Entries].contains(&reader.place) {
            return Err(Missing::End("pg_dump's end marker is missing"));
        }
        if reader.dumps > 1 {
            return Err(Missing::One);
        }
        match reader.found {
            Some(contents) => Ok(Found { contents, roles: reader.roles, owners: reader.owners }),
            None if reader.databases.is_empty() => Err(Missing::AnyDatabase),
            None => Err(Missing::Database(reader.databases)),
        }
    }
}

impl Visitor for Reader {
    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Comment(text) => {
                // What a comment is of is told by what comes after it.
                self.comment(text.trim_ascii());
                self.output.keeps = self.inside;
            }
            Item::Command(text) => {
                self.output.keeps = false;
                self.command(text);
            }
            Item::Statement { text, whole, words } => {
                // What brings rows is about no role, and there is much of it.
                let rows = words.first().is_some_and(|word| word == "INSERT" || word == "COPY");
                let tokens =
                    if rows { Vec::new() } else { tokens::tokens(&self.tally.decode(beginning(text))) };
                // Whoever reads what is kept must take strings as we do.
                self.output.keeps =
                    self.statement(text, words, &tokens) || is_plain_setting_of_strings(words);
                self.keeps_statement = self.output.keeps;
                if self.output.keeps {
                    self.note_roles(&tokens);
                    if let Some(refusal) = refused_statement(words, &tokens) {
                        self.output.refuse(text, refusal);
                    } else if whole
                        && let Some(attempt) =
                            self.attempts.as_mut().and_then(|attempts| attempts.attempt(text, &tokens))
                    {
                        self.output.replace(&attempt);
                    }
                }
            }
            Item::Data => self.output.keeps = self.keeps_statement,
            Item::End(_) | Item::Rows(_) => {}
        }
        if self.inside {
            self.tally.take(item);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.output.bytes(bytes);
    }
}

impl Reader {
    fn comment(&mut self, line: &[u8]) {
        if line == CLUSTER {
            (self.cluster, self.cluster_open, self.inside, self.place) = (true, true, false, Place::Globals);
        } else if line == CLUSTER_END {
            (self.cluster, self.cluster_open, self.inside, self.place) = (false, false, false, Place::Behind);
        } else if line == BEGIN {
            self.begun = true;
            self.place = Place::Preamble;
            if !self.cluster {
                self.begin(self.found.is_none());
            }
        } else if line == END {
            if self.inside {
                self.found.get_or_insert(std::mem::take(&mut self.tally.contents));
            }
            self.inside = false;
            self.place = Place::Behind;
        } else if let Some(name) =
            line.strip_prefix(b"-- Database \"").and_then(|rest| rest.strip_suffix(b"\" dump"))
        {
            self.name(&String::from_utf8_lossy(name));
        } else if self.place != Place::Globals && is_header(line) {
            if self.place == Place::Behind {
                // Entries without a beginning of their own.
                self.dumps += 1;
            }
            self.begun = true;
            self.place = Place::Entries;
            // "-- Name: DATABASE homeserver; Type: ACL; Schema: -; Owner: synapse"
            self.about_database = line.starts_with(b"-- Name: DATABASE ")
                || [&b"; Type: DATABASE; "[..], b"; Type: DATABASE PROPERTIES; "]
                    .iter()
                    .any(|kind| memchr::memmem::find(line, kind).is_some());
        }
    }

    /// A dump that may be the database's.
    fn begin(&mut self, inside: bool) {
        self.dumps += 1;
        self.inside = inside;
        self.about_database = false;
    }

    fn name(&mut self, database: &str) {
        if !self.databases.iter().any(|known| known == database) {
            self.databases.push(database.to_owned());
        }
    }

    fn command(&mut self, text: &[u8]) {
        let command = command(text);
        match command.strip_prefix(r"\connect ").and_then(connected) {
            // A dump for each database, in which pg_dump connects once it is made, or twice.
            Some(name) if self.cluster => {
                self.name(&name);
                let wanted = name == self.database;
                if wanted && !self.inside {
                    self.begin(self.found.is_none());
                }
                self.inside &= wanted;
                self.about_database = false;
            }
            Some(_) if self.place == Place::Entries && self.about_database => self.about_database = false,
            _ => {
                if let Some(refusal) = refused_command(text) {
                    self.output.refuse(text, refusal);
                }
            }
        }
    }

    /// Whether to hand this statement on.
    fn statement(&mut self, text: &[u8], words: &[String], tokens: &[Token]) -> bool {
        let shared = about_shared(tokens);
        match self.place {
            Place::Globals | Place::Behind if self.cluster => {
                // In front of a database's dump as well.
                if shared.is_none() && !is_setting(words) {
                    let word = |number: usize| words.get(number).map_or("", String::as_str);
                    self.output.refuse(text, Refusal::Statement(format!("{} {}", word(0), word(1))));
                }
                false
            }
            Place::Globals | Place::Behind => {
                self.output.refuse(text, Refusal::Behind);
                false
            }
            Place::Front | Place::Preamble | Place::Entries if !self.inside => false,
            Place::Front => !is_schema_public(tokens),
            Place::Preamble => !cleans(words, tokens) && shared.is_none(),
            Place::Entries => {
                let on_database = shared.as_ref().is_some_and(|kind| kind.ends_with("ON DATABASE"));
                !(is_schema_public(tokens) || on_database || self.about_database && shared.is_some())
            }
        }
    }

    fn note_roles(&mut self, tokens: &[Token]) {
        // Names in encodings that are not known here are not understood.
        let roles: Vec<_> = roles(tokens).into_iter().filter(|role| !role.contains('\u{fffd}')).collect();
        let verb = |word: &str| tokens.first().is_some_and(|token| token.is(word));
        if verb("alter") || verb("set") {
            self.owners.extend(roles.iter().cloned());
        }
        self.roles.extend(roles);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As pg_dump writes it (`appendPsqlMetaConnect`).
    fn connect(database: &str) -> String {
        let simple = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if !database.is_empty() && database.chars().all(simple) {
            return format!(r"\connect {database}");
        }
        let value = database.replace('\\', r"\\").replace('\'', r"\'");
        format!(r#"\connect -reuse-previous=on "dbname='{}'""#, value.replace('"', "\"\""))
    }

    fn database(name: &str, rows: &str) -> String {
        let owner = r"ALTER TABLE public.t OWNER TO synapse;";
        format!(
            "--\n-- PostgreSQL database dump\n--\n\n\\restrict k\n\
             --\n-- Name: x; Type: DATABASE; Schema: -; Owner: synapse\n--\n\nCREATE DATABASE x;\n\n\
             ALTER DATABASE x OWNER TO synapse;\n\n\\unrestrict k\n{}\n\\restrict k\n\n\
             --\n-- Name: x; Type: DATABASE PROPERTIES; Schema: -; Owner: synapse\n--\n\nALTER DATABASE x SET a TO b;\n\n\
             \\unrestrict k\n{}\n\\restrict k\n\nSET client_encoding = 'UTF8';\n\
             --\n-- Name: t; Type: TABLE; Schema: public; Owner: synapse\n--\n\nCREATE TABLE public.t (a text);\n{owner}\n\
             --\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: synapse\n--\n\n\
             COPY public.t (a) FROM stdin;\n{rows}\\.\n\n\
             --\n-- Name: DATABASE x; Type: ACL; Schema: -; Owner: synapse\n--\n\nGRANT ALL ON DATABASE x TO y;\n\n\
             --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict k\n\n",
            connect(name),
            connect(name)
        )
    }

    fn cluster() -> String {
        format!(
            "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE synapse;\n\n\
             --\n-- Database \"template1\" dump\n--\n\n{}--\n-- Database \"homeserver\" dump\n--\n\n{}\
             --\n-- Database \"it's\" dump\n--\n\n{}--\n-- PostgreSQL database cluster dump complete\n--\n\n",
            database("template1", ""),
            database("homeserver", "\\\\connect template1\n-- PostgreSQL database dump complete\nrow\n"),
            database("it's", "row\n"),
        )
    }

    fn read(text: &str, name: &str, piece: usize) -> (Result<Found, Missing>, String) {
        let mut section = Section::new(name);
        let mut kept = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            section.feed(piece, &mut kept);
        }
        (section.finish(), String::from_utf8(kept).unwrap())
    }

    #[test]
    fn of_a_cluster_one_database_is_left_and_nothing_about_databases() {
        let (found, kept) = read(&cluster(), "homeserver", 7);
        let found = found.unwrap();
        assert_eq!(found.contents.tables["public.t"], 3);
        assert_eq!(found.owners, ["synapse".to_owned()].into());
        for left_out in ["CREATE DATABASE", "ALTER DATABASE", "ON DATABASE", "CREATE ROLE"] {
            assert!(!kept.contains(left_out), "{kept}");
        }
        assert!(kept.lines().all(|line| !line.starts_with("\\connect")), "{kept}");
        assert_eq!(kept.matches("CREATE TABLE").count(), 1);
        assert!(!kept.contains("\\restrict") && !kept.contains("\\unrestrict"), "{kept}");
        assert_eq!(read(&cluster(), "it's", 100).0.unwrap().contents.tables["public.t"], 1);
        let names = ["template1", "homeserver", "it's"].map(str::to_owned).to_vec();
        assert_eq!(read(&cluster(), "none", 100).0.unwrap_err(), Missing::Database(names));
    }

    #[test]
    fn a_dump_of_one_database_leads_into_no_other() {
        let text = database("other", "a\nb\n");
        let clean = "\\restrict k\nSET x = 1;\nALTER TABLE IF EXISTS ONLY public.t DROP CONSTRAINT c;\nDROP DATABASE other;\n";
        let text = text.replacen("\\restrict k\n", clean, 1);
        let (found, kept) = read(&text, "homeserver", 100);
        assert_eq!(found.unwrap().contents.tables["public.t"], 2);
        for left_out in ["\\connect", "CREATE DATABASE", "ALTER DATABASE", "ON DATABASE"] {
            assert!(!kept.contains(left_out), "{kept}");
        }
        assert!(kept.contains("CREATE TABLE") && kept.contains("SET x") && !kept.contains("DROP"), "{kept}");
    }

    #[test]
    fn one_that_was_cut_off_is_noticed_wherever_that_was() {
        let text = cluster();
        for length in 0..text.len() - "\n--\n\n".len() {
            let found = read(&text[..length], "homeserver", 4096).0;
            assert!(found.is_err(), "{length}: {found:?}");
        }
    }

    #[test]
    fn a_database_that_all_identifiers_are_quoted_of_is_found() {
        let text = cluster().replace("\\connect homeserver", "\\connect \"homeserver\"");
        assert_eq!(read(&text, "homeserver", 100).0.unwrap().contents.tables["public.t"], 3);
    }

    /// What nobody gave a database to.
    fn plain(body: &str) -> String {
        format!(
            "--\n-- PostgreSQL database dump\n--\n\n\\restrict k\nSET client_encoding = 'UTF8';\n\n\
             --\n-- Name: t; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.t (a text);\n\n{body}\n\
             --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict k\n\n"
        )
    }

    #[test]
    fn what_stands_in_front_of_a_dump_is_kept_or_refused() {
        let front = "CREATE TABLE front (a int);\nINSERT INTO front VALUES (1);\n";
        let (found, kept) = read(&format!("{front}{}", plain("")), "x", 10);
        assert!(kept.starts_with(front), "{kept}");
        assert_eq!(found.unwrap().contents.not_counted, 1);
        let globals = "--\n-- PostgreSQL database cluster dump\n--\n\nSET a = b;\nCREATE ROLE x;\nGRANT x TO y;\n\n\
                       --\n-- PostgreSQL database cluster dump complete\n--\n\n";
        for text in [format!("{globals}{}", plain("")), format!("{}{globals}", plain(""))] {
            let (found, kept) = read(&text, "x", 10);
            assert!(
                kept.contains("CREATE TABLE") && !kept.contains("ROLE") && !kept.contains("GRANT"),
                "{kept}"
            );
            found.unwrap();
        }
        assert_eq!(read(globals, "x", 10).0.unwrap_err(), Missing::AnyDatabase);
        let odd = globals.replace("CREATE ROLE x", "CREATE TABLE t ()") + &plain("");
        assert!(matches!(read(&odd, "x", 10).0.unwrap_err(), Missing::Refused(6, _)));
    }

    #[test]
    fn what_comes_after_the_end_of_a_dump_is_no_part_of_it() {
        let behind = plain("") + "DROP TABLE t;\n";
        assert!(matches!(read(&behind, "x", 10).0.unwrap_err(), Missing::Refused(_, Refusal::Behind)));
        assert_eq!(read(&(plain("") + &plain("")), "x", 10).0.unwrap_err(), Missing::One);
        assert_eq!(read(&(plain("") + &cluster()), "homeserver", 10).0.unwrap_err(), Missing::One);
        assert_eq!(read(&(cluster() + &cluster()), "homeserver", 10).0.unwrap_err(), Missing::One);
        read(&(plain("") + &cluster()), "other", 10).0.unwrap();
    }

    #[test]
    fn an_end_marker_in_a_value_ends_nothing() {
        let text = plain(
            "INSERT INTO public.t VALUES ('q\n--\n-- PostgreSQL database dump complete\n--\n\nw');\nINSERT INTO public.t VALUES ('b');\n",
        );
        let end = text.find("w');").unwrap();
        assert!(matches!(read(&text[..end], "x", 10).0, Err(Missing::End(_))));
        assert!(matches!(read(&text[..end + 6], "x", 10).0, Err(Missing::End(_))));
        read(&text, "x", 10).0.unwrap();
    }

    #[test]
    fn the_schema_that_every_database_has_is_not_made_again() {
        let text = plain(
            "--\n-- Name: public; Type: SCHEMA; Schema: -; Owner: pg_database_owner\n--\n\nCREATE SCHEMA \"public\";\n\
             ALTER SCHEMA public OWNER TO pg_database_owner;\nCREATE SCHEMA public2;\n",
        );
        let (found, kept) = read(&text, "x", 10);
        assert!(
            !kept.contains("CREATE SCHEMA \"public\"") && kept.contains("CREATE SCHEMA public2"),
            "{kept}"
        );
        assert_eq!(found.unwrap().owners, ["pg_database_owner".to_owned()].into());
    }

    #[test]
    fn files_of_windows_are_read() {
        let text = format!("\u{feff}{}", plain("").replace('\n', "\r\n"));
        for size in [1, 2, 1000] {
            let (found, kept) = read(&text, "x", size);
            found.unwrap();
            assert!(!kept.contains('\u{feff}') && kept.contains("CREATE TABLE"), "{kept}");
        }
    }

    #[test]
    fn what_pg_dump_has_not_written_is_not_damaged() {
        for text in ["CREATE TABLE t (a int);\n", "-- MariaDB dump 10\nINSERT INTO `t` VALUES ('it\\'s');\n"]
        {
            assert_eq!(read(text, "x", 10).0.unwrap_err(), Missing::Dump);
        }
    }

    #[test]
    fn nothing_leads_into_another_database() {
        for body in [
            "\\connect live\n",
            "\\c live\n",
            "DROP DATABASE live;\n",
            "--\n-- Name: x; Type: DATABASE; Schema: -; Owner: x\n--\n\nCREATE DATABASE x;\n\\connect x\n\\connect live\n",
            "SELECT 1;\\! id\n",
        ] {
            assert!(matches!(read(&plain(body), "x", 10).0, Err(Missing::Refused(..))), "{body}");
        }
    }

    #[test]
    fn a_roles_name_is_read_in_the_encoding_of_the_dump() {
        let text = plain("GRANT SELECT ON TABLE public.t TO \"#\";\n").replace("'UTF8'", "'LATIN1'");
        let bytes: Vec<_> = text.bytes().map(|byte| if byte == b'#' { 0xc4 } else { byte }).collect();
        let mut section = Section::new("x");
        section.feed(&bytes, &mut Vec::new());
        assert_eq!(section.finish().unwrap().roles, ["Ä".to_owned()].into());
    }

    #[test]
    fn roles_of_what_is_kept_are_known() {
        let (found, _) = read(
            &plain("GRANT SELECT ON TABLE public.t TO \"gone 1\", gone2;\nALTER TABLE t OWNER TO gone3;\n"),
            "x",
            10,
        );
        let found = found.unwrap();
        assert_eq!(found.roles, ["gone 1", "gone2", "gone3"].map(str::to_owned).into());
        assert_eq!(found.owners, ["gone3".to_owned()].into());
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(piece in 1usize..300) {
            prop_assert_eq!(read(&cluster(), "homeserver", piece), read(&cluster(), "homeserver", 1 << 20));
        }
    }
}
