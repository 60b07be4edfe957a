//! SQL of others: the size of the pieces changes nothing, no byte gets lost, and what was let through is let through
//! again as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_postgres::sql::{Guard, Item, Script, Visitor, tokens};

#[derive(Default)]
struct Everything {
    bytes: Vec<u8>,
    items: usize,
}

impl Visitor for Everything {
    fn item(&mut self, item: Item<'_>) {
        self.items += 1;
        if let Item::Statement { text, .. } = item {
            drop(tokens(&String::from_utf8_lossy(text)));
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

fn read(text: &[u8], size: usize) -> (Everything, bool) {
    let (mut script, mut everything) = (Script::default(), Everything::default());
    for piece in text.chunks(size) {
        script.feed(piece, &mut everything);
    }
    let whole = script.finish(&mut everything);
    (everything, whole)
}

/// What a server would get; nothing if it is refused.
fn guarded(text: &[u8], size: usize) -> Option<Vec<u8>> {
    let (mut guard, mut kept) = (Guard::default(), Vec::new());
    for piece in text.chunks(size) {
        guard.feed(piece, &mut kept);
    }
    guard.finish(&mut kept).is_ok().then_some(kept)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, text)) = data.split_first() else { return };
    let size = usize::from(size) + 1;
    let ((one, is_whole), (other, _)) = (read(text, size), read(text, text.len().max(1)));
    assert!(one.bytes == text && other.bytes == text, "bytes got lost");
    assert_eq!(one.items, other.items, "the size of the pieces matters");
    let kept = guarded(text, size);
    assert_eq!(kept, guarded(text, text.len().max(1)), "the size of the pieces matters to the guard");
    if let Some(kept) = kept.filter(|_| is_whole) {
        assert_eq!(guarded(&kept, size).as_ref(), Some(&kept), "what was let through is not let through again");
    }
});
