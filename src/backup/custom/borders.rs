//! Where in a dump the rows of an entry begin, found while it passes.

use super::entry::Entry;
use super::fields::{LARGE_OBJECTS, ROWS, Recorder, get_int};
use super::header::{CUSTOM, Form, Header, MAGIC};
use crate::archive::Borders;

/// A longer table of contents is none.
const LONGEST_TOC: usize = 256 << 20;

/// Fed with a dump from its beginning.
#[derive(Debug, Default)]
pub(in crate::backup) struct EntryBorders {
    state: State,
    /// What has come of the table of contents, or of the next field.
    pending: Vec<u8>,
    /// How many bytes of the table of contents have been taken before these.
    seen: usize,
    /// How long a number is.
    int: usize,
    /// The entries of the table of contents that are still to come, once its header has.
    form: Option<Form>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Toc,
    /// The kind of the next entry's rows, and its number.
    Entry,
    /// The number of the next large object.
    Object,
    /// The length of the next block, of a table or of a large object.
    Block { object: bool },
    /// So much of a block is still to come.
    Content { left: usize, object: bool },
    /// It is none that is known, or is over.
    Unknown,
}

impl Borders for EntryBorders {
    fn feed(&mut self, piece: &[u8]) -> Vec<usize> {
        let mut places = Vec::new();
        let mut rest = piece;
        while !rest.is_empty() && self.state != State::Unknown {
            rest = match self.state {
                State::Toc => self.toc(rest),
                State::Content { left, object } => {
                    let taken = left.min(rest.len());
                    self.state = match left - taken {
                        0 => State::Block { object },
                        left => State::Content { left, object },
                    };
                    &rest[taken..]
                }
                _ => self.field(rest),
            };
            if self.state == State::Entry && self.pending.is_empty() {
                places.push(piece.len() - rest.len());
            }
        }
        places
    }
}

impl EntryBorders {
    /// Takes what belongs to the table of contents. Its entries are read as they come, each once; of the one at the end of a
    /// piece, the beginning is kept.
    fn toc<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let before = self.pending.len();
        self.pending.extend_from_slice(piece);
        let is_dump =
            self.seen > 0 || self.pending.iter().zip(MAGIC).all(|(byte, expected)| byte == expected);
        let mut taken = 0;
        let next = loop {
            let rest = &self.pending[taken..];
            let mut source = Recorder { source: rest, int: self.int, record: Vec::new() };
            let read = match self.form {
                None => Header::read(&mut source, CUSTOM).map(|header| {
                    self.int = header.int;
                    self.form = header.known;
                }),
                Some(form) if form.count > 0 => Entry::read(&mut source, form).map(|_| {
                    self.form = Some(Form { count: form.count - 1, ..form });
                }),
                Some(_) => break Some(State::Entry),
            };
            match read {
                Ok(()) if self.form.is_none() => break Some(State::Unknown),
                Ok(()) => taken += rest.len() - source.source.len(),
                // It goes on in the next piece.
                Err(_) if is_dump && self.seen + self.pending.len() < LONGEST_TOC => break None,
                Err(_) => break Some(State::Unknown),
            }
        };
        if let Some(next) = next {
            self.state = next;
            self.pending = Vec::new();
            return &piece[taken.saturating_sub(before)..];
        }
        self.seen += taken;
        self.pending.drain(..taken);
        &[]
    }

    /// Takes what belongs to the next field, and understands it once it is complete.
    fn field<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let kind = usize::from(self.state == State::Entry);
        let length = kind + 1 + self.int;
        let taken = (length - self.pending.len()).min(piece.len());
        self.pending.extend_from_slice(&piece[..taken]);
        if self.pending.len() == length {
            let number = get_int(&mut &self.pending[kind..], self.int);
            self.state = match (self.state, self.pending[0], number) {
                (State::Entry, ROWS, Ok(_)) => State::Block { object: false },
                (State::Entry, LARGE_OBJECTS, Ok(_)) | (State::Block { object: true }, _, Ok(0)) => {
                    State::Object
                }
                (State::Object | State::Block { object: false }, _, Ok(0)) => State::Entry,
                (State::Object, _, Ok(_)) => State::Block { object: true },
                (State::Block { object }, _, Ok(number)) => {
                    usize::try_from(number).map_or(State::Unknown, |left| State::Content { left, object })
                }
                _ => State::Unknown,
            };
            self.pending.clear();
        }
        &piece[taken..]
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::put_int;
    use super::super::testing::{dump, entries, text};
    use super::super::{Body, Toc};
    use super::*;
    use crate::archive::parts_of;

    fn data() -> Vec<u8> {
        let mut data = dump(16, &entries());
        for table in [3, 4] {
            data.push(ROWS);
            put_int(&mut data, table, 4);
            for row in 0..table * 100 {
                text(&mut data, Some(&format!("row {row}\n")));
            }
            put_int(&mut data, 0, 4);
        }
        data.push(LARGE_OBJECTS);
        put_int(&mut data, 3, 4);
        for object in [1, 2] {
            put_int(&mut data, object, 4);
            text(&mut data, Some("object"));
            text(&mut data, Some("more"));
            put_int(&mut data, 0, 4);
        }
        put_int(&mut data, 0, 4);
        data.push(ROWS);
        put_int(&mut data, 4, 4);
        put_int(&mut data, 0, 4);
        data
    }

    #[test]
    fn rows_can_be_read_from_every_border() {
        let data = data();
        for length in [1, 2, 13, 1000, data.len()] {
            let mut borders = EntryBorders::default();
            let mut places = Vec::new();
            for (number, piece) in data.chunks(length).enumerate() {
                places.extend(borders.feed(piece).into_iter().map(|place| number * length + place));
            }
            assert_eq!(places.len(), 5, "{length}");
            let toc = Toc::read(&data[..]).unwrap();
            let numbers = places
                .iter()
                .map(|&place| Body::new(&data[place..], &toc).next().unwrap().map(|rows| rows.id));
            assert_eq!(numbers.collect::<Vec<_>>(), [Some(3), Some(4), Some(3), Some(4), None]);
        }
    }

    #[test]
    fn a_dump_that_is_stored_as_it_is_has_parts_from_border_to_border() {
        let mut data = data();
        let first = data.len();
        data.push(ROWS);
        put_int(&mut data, 3, 4);
        for _ in 0..100 {
            text(&mut data, Some(&"x".repeat(99_999)));
        }
        put_int(&mut data, 0, 4);
        let second = data.len();
        data.extend_from_within(first..);
        data.push(ROWS);
        put_int(&mut data, 4, 4);
        put_int(&mut data, 0, 4);
        let lengths = |dump: &[u8]| {
            let parts = parts_of(dump, &mut EntryBorders::default()).unwrap();
            parts.into_iter().map(|part| part.bytes).collect::<Vec<_>>()
        };
        let whole = data.len() as u64;
        let (second, third) = (second as u64, (2 * second - first) as u64);
        assert_eq!(lengths(&data), [second, third - second, whole - third]);
        assert_eq!(lengths(&data[..first]), [first as u64]);
    }

    #[test]
    fn what_is_not_known_has_no_borders() {
        let newer = b"PGDMP\x01\x20\x00\x04\x08\x01and so on";
        let mut garbled = dump(16, &entries());
        garbled.extend([ROWS, 0, 3, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9]);
        for (bytes, expected) in
            [(&newer[..], 0), (b"-- PostgreSQL database dump\n", 0), (b"P", 0), (&garbled, 1)]
        {
            assert_eq!(EntryBorders::default().feed(bytes).len(), expected);
        }
    }
}
