//! COPY's text format into its binary format (chapter "COPY", "File Formats").
//!
//! A server takes rows faster whose fields it need not look for, byte by byte, and whose numbers are numbers already.
//! Only types whose two forms are beyond doubt are turned: integers, booleans, and what is text in either. A table
//! that has any other column is loaded as it was dumped.

use std::str::FromStr;

use memchr::{memchr, memchr_iter};

use crate::error::{Error, Kind, Result};

/// The signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What pg_dump writes behind the rows.
const END: &[u8] = br"\.";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// What `jsonb` begins with.
const JSONB_VERSION: u8 = 1;

/// What is in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    Text,
    Jsonb,
}

impl Type {
    /// By its number in `pg_type.dat`.
    fn of(number: u32) -> Option<Self> {
        Some(match number {
            16 => Self::Boolean,
            21 => Self::SmallInt,
            23 => Self::Integer,
            20 => Self::BigInt,
            // text, character varying, json
            25 | 1043 | 114 => Self::Text,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }
}

/// The types of a table's columns, in the order in which they are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns(Vec<Type>);

impl Columns {
    /// Of types of these numbers; nothing if there is any that is not turned.
    pub(super) fn of(types: &[u32]) -> Option<Self> {
        let types = types.iter().map(|number| Type::of(*number)).collect::<Option<Vec<_>>>()?;
        (!types.is_empty() && i16::try_from(types.len()).is_ok()).then_some(Self(types))
    }
}

/// Turns rows, which come in pieces of any size.
pub(super) struct Binary<'a> {
    columns: &'a Columns,
    /// The beginning of a row whose end has not come.
    row: Vec<u8>,
    ended: bool,
}

impl<'a> Binary<'a> {
    /// The beginning goes to `out`.
    pub(super) fn new(columns: &'a Columns, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(HEADER);
        Self { columns, row: Vec::new(), ended: false }
    }

    /// # Errors
    /// [`Kind::Damaged`] if a row is not as COPY writes it.
    pub(super) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<()> {
        // In a value, a line end is written `\n`.
        while let Some(end) = memchr(b'\n', piece).filter(|_| !self.ended) {
            if self.row.is_empty() {
                self.ended = row(&piece[..end], self.columns, out)?;
            } else {
                self.row.extend_from_slice(&piece[..end]);
                self.ended = row(&self.row, self.columns, out)?;
                self.row.clear();
            }
            piece = &piece[end + 1..];
        }
        // Behind the end there are empty lines.
        if !self.ended {
            self.row.extend_from_slice(piece);
        }
        Ok(())
    }

    /// # Errors
    /// [`Kind::Damaged`] if the last row has no end.
    pub(super) fn finish(self, out: &mut Vec<u8>) -> Result<()> {
        if !self.row.is_empty() {
            return Err(not_copied("its end is missing"));
        }
        out.extend_from_slice(&TRAILER);
        Ok(())
    }
}

/// Turns a row; whether it was the end of them.
fn row(line: &[u8], Columns(columns): &Columns, out: &mut Vec<u8>) -> Result<bool> {
    if line == END {
        return Ok(true);
    }
    let count = i16::try_from(columns.len()).unwrap_or(i16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    let mut start = 0;
    let mut ends = memchr_iter(b'\t', line).chain([line.len()]);
    for column in columns {
        let end = ends.next().ok_or_else(|| not_copied("it has too few columns"))?;
        field(&line[start..end], *column, out)?;
        start = end + 1;
    }
    match ends.next() {
        None => Ok(false),
        Some(_) => Err(not_copied("it has too many columns")),
    }
}

fn field(text: &[u8], column: Type, out: &mut Vec<u8>) -> Result<()> {
    if text == br"\N" {
        out.extend_from_slice(&NULL);
        return Ok(());
    }
    match column {
        Type::Boolean => match text {
            b"t" => sized(&[1], out),
            b"f" => sized(&[0], out),
            _ => Err(not_copied("a boolean is neither t nor f")),
        },
        Type::SmallInt => sized(&number::<i16>(text)?.to_be_bytes(), out),
        Type::Integer => sized(&number::<i32>(text)?.to_be_bytes(), out),
        Type::BigInt => sized(&number::<i64>(text)?.to_be_bytes(), out),
        Type::Text => string(&[], text, out),
        Type::Jsonb => string(&[JSONB_VERSION], text, out),
    }
}

fn number<T: FromStr>(text: &[u8]) -> Result<T> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| not_copied("an integer is invalid"))
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let length = i32::try_from(bytes.len()).map_err(|_| not_copied("a value is too long"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// What `text` stands for, after a beginning.
fn string(beginning: &[u8], mut text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let at = out.len();
    sized(beginning, out)?;
    let start = at + NULL.len();
    while let Some(escape) = memchr(b'\\', text) {
        out.extend_from_slice(&text[..escape]);
        out.push(match text.get(escape + 1) {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0b,
            Some(b'\\') => b'\\',
            _ => return Err(not_copied("it has an unknown escape sequence")),
        });
        text = &text[escape + 2..];
    }
    out.extend_from_slice(text);
    let length = i32::try_from(out.len() - start).map_err(|_| not_copied("a value is too long"))?;
    out[at..start].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn not_copied(why: &str) -> Error {
    Error::new(Kind::Damaged, format!("a row is not in COPY format: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [u32; 8] = [16, 21, 23, 20, 25, 1043, 114, 3802];

    fn turned(types: &[u32], text: &[u8], piece: usize) -> Result<Vec<u8>> {
        let columns = Columns::of(types).unwrap();
        let mut out = Vec::new();
        let mut binary = Binary::new(&columns, &mut out);
        for piece in text.chunks(piece) {
            binary.push(piece, &mut out)?;
        }
        binary.finish(&mut out)?;
        Ok(out)
    }

    /// A file as the chapter describes it.
    fn file(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut file = b"PGCOPY\n\xff\r\n\0".to_vec();
        file.extend([0; 8]);
        for row in rows {
            file.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
            for field in *row {
                file.extend(field.map_or(-1, |field| i32::try_from(field.len()).unwrap()).to_be_bytes());
                file.extend(field.unwrap_or_default());
            }
        }
        file.extend([0xff, 0xff]);
        file
    }

    #[test]
    fn every_type_is_turned_whatever_the_pieces() {
        let text = b"t\t-32768\t7\t-9223372036854775808\t\ta\\tb\\\\n\\n\\r\\b\\f\\v \xc3\xa4\t{\"a\": \"\\\\n\"}\t[]\n\
                     \\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n\
                     f\t0\t-1\t10\t\\\\N\tNULL\tnull\t1\n\
                     \\.\n\n\n";
        let expected = file(&[
            &[
                Some(&[1]),
                Some(&[0x80, 0]),
                Some(&[0, 0, 0, 7]),
                Some(&[0x80, 0, 0, 0, 0, 0, 0, 0]),
                Some(b""),
                Some(b"a\tb\\n\n\r\x08\x0c\x0b \xc3\xa4"),
                Some(br#"{"a": "\n"}"#),
                Some(b"\x01[]"),
            ],
            &[None; 8],
            &[
                Some(&[0]),
                Some(&[0, 0]),
                Some(&[0xff; 4]),
                Some(&[0, 0, 0, 0, 0, 0, 0, 10]),
                Some(br"\N"),
                Some(b"NULL"),
                Some(b"null"),
                Some(b"\x011"),
            ],
        ]);
        for piece in [1, 2, 7, text.len()] {
            assert!(turned(&ALL, text, piece).unwrap() == expected, "{piece}");
        }
        for nothing in [&b""[..], b"\\.\n", b"\\.\n\n\n"] {
            assert!(turned(&ALL, nothing, 1).unwrap() == file(&[]));
        }
    }

    #[test]
    fn what_copy_does_not_write_is_damage() {
        for (types, text) in [
            (&[25][..], &b"a\tb\n"[..]),
            (&[25, 25], b"a\n"),
            (&[25], b"a"),
            (&[25], b"a\\\n"),
            (&[25], b"\\x41\n"),
            (&[25], b"\\101\n"),
            (&[16], b"true\n"),
            (&[21], b"32768\n"),
            (&[23], b"\n"),
            (&[20], b" 1\n"),
            (&[20], b"1.0\n"),
        ] {
            let error = turned(types, text, 3).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_table_with_any_other_type_is_left_as_it_is() {
        // bytea, double precision, timestamp with time zone, tsvector
        for other in [17, 701, 1184, 3614] {
            assert_eq!(Columns::of(&[25, other]), None);
        }
        assert_eq!(Columns::of(&[]), None);
        assert!(Columns::of(&ALL).is_some());
    }
}
