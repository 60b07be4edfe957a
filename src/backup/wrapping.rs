//! What a file is, by its first bytes and whatever its name.

use std::path::Path;

/// So many of the first bytes tell what it is.
pub(super) const FIRST: usize = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// pg_dump's custom format.
    Custom,
    /// Gzip, of something else.
    Gzip,
    /// Zstandard, of something else.
    Zstd,
    /// Nothing of these: SQL, if it is of pg_dump.
    Text,
    /// Nothing at all.
    Empty,
    /// What is not read here.
    Other(Other),
}

/// What another program makes readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// pg_dump's tar format.
    DumpTar,
    /// Its directory format.
    DumpDirectory,
    Tar,
    Zip,
    Xz,
    Bzip2,
    Lz4,
    /// As PowerShell writes files.
    Utf16,
    Age,
    Pgp,
}

/// What begins like this.
pub(super) fn of(first: &[u8]) -> Wrapping {
    const STARTS: [(&[u8], Wrapping); 12] = [
        (b"PGDMP", Wrapping::Custom),
        (b"\x1f\x8b", Wrapping::Gzip),
        (b"\x28\xb5\x2f\xfd", Wrapping::Zstd),
        (b"\xfd7zXZ\0", Wrapping::Other(Other::Xz)),
        (b"BZh", Wrapping::Other(Other::Bzip2)),
        (b"\x04\x22\x4d\x18", Wrapping::Other(Other::Lz4)),
        (b"PK\x03\x04", Wrapping::Other(Other::Zip)),
        (b"\xff\xfe", Wrapping::Other(Other::Utf16)),
        (b"\xfe\xff", Wrapping::Other(Other::Utf16)),
        (b"age-encryption.org/", Wrapping::Other(Other::Age)),
        (b"-----BEGIN AGE ENCRYPTED FILE", Wrapping::Other(Other::Age)),
        (b"-----BEGIN PGP MESSAGE", Wrapping::Other(Other::Pgp)),
    ];
    if let Some((_, wrapping)) = STARTS.iter().find(|(start, _)| first.starts_with(start)) {
        return *wrapping;
    }
    match first {
        [] => Wrapping::Empty,
        // Without a byte order mark.
        [b'-' | b'\n' | b'\r', 0, ..] | [0, b'-' | b'\n' | b'\r', ..] => Wrapping::Other(Other::Utf16),
        _ if first.get(257..262) == Some(b"ustar") => match first.starts_with(b"toc.dat\0") {
            true => Wrapping::Other(Other::DumpTar),
            false => Wrapping::Other(Other::Tar),
        },
        // A tar without a magic number, as pg_dump once wrote it.
        _ if first.starts_with(b"toc.dat\0") => Wrapping::Other(Other::DumpTar),
        _ => Wrapping::Text,
    }
}

impl Other {
    /// What that is.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DumpTar => "a dump in pg_dump's tar format",
            Self::DumpDirectory => "a dump in pg_dump's directory format",
            Self::Tar => "a tar archive",
            Self::Zip => "a zip archive",
            Self::Xz => "compressed by xz",
            Self::Bzip2 => "compressed by bzip2",
            Self::Lz4 => "compressed by lz4",
            Self::Utf16 => "text in UTF-16",
            Self::Age => "encrypted with age",
            Self::Pgp => "encrypted with OpenPGP",
        }
    }

    /// The command that makes of `path` what can be read, in `./readable.sql`; `unpack` comes in front, if it is packed.
    pub(super) fn command(self, path: &Path, unpack: Option<&str>) -> String {
        let file = quoted(&path.to_string_lossy());
        let readable = "readable.sql";
        let (program, from_input) = match self {
            Self::DumpTar => (format!("pg_restore -f {readable} "), true),
            Self::DumpDirectory => (format!("pg_restore -f {readable} "), false),
            Self::Tar => ("tar -xvf ".to_owned(), true),
            Self::Zip => ("unzip ".to_owned(), false),
            Self::Xz => ("xz -dc ".to_owned(), true),
            Self::Bzip2 => ("bzip2 -dc ".to_owned(), true),
            Self::Lz4 => ("lz4 -dc ".to_owned(), true),
            Self::Utf16 => ("iconv -f UTF-16 -t UTF-8 ".to_owned(), true),
            Self::Age => ("age -d -i KEY ".to_owned(), true),
            Self::Pgp => ("gpg -d ".to_owned(), true),
        };
        let written = match self {
            Self::DumpTar | Self::DumpDirectory | Self::Tar | Self::Zip => String::new(),
            _ => format!(" >{readable}"),
        };
        match unpack {
            Some(unpack) if from_input => {
                let input = match self {
                    Self::Tar => "-",
                    _ => "",
                };
                format!("{unpack} {file} | {}{written}", format!("{program}{input}").trim_end())
            }
            _ => format!("{program}{file}{written}"),
        }
    }
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    match !word.is_empty() && word.chars().all(simple) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        let mut tar = b"toc.dat\0".to_vec();
        tar.resize(257, 0);
        tar.extend_from_slice(b"ustar\x0000");
        let other = |other| Wrapping::Other(other);
        for (first, wrapping) in [
            (&b"PGDMP\x01\x0f"[..], Wrapping::Custom),
            (b"\x1f\x8b\x08", Wrapping::Gzip),
            (b"\x28\xb5\x2f\xfd\x04", Wrapping::Zstd),
            (b"\xfd7zXZ\0\x00", other(Other::Xz)),
            (b"BZh91AY&SY", other(Other::Bzip2)),
            (b"\x04\x22\x4d\x18", other(Other::Lz4)),
            (b"PK\x03\x04", other(Other::Zip)),
            (b"\xff\xfe-\0-\0", other(Other::Utf16)),
            (b"\xfe\xff\0-\0-", other(Other::Utf16)),
            (b"-\0-\0\r\0", other(Other::Utf16)),
            (b"age-encryption.org/v1", other(Other::Age)),
            (&tar, other(Other::DumpTar)),
            (b"", Wrapping::Empty),
            (b"--\n-- PostgreSQL database dump\n--\n", Wrapping::Text),
            (b"\xef\xbb\xbf--\r\n", Wrapping::Text),
            (b"CREATE TABLE t (a int);", Wrapping::Text),
        ] {
            assert_eq!(of(first), wrapping, "{first:?}");
        }
        tar[0] = b'x';
        assert_eq!(of(&tar), other(Other::Tar));
    }

    #[test]
    fn a_command_makes_it_readable() {
        let path = Path::new("/root/it's.x");
        for (other, unpack, command) in [
            (Other::DumpTar, None, r"pg_restore -f readable.sql '/root/it'\''s.x'"),
            (Other::DumpTar, Some("gzip -dc"), r"gzip -dc '/root/it'\''s.x' | pg_restore -f readable.sql"),
            (Other::Xz, None, r"xz -dc '/root/it'\''s.x' >readable.sql"),
            (
                Other::Utf16,
                Some("zstd -dc"),
                r"zstd -dc '/root/it'\''s.x' | iconv -f UTF-16 -t UTF-8 >readable.sql",
            ),
            (Other::Tar, Some("gzip -dc"), r"gzip -dc '/root/it'\''s.x' | tar -xvf -"),
        ] {
            assert_eq!(other.command(path, unpack), command);
        }
    }
}
