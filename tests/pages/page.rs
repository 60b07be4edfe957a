//! A page, as far as a machine can follow it.

/// What there is before the first command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A fresh Debian, and the package in `/root`.
    Bare,
    /// Synapse on a server of the package, of `PostgreSQL` 15, with twenty messages.
    Homeserver,
    /// The package in `/root`, and Synapse on Debian's cluster 15/main.
    Debian,
    /// The package in `/root`, and a playbook's server of `PostgreSQL` 15 in a container.
    Playbook,
    /// The package in `/root`, and Synapse on a server of another machine, with a role for backups.
    External,
}

impl Start {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bare" => Self::Bare,
            "debian" => Self::Debian,
            "playbook" => Self::Playbook,
            "external" => Self::External,
            _ => return None,
        })
    }
}

/// A page. Comments that a reader does not see:
///
/// * `<!-- start: bare -->`: what there is before the first command, if not a homeserver: see [`Start`]
/// * `<!-- $ command -->`: is run between the blocks
/// * `<!-- exit status N -->`: that of the last command of the next block
#[derive(Debug)]
pub struct Page {
    /// What there is before the first command.
    pub start: Start,
    commands: Vec<Command>,
}

/// A command, and what it must print.
#[derive(Debug)]
pub struct Command {
    /// Where it stands.
    pub line: usize,
    /// As it is typed.
    pub text: String,
    /// What it must end with.
    pub status: i32,
    /// What it must print.
    pub expected: String,
    /// Whether a reader sees it.
    pub is_shown: bool,
}

const OPEN: &str = "```console";
const CLOSE: &str = "```";

impl Page {
    /// # Errors
    /// A sentence, for a comment that is not known, and a block without end.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut page = Self { start: Start::Homeserver, commands: Vec::new() };
        let mut status = 0;
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            if let Some(comment) =
                line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"))
            {
                if let Some(start) = comment.strip_prefix("start: ") {
                    page.start = Start::named(start).ok_or_else(|| format!("line {}: {line}", at + 1))?;
                } else if let Some(command) = comment.strip_prefix("$ ") {
                    page.commands.push(Command::new(at, command, false));
                } else if let Some(number) = comment.strip_prefix("exit status ") {
                    status = number.parse().map_err(|_| format!("line {}: {line}", at + 1))?;
                } else {
                    return Err(format!("line {}: not known: {line}", at + 1));
                }
            }
            if line.trim() != OPEN {
                continue;
            }
            let mut is_continued = false;
            loop {
                let Some((at, line)) = lines.next() else { return Err("a block has no end".to_owned()) };
                if line.trim() == CLOSE {
                    break;
                }
                let last = page.commands.last_mut();
                match (line.strip_prefix("# "), last) {
                    (_, Some(last)) if is_continued => {
                        last.text.push('\n');
                        last.text.push_str(line);
                        is_continued = line.ends_with('\\');
                    }
                    (Some(command), _) => {
                        page.commands.push(Command::new(at, command, true));
                        is_continued = command.ends_with('\\');
                    }
                    (None, Some(last)) if last.is_shown => {
                        last.expected.push_str(line);
                        last.expected.push('\n');
                    }
                    (None, _) => return Err(format!("line {}: of no command: {line}", at + 1)),
                }
            }
            if let Some(last) = page.commands.last_mut() {
                last.status = std::mem::take(&mut status);
            }
        }
        Ok(page)
    }

    /// In the order in which they are run.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// The page with what was printed in place of what it says; what has a `…` stays, as it was written on purpose.
    pub fn with_output(&self, text: &str, printed: &[String]) -> String {
        let lines: Vec<_> = text.lines().collect();
        let mut written = Vec::new();
        let mut next = 0;
        let shown = self.commands.iter().filter(|command| command.is_shown);
        for (command, said) in shown.zip(printed) {
            let end = command.line + command.text.lines().count();
            written.extend(lines[next..end].iter().map(|line| (*line).to_owned()));
            next = end + command.expected.lines().count();
            match command.expected.contains('…') {
                true => written.extend(lines[end..next].iter().map(|line| (*line).to_owned())),
                false => written.extend(said.lines().map(|line| line.trim_end().to_owned())),
            }
        }
        written.extend(lines[next..].iter().map(|line| (*line).to_owned()));
        written.join("\n") + "\n"
    }
}

impl Command {
    fn new(line: usize, text: &str, is_shown: bool) -> Self {
        Self { line, text: text.to_owned(), status: 0, expected: String::new(), is_shown }
    }
}

#[test]
fn commands_are_told_from_what_they_print_and_can_be_written_anew() {
    let text = "A page.\n<!-- $ prepare -->\n<!-- exit status 40 -->\n```console\n# a \\\n  b\nold\n# c\n```\nEnd.\n";
    let page = Page::parse(text).unwrap();
    let all: Vec<_> = page.commands().map(|c| (c.text.as_str(), c.status, c.is_shown)).collect();
    assert_eq!(all, [("prepare", 0, false), ("a \\\n  b", 0, true), ("c", 40, true)]);
    let written = page.with_output(text, &["new".to_owned(), "more".to_owned()]);
    assert_eq!(written, text.replace("old\n", "new\n").replace("# c\n", "# c\nmore\n"));
    assert!(Page::parse("<!-- something -->").is_err());
}
