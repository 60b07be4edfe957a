//! Where a dump comes from that is loaded: the file of a backup, or another server, by a directory of files or at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Take};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::custom::{LARGE_OBJECTS, ROWS, Toc, put_int};
use super::manifest::DatabaseDump;
use super::source::{PIECE, Source};
use crate::archive;
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath::Directory;
use crate::postgres::{BackupFormat, Session, pg_dump};
use crate::runtime::Child;

/// Rows that can be read by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which one.
    pub number: usize,
    /// How large they are, unpacked.
    pub bytes: u64,
}

/// What is done with a dump that is read: with its table of contents, and with what follows it.
type Work<'w> = &'w mut dyn FnMut(Toc, &mut (dyn BufRead + Send)) -> Result<()>;

/// A dump in the custom format.
pub trait Origin: Sync {
    /// The parts that it can be entered in; none if it can be read from its beginning only.
    fn parts(&self) -> Vec<Part>;

    /// Opens one of them.
    ///
    /// # Errors
    /// Those of the files.
    fn open_part(&self, number: usize) -> Result<Box<dyn BufRead + Send + '_>>;

    /// Reads it once more: at least the rows of these entries.
    ///
    /// # Errors
    /// Those of `work`; [`Kind::Damaged`] if it is not the same any more.
    fn again(&self, wanted: &BTreeSet<i32>, work: Work<'_>) -> Result<()>;
}

/// The dump of a server that is there.
pub trait Live: Origin {
    /// Reads it from its beginning: the rows that are in none of its parts.
    ///
    /// # Errors
    /// Those of `work`, and of pg_dump.
    fn read(&self, work: Work<'_>) -> Result<()>;

    /// How large its rows are, as far as it is known.
    fn bytes(&self) -> u64;
}

/// That of a backup.
pub(super) struct Stored<'a> {
    source: Source<'a>,
    dump: &'a DatabaseDump,
    parts: Vec<(u64, archive::Part)>,
}

impl<'a> Stored<'a> {
    pub(super) fn new(source: Source<'a>, dump: &'a DatabaseDump) -> Self {
        Self { source, dump, parts: source.parts(dump) }
    }
}

impl Origin for Stored<'_> {
    fn parts(&self) -> Vec<Part> {
        let numbered = self.parts.iter().enumerate();
        numbered.map(|(number, (_, part))| Part { number, bytes: part.content_bytes }).collect()
    }

    fn open_part(&self, number: usize) -> Result<Box<dyn BufRead + Send + '_>> {
        Ok(Box::new(self.source.open_part(self.dump, self.parts[number])?))
    }

    fn again(&self, _: &BTreeSet<i32>, work: Work<'_>) -> Result<()> {
        let file = &self.dump.dump;
        let mut content = BufReader::with_capacity(PIECE, self.source.open(file)?.without_content());
        work(Toc::read(&mut content)?, &mut content)?;
        self.source.require_same_file(file, content.into_inner())
    }
}

/// Large tables are a part each; of small ones, as many as come to so many bytes.
const ENOUGH: u64 = 8 << 20;

/// A table of contents, and a list of large objects, are no larger.
const MODEST: u64 = 1 << 30;

/// A block of rows says how long it is, in four bytes with a sign.
const BLOCK: u64 = 1 << 30;

/// A directory that pg_dump has written, whose files are not compressed. Somebody else's: nothing in it is believed.
pub struct Files {
    directory: Directory,
    toc: Vec<u8>,
    int: usize,
    entries: BTreeMap<i32, (String, bool)>,
    parts: Vec<(Vec<i32>, u64)>,
}

impl Files {
    /// Looks into it.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is no dump; [`Kind::File`].
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Directory::open(path).at("open", path)?;
        let bytes = directory.read(Path::new("toc.dat"), MODEST).at("read", path)?;
        let toc = Toc::read_of_directory(&bytes[..])?;
        let (mut entries, mut parts) = (BTreeMap::new(), Vec::<(Vec<i32>, u64)>::new());
        let mut sizes = Vec::new();
        for (id, file, is_large_objects) in toc.files() {
            let file_size = directory.file(Path::new(file)).and_then(|file| file.metadata());
            sizes.push((id, file_size.at("read", &path.join(file))?.len()));
            entries.insert(id, (file.to_owned(), is_large_objects));
        }
        let order: BTreeMap<_, _> = sizes.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
        sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        for (id, bytes) in sizes {
            match parts.last_mut().filter(|(_, size)| size + bytes <= ENOUGH) {
                Some((ids, size)) => {
                    ids.push(id);
                    *size += bytes;
                }
                None => parts.push((vec![id], bytes)),
            }
        }
        // Who restores rows expects them in the order of the table of contents.
        for (ids, _) in &mut parts {
            ids.sort_by_key(|id| order.get(id));
        }
        Ok(Self { directory, toc: toc.bytes(), int: toc.int(), entries, parts })
    }

    fn framed<'a>(&self, ids: impl IntoIterator<Item = &'a i32>) -> Result<BufReader<Framed<'_>>> {
        let mut framed = Framed { directory: &self.directory, pieces: VecDeque::new(), file: None };
        let mut head = Vec::new();
        for id in ids {
            let Some((name, is_large_objects)) = self.entries.get(id) else { continue };
            head.push(if *is_large_objects { LARGE_OBJECTS } else { ROWS });
            put_int(&mut head, *id, self.int);
            if *is_large_objects {
                for (object, name) in self.large_objects(name)? {
                    put_int(&mut head, object, self.int);
                    self.blocks(&mut framed.pieces, &mut head, &name)?;
                }
                put_int(&mut head, 0, self.int);
            } else {
                self.blocks(&mut framed.pieces, &mut head, name)?;
            }
        }
        framed.pieces.push_back(Piece::Bytes(Cursor::new(head)));
        Ok(BufReader::with_capacity(PIECE, framed))
    }

    /// A file, as the blocks of a custom dump; `head` is what comes before.
    fn blocks(&self, pieces: &mut VecDeque<Piece>, head: &mut Vec<u8>, name: &str) -> Result<()> {
        let shown = self.directory.path().join(name);
        let file = self.directory.file(Path::new(name)).and_then(|file| file.metadata());
        let (bytes, mut at) = (file.at("read", &shown)?.len(), 0);
        while at < bytes {
            let length = (bytes - at).min(BLOCK);
            put_int(head, i32::try_from(length).unwrap_or(i32::MAX), self.int);
            pieces.push_back(Piece::Bytes(Cursor::new(std::mem::take(head))));
            pieces.push_back(Piece::File { name: name.to_owned(), at, length });
            at += length;
        }
        put_int(head, 0, self.int);
        Ok(())
    }

    /// Numbers and files: a line each.
    fn large_objects(&self, name: &str) -> Result<Vec<(i32, String)>> {
        let shown = self.directory.path().join(name);
        let text = self.directory.read(Path::new(name), MODEST).at("read", &shown)?;
        let text = String::from_utf8_lossy(&text);
        let objects = text.lines().map(|line| {
            let (number, file) = line.split_once(' ')?;
            let number: u32 = number.parse().ok()?;
            Some((i32::from_ne_bytes(number.to_ne_bytes()), file.to_owned()))
        });
        objects.collect::<Option<_>>().ok_or_else(|| {
            Error::new(Kind::Damaged, format!("{} is not a list of large objects", shown.display()))
        })
    }
}

impl Origin for Files {
    fn parts(&self) -> Vec<Part> {
        let numbered = self.parts.iter().enumerate();
        numbered.map(|(number, (_, bytes))| Part { number, bytes: *bytes }).collect()
    }

    fn open_part(&self, number: usize) -> Result<Box<dyn BufRead + Send + '_>> {
        Ok(Box::new(self.framed(&self.parts[number].0)?))
    }

    fn again(&self, wanted: &BTreeSet<i32>, work: Work<'_>) -> Result<()> {
        work(Toc::read(&self.toc[..])?, &mut self.framed(wanted)?)
    }
}

impl Live for Files {
    fn read(&self, work: Work<'_>) -> Result<()> {
        work(Toc::read(&self.toc[..])?, &mut io::empty())
    }

    fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}

enum Piece {
    Bytes(Cursor<Vec<u8>>),
    File { name: String, at: u64, length: u64 },
}

/// Files between what a custom dump has in between. Each is opened when its turn has come.
struct Framed<'a> {
    directory: &'a Directory,
    pieces: VecDeque<Piece>,
    file: Option<Take<File>>,
}

impl Read for Framed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(file) = &mut self.file {
                match file.read(buffer)? {
                    0 if file.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    0 => self.file = None,
                    length => return Ok(length),
                }
            }
            match self.pieces.front_mut() {
                None => return Ok(0),
                Some(Piece::Bytes(bytes)) => match bytes.read(buffer)? {
                    0 => _ = self.pieces.pop_front(),
                    length => return Ok(length),
                },
                Some(Piece::File { name, at, length }) => {
                    let mut file = self.directory.file(Path::new(name))?;
                    io::Seek::seek(&mut file, io::SeekFrom::Start(*at))?;
                    self.file = Some(file.take(*length));
                    self.pieces.pop_front();
                }
            }
        }
    }
}

/// What pg_dump writes, as it comes. What is read once more is dumped once more: nobody changes it meanwhile.
pub struct Stream<'a> {
    /// The server.
    pub session: &'a Session<'a>,
    /// The database.
    pub database: &'a str,
    /// About how large it is.
    pub bytes: u64,
    /// How long pg_dump waits for a lock.
    pub lock_timeout: Duration,
    /// Whether it is read without its rows.
    pub without_rows: bool,
}

impl Origin for Stream<'_> {
    fn parts(&self) -> Vec<Part> {
        Vec::new()
    }

    fn open_part(&self, _: usize) -> Result<Box<dyn BufRead + Send + '_>> {
        Err(Error::new(Kind::Bug, "a stream has no parts"))
    }

    fn again(&self, _: &BTreeSet<i32>, work: Work<'_>) -> Result<()> {
        self.read(work)
    }
}

impl Live for Stream<'_> {
    fn read(&self, work: Work<'_>) -> Result<()> {
        let Session { runtime, major, connection } = self.session;
        let Self { database, lock_timeout, .. } = *self;
        let call = match self.without_rows {
            true => pg_dump::schema(connection, database, lock_timeout, false),
            false => pg_dump::database(connection, database, BackupFormat::Custom, &[], lock_timeout),
        };
        let mut command = runtime.command(*major, &call)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut dump = Child::spawn(command, format!("pg_dump of {database:?}"))?;
        let Some(stdout) = dump.stdout() else {
            return Err(Error::new(Kind::Bug, "pg_dump was started without its pipe"));
        };
        let mut content = BufReader::with_capacity(PIECE, stdout);
        let done = Toc::read(&mut content).and_then(|toc| work(toc, &mut content));
        drop(content);
        match done {
            // Where the reader failed, the writer only says that nobody reads; where that failed, its end is too early.
            Err(error) if error.kind() == Kind::Damaged => dump.wait().and(Err(error)),
            Err(error) => Err(error),
            Ok(()) => dump.wait(),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
