//! The encoding of a client, as far as names in it are understood.

use std::borrow::Cow;

/// How the bytes of a dump are characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// What is no UTF-8 is not understood.
    #[default]
    Utf8,
    /// What is no ASCII is not understood: in others, bytes may look like UTF-8 and mean something else.
    Ascii,
    /// A character each, and what these bytes are besides.
    Single(&'static [(u8, char)]),
}

const LATIN9: &[(u8, char)] =
    &[(0xa4, '€'), (0xa6, 'Š'), (0xa8, 'š'), (0xb4, 'Ž'), (0xb8, 'ž'), (0xbc, 'Œ'), (0xbd, 'œ'), (0xbe, 'Ÿ')];

const WIN1252: &[(u8, char)] = &[
    (0x80, '€'),
    (0x82, '‚'),
    (0x83, 'ƒ'),
    (0x84, '„'),
    (0x85, '…'),
    (0x86, '†'),
    (0x87, '‡'),
    (0x88, 'ˆ'),
    (0x89, '‰'),
    (0x8a, 'Š'),
    (0x8b, '‹'),
    (0x8c, 'Œ'),
    (0x8e, 'Ž'),
    (0x91, '‘'),
    (0x92, '’'),
    (0x93, '“'),
    (0x94, '”'),
    (0x95, '•'),
    (0x96, '–'),
    (0x97, '—'),
    (0x98, '˜'),
    (0x99, '™'),
    (0x9a, 'š'),
    (0x9b, '›'),
    (0x9c, 'œ'),
    (0x9e, 'ž'),
    (0x9f, 'Ÿ'),
];

impl Encoding {
    /// That of `SET client_encoding = 'LATIN1';`.
    pub(super) fn of(statement: &[u8]) -> Self {
        let statement = String::from_utf8_lossy(statement).to_ascii_uppercase();
        match statement.split('\'').nth(1) {
            Some("LATIN1") => Self::Single(&[]),
            Some("LATIN9") => Self::Single(LATIN9),
            Some("WIN1252") => Self::Single(WIN1252),
            // Of the latter, the server does not know either what they are.
            Some("UTF8" | "SQL_ASCII") | None => Self::Utf8,
            Some(_) => Self::Ascii,
        }
    }

    /// The text; what is not understood is U+FFFD.
    pub(super) fn decode(self, text: &[u8]) -> Cow<'_, str> {
        match self {
            Self::Utf8 => String::from_utf8_lossy(text),
            Self::Ascii if text.is_ascii() => String::from_utf8_lossy(text),
            Self::Ascii => {
                let understood = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { '\u{fffd}' };
                text.iter().map(understood).collect()
            }
            Self::Single(others) => {
                let other = |byte: u8| others.iter().find(|(of, _)| *of == byte).map(|(_, is)| *is);
                text.iter().map(|&byte| other(byte).unwrap_or(char::from(byte))).collect()
            }
        }
    }
}
