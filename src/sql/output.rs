//! What of a script is handed on, and the first reason why the script must not be loaded.

use super::refusal::Refusal;

/// Takes the bytes of a script as a [`super::Visitor`] is told of them.
#[derive(Debug, Default)]
pub struct Output {
    /// Whether what comes is handed on.
    pub keeps: bool,
    /// What was left out last has left a line end.
    left_out: bool,
    kept: Vec<u8>,
    /// How many line ends there have been.
    lines: usize,
    refused: Option<(usize, Refusal)>,
}

impl Output {
    /// Takes the next bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', bytes).count();
        if self.keeps {
            self.kept.extend_from_slice(bytes);
            self.left_out = false;
        } else if !self.left_out && memchr::memchr(b'\n', bytes).is_some() {
            // What follows was not on the line of what came before: the rows of a COPY must not be.
            self.kept.push(b'\n');
            self.left_out = true;
        }
    }

    /// Hands on `text` in place of what comes, which is left out.
    pub fn replace(&mut self, text: &[u8]) {
        self.kept.extend_from_slice(text);
        self.keeps = false;
    }

    /// Appends to `kept` what has been kept since.
    pub fn append_to(&mut self, kept: &mut Vec<u8>) {
        kept.append(&mut self.kept);
    }

    /// Notes down that `text`, of which no bytes have come yet, must not be loaded.
    pub fn refuse(&mut self, text: &[u8], refusal: Refusal) {
        let inside = memchr::memchr_iter(b'\n', text.trim_ascii_end()).count();
        self.refused.get_or_insert((self.lines + inside + 1, refusal));
    }

    /// What must not be loaded first, and in which line.
    pub fn refused(&self) -> Option<&(usize, Refusal)> {
        self.refused.as_ref()
    }
}
