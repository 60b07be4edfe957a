//! What the fuzz targets (`fuzz/`) reach of this room's private parts. Built for them only.

use super::custom::{Body, EntryBorders, Toc};
use crate::archive::parts_of;

/// Reads a dump in the custom format from its first byte to its last, as a restore does.
///
/// # Panics
/// Where the reader is wrong: what it writes out again is not what it would read.
pub fn custom(dump: &[u8]) {
    let _ = parts_of(dump, &mut EntryBorders::default());
    let mut content = dump;
    let Ok(toc) = Toc::read(&mut content) else { return };
    let again = Toc::read(toc.bytes().as_slice()).expect("what was written is not read");
    assert_eq!(again.bytes(), toc.bytes());
    let _ = (toc.roles(), toc.keys(), toc.before_rows(), toc.evaluated_definitions());
    toc.after_rows().for_each(|id| drop(toc.shown(id)));
    let mut body = Body::new(content, &toc);
    while let Ok(Some(rows)) = body.next() {
        drop(toc.archive(&[rows.id], false));
        if body.copy(rows, &toc, |_| Ok(())).is_err() {
            return;
        }
    }
}
