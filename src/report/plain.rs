//! Text for a terminal, of which parts are other users' words: names of roles, tables and files, and what programs say of them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Without what a terminal would take for more than text: such characters are shown as JSON writes them. A line end is none of them:
/// what we say has lines.
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_more = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if !text.contains(is_more) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match is_more(character) {
            // Writing to a String cannot fail.
            true => drop(write!(shown, "\\u{:04x}", u32::from(character))),
            false => shown.push(character),
        }
    }
    shown.into()
}

/// The same in one line: where lines of other users' would look like ours.
pub fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains('\n') {
        true => plain(&text.replace('\n', "\\n")).into_owned().into(),
        false => plain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\u{1b}[2J\u{7}\rb\u{9b}1m\u{7f}"), "a\\u001b[2J\\u0007\\u000db\\u009b1m\\u007f");
        for text in ["", "zwei\n\tLinien, größer als ü\u{a0}€"] {
            assert!(matches!(plain(text), Cow::Borrowed(_)));
        }
        assert_eq!(one_line("public.x\nHINT: \u{1b}c"), "public.x\\nHINT: \\u001bc");
        // What was JSON stays that.
        let name = "\u{9b}x\u{7f}";
        let text = serde_json::to_string(name).unwrap();
        assert_eq!(serde_json::from_str::<String>(&plain(&text)).unwrap(), name);
    }
}
