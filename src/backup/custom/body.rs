//! What follows the table of contents.

use std::io::{self, BufRead, Read as _};

use super::binary::Binary;
use super::fields::{LARGE_OBJECTS, ROWS, broken, get_int, put_int};
use super::toc::Toc;
use crate::error::{Error, Kind, Result};

/// The first byte of a second table of contents, which pg_dump writes over the first one; into a file that is open
/// for appending, it comes at the end.
const AGAIN: u8 = 0;

/// pg_dump writes each row as a block of its own; a block this large costs pg_restore and the server far less.
const BLOCK: usize = 128 * 1024;

/// The rows of one entry, which come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backup) struct Rows {
    /// The entry's number.
    pub(in crate::backup) id: i32,
    kind: u8,
}

/// How much was in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::backup) struct Size {
    /// pg_dump makes one of each row, unless it compresses them.
    pub(in crate::backup) blocks: u64,
    /// What is in them.
    pub(in crate::backup) bytes: u64,
}

/// What follows a table of contents: the rows of its entries. They come in small blocks and leave in large ones.
pub(in crate::backup) struct Body<R> {
    source: R,
    int: usize,
}

impl<R: BufRead> Body<R> {
    /// What comes in `source` after `toc`, which was read from it.
    pub(in crate::backup) fn new(source: R, toc: &Toc) -> Self {
        Self { source, int: toc.int() }
    }

    /// Whose rows come next, or nothing at the end.
    ///
    /// # Errors
    /// [`Kind::Damaged`], and those of the source.
    pub(in crate::backup) fn next(&mut self) -> Result<Option<Rows>> {
        let mut kind = Vec::new();
        self.source.by_ref().take(1).read_to_end(&mut kind).map_err(broken)?;
        let Some(&kind) = kind.first().filter(|&&kind| kind != AGAIN) else {
            return io::copy(&mut self.source, &mut io::sink()).map(|_| None).map_err(broken);
        };
        if kind != ROWS && kind != LARGE_OBJECTS {
            return Err(Error::new(Kind::Damaged, format!("it contains a block of unknown type {kind}")));
        }
        Ok(Some(Rows { id: self.int()?, kind }))
    }

    /// Sends these rows to `sink`, as they are to follow the archive of `toc` that has them.
    ///
    /// # Errors
    /// As [`Self::next`], and those of `sink`.
    pub(in crate::backup) fn copy(
        &mut self,
        rows: Rows,
        toc: &Toc,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Size> {
        let mut start = vec![rows.kind];
        put_int(&mut start, rows.id, self.int);
        sink(&start)?;
        let mut size = Size::default();
        let mut blocks = Blocks::new(sink, self.int);
        if rows.kind == LARGE_OBJECTS {
            loop {
                let object = self.int()?;
                let mut start = Vec::new();
                put_int(&mut start, object, self.int);
                (blocks.sink)(&start)?;
                if object == 0 {
                    return Ok(size);
                }
                self.blocks(&mut size, |piece| blocks.as_it_is(piece))?;
                blocks.finish()?;
            }
        }
        match toc.columns_of(rows.id) {
            None => self.blocks(&mut size, |piece| blocks.as_it_is(piece))?,
            Some(columns) => {
                let mut binary = Binary::new(columns, &mut blocks.block);
                self.blocks(&mut size, |piece| blocks.add(|block| binary.push(piece, block)))?;
                blocks.add(|block| binary.finish(block))?;
            }
        }
        blocks.finish()?;
        Ok(size)
    }

    fn int(&mut self) -> Result<i32> {
        get_int(&mut self.source, self.int)
    }

    /// Of the next block.
    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.int()?)
            .map_err(|_| Error::new(Kind::Damaged, "it contains a block of negative length"))
    }

    /// Gives all blocks of one table or large object to `sink`, in pieces.
    fn blocks(&mut self, size: &mut Size, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            let mut left = self.length()?;
            if left == 0 {
                return Ok(());
            }
            size.blocks += 1;
            size.bytes += left as u64;
            while left > 0 {
                let buffer = self.source.fill_buf().map_err(broken)?;
                let piece = &buffer[..buffer.len().min(left)];
                if piece.is_empty() {
                    return Err(broken(io::ErrorKind::UnexpectedEof.into()));
                }
                let length = piece.len();
                sink(piece)?;
                self.source.consume(length);
                left -= length;
            }
        }
    }
}

/// Makes large blocks.
struct Blocks<S> {
    sink: S,
    int: usize,
    /// Room for its length, and what is in it.
    block: Vec<u8>,
}

impl<S: FnMut(&[u8]) -> Result<()>> Blocks<S> {
    fn new(sink: S, int: usize) -> Self {
        let mut block = Vec::with_capacity(2 * BLOCK);
        block.resize(int + 1, 0);
        Self { sink, int, block }
    }

    fn as_it_is(&mut self, piece: &[u8]) -> Result<()> {
        self.add(|block| {
            block.extend_from_slice(piece);
            Ok(())
        })
    }

    /// Lets `add` append to the block, and sends it when it is large.
    fn add(&mut self, add: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        add(&mut self.block)?;
        match self.block.len() > BLOCK {
            true => self.send(),
            false => Ok(()),
        }
    }

    /// What is left, and the end.
    fn finish(&mut self) -> Result<()> {
        if self.block.len() > self.int + 1 {
            self.send()?;
        }
        let mut end = Vec::new();
        put_int(&mut end, 0, self.int);
        (self.sink)(&end)
    }

    fn send(&mut self) -> Result<()> {
        let start = self.int + 1;
        let mut length = Vec::with_capacity(start);
        put_int(&mut length, i32::try_from(self.block.len() - start).unwrap_or(i32::MAX), self.int);
        self.block[..start].copy_from_slice(&length);
        (self.sink)(&self.block)?;
        self.block.truncate(start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::{dump, entries, text};
    use super::*;

    /// What is in a dump, by the numbers of its entries.
    fn data_of(dump: &[u8]) -> BTreeMap<i32, Size> {
        let mut source = dump;
        let toc = Toc::read(&mut source).unwrap();
        let mut body = Body::new(source, &toc);
        let mut found = BTreeMap::new();
        while let Some(rows) = body.next().unwrap() {
            found.insert(rows.id, body.copy(rows, &toc, |_| Ok(())).unwrap());
        }
        found
    }

    #[test]
    fn rows_arrive_in_larger_blocks_and_are_the_same() {
        let mut data = dump(16, &entries());
        data.push(ROWS);
        put_int(&mut data, 3, 4);
        for row in 0..50_000 {
            text(&mut data, Some(&format!("row {row}\n")));
        }
        text(&mut data, Some(&"x".repeat(3 * BLOCK)));
        put_int(&mut data, 0, 4);
        data.push(LARGE_OBJECTS);
        put_int(&mut data, 4, 4);
        put_int(&mut data, 4711, 4);
        text(&mut data, Some("object"));
        put_int(&mut data, 0, 4);
        put_int(&mut data, 0, 4);
        let sizes = data_of(&data);
        assert_eq!(sizes[&3].blocks, 50_001);
        assert_eq!(sizes[&4], Size { blocks: 1, bytes: 6 });

        let mut source = &data[..];
        let toc = Toc::read(&mut source).unwrap();
        let mut body = Body::new(source, &toc);
        let mut archives = BTreeMap::new();
        while let Some(rows) = body.next().unwrap() {
            let mut pieces = 0;
            let mut archive = toc.archive(&[rows.id], true);
            let sink = |piece: &[u8]| {
                pieces += 1;
                archive.extend_from_slice(piece);
                Ok(())
            };
            body.copy(rows, &toc, sink).unwrap();
            assert!(pieces < 30, "{pieces}");
            archives.insert(rows.id, archive);
        }
        for (id, archive) in archives {
            let found = data_of(&archive);
            assert_eq!(found.len(), 1);
            assert_eq!(found[&id].bytes, sizes[&id].bytes);
        }
    }

    #[test]
    fn a_dump_is_read_to_its_end_and_one_that_is_cut_off_is_noticed() {
        let mut data = dump(16, &entries());
        let start = data.len();
        for (kind, id) in [(ROWS, 3), (LARGE_OBJECTS, 4)] {
            data.push(kind);
            put_int(&mut data, id, 4);
            if kind == LARGE_OBJECTS {
                put_int(&mut data, 4711, 4);
            }
            text(&mut data, Some("something"));
            put_int(&mut data, 0, 4);
        }
        put_int(&mut data, 0, 4);
        let whole = data.len();
        let again = [&data[..], b"\x00\x02\x00\x00\x00and so on"].concat();
        let read = |mut data: &[u8]| {
            let toc = Toc::read(&mut data)?;
            let mut body = Body::new(data, &toc);
            let mut ids = Vec::new();
            while let Some(rows) = body.next()? {
                body.copy(rows, &toc, |_| Ok(()))?;
                ids.push(rows.id);
            }
            Ok::<_, Error>(ids)
        };
        assert_eq!(read(&data).unwrap(), [3, 4]);
        assert_eq!(read(&again).unwrap(), [3, 4]);
        for length in start + 1..whole {
            match read(&data[..length]) {
                Ok(ids) => assert_eq!(ids, [3], "{length}"),
                Err(error) => assert_eq!(error.kind(), Kind::Damaged),
            }
        }
    }
}
