//! A file that is written in place: its room is reserved when it is made, so that a disk that is full later keeps nobody
//! from writing down what he is about to do.
//!
//! It has two slots of the same length. What is written goes into the one that holds the older text, so that a write that
//! is cut off leaves the newer one as it was. Each slot has a line with its number, the length of its text and the
//! checksum of both, then the text, then empty lines.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::{self, beneath, stamp};

/// A text gets at least so many bytes more than it has now.
const GROWTH: usize = 64 << 10;

/// What is longer is no file of ours.
const LONGEST: u64 = 64 << 20;

/// How a slot begins.
const MAGIC: &str = "journal";

/// A line of this length, with its end.
const HEADER: usize = 64;

/// A file with two slots, and where in it the newest text is.
#[derive(Debug)]
pub(in crate::upgrade) struct Slots {
    file: PathBuf,
    /// Length of a slot; nothing where the file has none yet.
    length: usize,
    /// The number of the newest text.
    sequence: u64,
}

/// What was found.
#[derive(Debug)]
pub(in crate::upgrade) enum Found {
    /// No such file.
    Nothing,
    /// The newest text.
    Text(Slots, String),
    /// It is not what we have written, for this reason.
    Unusable(String),
}

impl Slots {
    /// Makes the file, in place of one that is there; it lasts when this returns.
    ///
    /// # Errors
    /// [`Kind::File`], [`Kind::NoSpace`]: what was there is as it was then.
    pub(in crate::upgrade) fn create(file: &Path, text: &str) -> Result<Self> {
        let length = (HEADER + text.len() + GROWTH).next_power_of_two();
        let mut slots = Self { file: file.to_owned(), length, sequence: 1 };
        let mut content = slots.slot(text);
        // The other one is empty, and of no number.
        content.resize(2 * length, b'\n');
        slots.sequence = 1;
        let directory = files::parent(file);
        let mut temporary =
            tempfile::Builder::new().prefix(".journal.").tempfile_in(directory).at("write", file)?;
        temporary.write_all(&content).at("write", file)?;
        temporary.as_file().sync_all().at("sync", file)?;
        temporary.persist(file).map_err(|error| Error::io("write", file, error.error))?;
        files::sync_directory(directory)?;
        Ok(slots)
    }

    /// Reads the newest text that is whole.
    ///
    /// # Errors
    /// [`Kind::File`] if it cannot be read.
    pub(in crate::upgrade) fn read(file: &Path) -> Result<Found> {
        let open = match beneath::open(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Ok(Found::Unusable(error.to_string()));
            }
            open => open.at("read", file)?,
        };
        let meta = open.metadata().at("read", file)?;
        if !files::is_private(&meta, geteuid(), 0o022) {
            return Ok(Found::Unusable("it does not belong to this user".to_owned()));
        }
        match beneath::read_all(open, LONGEST) {
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Found::Unusable(error.to_string())),
            bytes => bytes.at("read", file).map(|bytes| Self::parse(file, &bytes)),
        }
    }

    fn parse(file: &Path, bytes: &[u8]) -> Found {
        let unusable = |reason: &str| Found::Unusable(reason.to_owned());
        if bytes.is_empty() {
            return unusable("it is empty");
        }
        let length = bytes.len() / 2;
        let slots = [&bytes[..length], &bytes[length..]];
        let newest = slots.into_iter().filter_map(parse_slot).max_by_key(|(sequence, _)| *sequence);
        let text = match newest {
            Some((sequence, text)) => Some((Self { file: file.to_owned(), length, sequence }, text)),
            // Earlier versions wrote nothing but the text.
            None if bytes.first() == Some(&b'{') => {
                Some((Self { file: file.to_owned(), length: 0, sequence: 0 }, bytes))
            }
            None => None,
        };
        match text.map(|(slots, text)| (slots, String::from_utf8(text.to_vec()))) {
            Some((slots, Ok(text))) => Found::Text(slots, text),
            _ => unusable("neither of its two copies is intact"),
        }
    }

    /// Writes a new text; it lasts when this returns.
    ///
    /// # Errors
    /// [`Kind::File`]; [`Kind::NoSpace`] only of a text that has grown beyond measure. The one before is as it was then.
    pub(in crate::upgrade) fn write(&mut self, text: &str) -> Result<()> {
        if HEADER + text.len() > self.length {
            *self = Self::create(&self.file, text)?;
            return Ok(());
        }
        self.sequence += 1;
        let content = self.slot(text);
        // The first one has odd numbers.
        let offset = if self.sequence % 2 == 1 { 0 } else { self.length as u64 };
        let open = beneath::open_to_write(&self.file).at("write", &self.file)?;
        write_at(&open, &content, offset).at("write", &self.file)
    }

    fn slot(&self, text: &str) -> Vec<u8> {
        let checksum = checksum(self.sequence, text.as_bytes());
        let header = format!("{MAGIC} {:020} {:010} {checksum:08x}", self.sequence, text.len());
        let mut slot = format!("{header:<width$}\n{text}", width = HEADER - 1).into_bytes();
        slot.resize(self.length, b'\n');
        slot
    }
}

fn write_at(file: &File, content: &[u8], offset: u64) -> std::io::Result<()> {
    file.write_all_at(content, offset)?;
    file.sync_data()
}

/// The number and the text of a slot that is whole.
fn parse_slot(slot: &[u8]) -> Option<(u64, &[u8])> {
    let (header, rest) = slot.split_at_checked(HEADER)?;
    let mut words = std::str::from_utf8(header).ok()?.split_whitespace();
    if words.next() != Some(MAGIC) {
        return None;
    }
    let (sequence, length) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let checksum = u32::from_str_radix(words.next()?, 16).ok()?;
    let text = rest.get(..length)?;
    (self::checksum(sequence, text) == checksum).then_some((sequence, text))
}

/// Of the number, too: a line that is cut off must not give an old text a new one.
fn checksum(sequence: u64, text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc32fast::hash(&sequence.to_le_bytes()));
    hasher.update(text);
    hasher.finalize()
}

/// Gives what is there another name, which tells why; returns that.
///
/// # Errors
/// [`Kind::File`].
pub(in crate::upgrade) fn set_aside(file: &Path, now: jiff::Timestamp) -> Result<PathBuf> {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".unusable-{}", stamp::write(now)));
    let aside = PathBuf::from(name);
    if aside.symlink_metadata().is_ok() {
        return Err(Error::new(Kind::File, format!("{} already exists", aside.display())));
    }
    std::fs::rename(file, &aside).at("rename", file)?;
    files::sync_directory(files::parent(file))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: &Path) -> String {
        match Slots::read(file).unwrap() {
            Found::Text(_, text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_text_is_read_and_a_write_that_is_cut_off_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("journal.json");
        assert!(matches!(Slots::read(&file).unwrap(), Found::Nothing));
        let mut slots = Slots::create(&file, "one").unwrap();
        assert_eq!(text(&file), "one");
        for number in 2..6 {
            let before = std::fs::read(&file).unwrap();
            let (old, new) = (text(&file), format!("text {number}"));
            slots.write(&new).unwrap();
            assert_eq!(text(&file), new);
            let after = std::fs::read(&file).unwrap();
            assert_eq!(before.len(), after.len());
            let start = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
            let slot = start / (before.len() / 2) * (before.len() / 2);
            let end = slot + HEADER + new.len();
            for cut in start + 1..end {
                let torn = [&after[..cut], &before[cut..]].concat();
                if torn == after {
                    continue;
                }
                let Found::Text(_, found) = Slots::parse(&file, &torn) else { panic!("{cut}") };
                assert!(found == old || found == new, "{cut}: {found}");
            }
        }
    }

    #[test]
    fn a_text_that_grows_gets_more_room() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("journal.json");
        let mut slots = Slots::create(&file, "short").unwrap();
        let long = "x".repeat(1 << 20);
        slots.write(&long).unwrap();
        assert_eq!(text(&file), long);
        slots.write("short again").unwrap();
        assert_eq!(text(&file), "short again");
    }

    #[test]
    fn what_is_not_ours_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("journal.json");
        for (content, used) in
            [("", false), ("{\"format\": 1}", true), ("journal 1", false), ("\0\0\0", false)]
        {
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(matches!(Slots::read(&file).unwrap(), Found::Text(..)), used, "{content}");
        }
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(matches!(Slots::read(&file).unwrap(), Found::Unusable(_)));
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Slots::read(&file).unwrap(), Found::Unusable(_)));
    }
}
