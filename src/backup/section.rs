//! What belongs to one database in the SQL of pg_dump and pg_dumpall.
//!
//! Such SQL may name databases: `\connect` leads psql into another one, `ALTER DATABASE` and the like change one that
//! is there. A restore is into a new database, and into nothing else: these are left out, and of a whole cluster's dump
//! (pg_dumpall) everything but the wanted database is.

use std::collections::BTreeSet;

use super::rows::{Contents, RowCounter};

/// Longer lines are no comment and no command of pg_dump's.
const LONGEST: usize = 64 * 1024;

const CLUSTER: &[u8] = b"-- PostgreSQL database cluster dump";
const CLUSTER_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
const BEGIN: &[u8] = b"-- PostgreSQL database dump";
const END: &[u8] = b"-- PostgreSQL database dump complete";

/// What is needed of what comes before the first entry.
const PREAMBLE: [&[u8]; 4] = [b"--", b"SET ", b"SELECT pg_catalog.set_config(", br"\"];

/// Fed with SQL in pieces of any size; hands on what belongs to the database.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Section {
    /// What leads to the database.
    connect: Vec<u8>,
    line: Vec<u8>,
    /// The line was too long to be kept.
    cut: bool,
    counter: RowCounter,
    cluster: bool,
    cluster_ended: bool,
    inside: bool,
    /// Within an entry about the database as a whole.
    about_database: bool,
    /// Before the first entry: with `--clean`, what is there already is dropped here, databases too.
    preamble: bool,
    found: Option<Result<Contents, String>>,
    databases: Vec<String>,
    owners: BTreeSet<String>,
    /// How many dumps of one database each it has, if it is not of a cluster.
    dumps: usize,
}

/// What a dump of SQL holds for one database.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its rows.
    pub(super) contents: Contents,
    /// Roles that own what is in it, as they are quoted in SQL.
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
    /// That there is only one dump in it.
    One,
}

impl Section {
    /// What belongs to `database`; a dump of one database is that, whatever its name.
    pub(super) fn new(database: &str) -> Self {
        Self {
            connect: connect(database).into_bytes(),
            line: Vec::new(),
            cut: false,
            counter: RowCounter::default(),
            cluster: false,
            cluster_ended: false,
            inside: true,
            about_database: false,
            preamble: true,
            found: None,
            databases: Vec::new(),
            owners: BTreeSet::new(),
            dumps: 0,
        }
    }

    /// Takes the next piece, and appends to `kept` what is to be restored of it.
    pub(super) fn feed(&mut self, mut piece: &[u8], kept: &mut Vec<u8>) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end + 1);
            // Most are whole, and most are rows.
            if self.line.is_empty() && !self.cut {
                self.whole(line, kept);
            } else {
                self.part(line, kept);
                let line = std::mem::take(&mut self.line);
                if !std::mem::take(&mut self.cut) {
                    self.whole(&line, kept);
                }
            }
            piece = rest;
        }
        if !piece.is_empty() {
            self.part(piece, kept);
        }
    }

    /// Part of a line; one that has become too long is handed on as it comes.
    fn part(&mut self, piece: &[u8], kept: &mut Vec<u8>) {
        self.line.extend_from_slice(piece);
        if self.cut || self.line.len() > LONGEST {
            self.cut = true;
            self.counter.feed(&self.line);
            if self.inside && !self.about_database {
                kept.extend_from_slice(&self.line);
            }
            self.line.clear();
        }
    }

    fn whole(&mut self, line: &[u8], kept: &mut Vec<u8>) {
        let is_statement = !self.counter.is_in_rows();
        self.counter.feed(line);
        let keep = !is_statement || self.statement(line.trim_ascii_end());
        if keep && self.inside && !self.about_database {
            kept.extend_from_slice(line);
        }
        if is_statement && self.inside && line.trim_ascii_end() == END {
            self.found = Some(std::mem::take(&mut self.counter).finish());
            // Nothing that follows a cluster's section belongs to it.
            self.inside = !self.cluster;
        }
    }

    /// Whether to keep this line, which is no row.
    fn statement(&mut self, line: &[u8]) -> bool {
        if line.starts_with(br"\connect ") {
            self.inside = !self.cluster || (line == self.connect && self.found.is_none());
            self.counter = RowCounter::default();
            self.about_database = false;
            self.preamble = true;
            return false;
        }
        if line == CLUSTER && self.databases.is_empty() {
            self.cluster = true;
            self.inside = false;
        }
        self.cluster_ended |= line == CLUSTER_END;
        self.dumps += usize::from(line == BEGIN && !self.cluster);
        if let Some(header) = line.strip_prefix(b"-- Name: ") {
            self.preamble = false;
            // "-- Name: DATABASE homeserver; Type: ACL; Schema: -; Owner: synapse"
            self.about_database = header.starts_with(b"DATABASE ")
                || [&b"; Type: DATABASE; "[..], b"; Type: DATABASE PROPERTIES; "]
                    .iter()
                    .any(|kind| memchr::memmem::find(header, kind).is_some());
        } else if [&b"-- Data for Name: "[..], br"\restrict ", br"\unrestrict "]
            .iter()
            .any(|start| line.starts_with(start))
            || line == END
        {
            self.about_database = false;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(name) =
            line.strip_prefix(b"-- Database \"").and_then(|rest| rest.strip_suffix(b"\" dump"))
        {
            self.databases.push(text(name));
        }
        if self.inside && !self.about_database && line.starts_with(b"ALTER ") {
            let owner = memchr::memmem::rfind(line, b" OWNER TO ").map(|at| &line[at + 10..]);
            self.owners.extend(owner.and_then(|owner| owner.strip_suffix(b";")).map(text));
        }
        // A command is nothing to leave out without a word.
        !self.preamble || PREAMBLE.iter().any(|start| line.starts_with(start)) || line.is_empty()
    }

    /// What was found.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn finish(self) -> Result<Found, Missing> {
        let end = match self.cluster {
            true => "pg_dumpall's end marker is missing",
            false => "pg_dump's end marker is missing",
        };
        if self.cluster && !self.cluster_ended || !self.line.is_empty() {
            return Err(Missing::End(end));
        }
        if self.dumps > 1 {
            return Err(Missing::One);
        }
        match self.found {
            None if self.cluster => Err(Missing::Database(self.databases)),
            None => Err(Missing::End(end)),
            Some(contents) => Ok(Found { contents: contents.map_err(Missing::Rows)?, owners: self.owners }),
        }
    }
}

/// As pg_dump writes it (`appendPsqlMetaConnect`).
fn connect(database: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if !database.is_empty() && database.chars().all(simple) {
        return format!(r"\connect {database}");
    }
    let value = database.replace('\\', r"\\").replace('\'', r"\'");
    format!(r#"\connect -reuse-previous=on "dbname='{}'""#, value.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        assert_eq!(found.owners.into_iter().collect::<Vec<_>>(), ["synapse"]);
        assert!(!kept.contains("DATABASE x") && !kept.contains("CREATE ROLE"), "{kept}");
        assert!(kept.lines().all(|line| !line.starts_with("\\connect")), "{kept}");
        assert_eq!(kept.matches("CREATE TABLE").count(), 1);
        assert_eq!(kept.matches("\\restrict k").count(), 2);
        assert_eq!(kept.matches("\\unrestrict k").count(), 1);
        assert!(kept.ends_with("-- PostgreSQL database dump complete\n"), "{kept}");
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
        assert!(!kept.contains("\\connect") && !kept.contains("DATABASE x"), "{kept}");
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
    fn a_long_row_passes_in_little_memory() {
        let mut section = Section::new("x");
        let mut kept = Vec::new();
        section.feed(b"-- Data for Name: t; Type: TABLE DATA; \nCOPY public.t (a) FROM stdin;\n", &mut kept);
        let start = kept.len();
        for _ in 0..100 {
            section.feed(&[b'x'; 10_000], &mut kept);
            assert!(section.line.len() <= LONGEST + 10_000);
        }
        section.feed(b"\n\\.\n-- PostgreSQL database dump complete\n", &mut kept);
        assert_eq!(kept.len() - start, 1_000_000 + 4 + 37);
        assert_eq!(section.finish().unwrap().contents.tables["public.t"], 1);
    }

    proptest! {
        #[test]
        fn the_size_of_the_pieces_does_not_matter(piece in 1usize..300) {
            prop_assert_eq!(read(&cluster(), "homeserver", piece), read(&cluster(), "homeserver", 1 << 20));
        }
    }
}
