//! What is known of a statement while it passes: the words that tell its kind, what is open in it, and the rows that it names.

/// So many words of a statement are kept: they tell what kind it is of.
const WORDS: usize = 8;

/// Longer words are no keywords.
pub(super) const LONGEST: usize = 64;

/// The rows that an INSERT names.
#[derive(Debug, Clone, Copy, Default)]
struct Values {
    /// The word that is followed by them was seen last.
    follow: bool,
    /// The last word was DEFAULT.
    default: bool,
    rows: u64,
    /// What it says besides may add rows, or keep some out.
    more: bool,
}

/// The statement that is open, or has just ended.
#[derive(Debug, Default)]
pub(super) struct Statement {
    words: Vec<String>,
    word: String,
    parentheses: usize,
    /// Of `BEGIN ATOMIC`.
    bodies: usize,
    /// `FROM`, and then `STDIN`.
    is_from: bool,
    is_from_stdin: bool,
    /// Of an INSERT.
    values: Values,
}

impl Statement {
    /// Its first words, in upper case; what is in quotes is none.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Another one begins.
    pub(super) fn begin(&mut self) {
        self.words.clear();
        self.values = Values::default();
    }

    /// It has ended.
    pub(super) fn end(&mut self) {
        (self.is_from, self.is_from_stdin) = (false, false);
    }

    /// It ended, and those who are told have been.
    pub(super) fn forget(&mut self) {
        self.words.clear();
    }

    /// Whether its first word is this one.
    pub(super) fn is(&self, word: &str) -> bool {
        self.words.first().is_some_and(|first| first == word)
    }

    /// Whether rows follow it.
    pub(super) fn is_copy_from_stdin(&self) -> bool {
        self.is("COPY") && self.is_from_stdin
    }

    /// Whether it switches how strings are written: whether they are standard now.
    pub(super) fn standard_strings(&self) -> Option<bool> {
        let is_that =
            self.is("SET") && self.words.get(1).is_some_and(|name| name == "STANDARD_CONFORMING_STRINGS");
        is_that.then(|| self.words.last().is_none_or(|value| value != "OFF"))
    }

    /// How many rows it names, if it is an INSERT that says nothing but that.
    pub(super) fn rows(&self) -> Option<u64> {
        let Values { rows, more, .. } = self.values;
        (self.is("INSERT") && rows > 0 && !more).then_some(rows)
    }

    /// Whether a semicolon ends it here.
    pub(super) fn may_end(&self) -> bool {
        self.parentheses == 0 && self.bodies == 0
    }

    pub(super) fn open_parenthesis(&mut self) {
        self.values.rows += u64::from(self.parentheses == 0 && self.values.follow);
        self.parentheses += 1;
    }

    pub(super) fn close_parenthesis(&mut self) {
        self.parentheses = self.parentheses.saturating_sub(1);
    }

    /// Whether a word has begun and not ended.
    pub(super) fn is_in_word(&self) -> bool {
        !self.word.is_empty()
    }

    /// The next byte of a word.
    pub(super) fn add(&mut self, byte: u8) {
        if self.word.len() < LONGEST {
            self.word.push(char::from(byte.to_ascii_uppercase()));
        }
    }

    /// The word, which has ended; an empty one if there is none.
    pub(super) fn end_word(&mut self) -> String {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return word;
        }
        if self.parentheses == 0 {
            let Values { follow, default, rows, more } = &mut self.values;
            match word.as_str() {
                // One row, of defaults.
                "VALUES" if *default => *rows += 1,
                "VALUES" => *follow = true,
                _ => {
                    *more |= *follow || matches!(word.as_str(), "ON" | "SELECT" | "TABLE" | "WITH" | "UNION");
                    *follow = false;
                }
            }
            *default = word == "DEFAULT";
        }
        self.is_from_stdin |= self.is_from && word == "STDIN";
        self.is_from = word == "FROM";
        if self.words.len() < WORDS {
            self.words.push(word.clone());
        }
        if self.parentheses == 0 && self.makes_a_routine() {
            match word.as_str() {
                "BEGIN" => self.bodies += 1,
                "CASE" if self.bodies > 0 => self.bodies += 1,
                "END" => self.bodies = self.bodies.saturating_sub(1),
                _ => {}
            }
        }
        word
    }

    fn makes_a_routine(&self) -> bool {
        let word = |number: usize| self.words.get(number).map_or("", String::as_str);
        let is_routine = |number| matches!(word(number), "FUNCTION" | "PROCEDURE");
        word(0) == "CREATE" && (is_routine(1) || word(1) == "OR" && word(2) == "REPLACE" && is_routine(3))
    }
}
