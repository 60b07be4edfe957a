//! The commands of a unit's file (systemd.service(5), "Command lines"; systemd.syntax(7)), as far as they start containers.

/// The keys of commands that are carried out for a start.
const KEYS: [&str; 3] = ["ExecStartPre", "ExecStart", "ExecStartPost"];

/// A key with a command, of a section `[Service]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment<'a> {
    /// Such as `ExecStartPre`.
    pub(super) key: &'a str,
    /// The lines as they are in the file, without the last one's end.
    pub(super) raw: &'a str,
    /// The command's words; none for one that takes back those of its key before it.
    pub(super) words: Vec<String>,
}

/// The commands of the keys `ExecStartPre=`, `ExecStart=` and `ExecStartPost=`, each as its words, in the order of the file.
/// `unit` is the unit's name, for what `%n`, `%N` and `%p` stand for; other specifiers are left as they are.
pub(super) fn commands(text: &str, unit: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Assignment<'_>> = Vec::new();
    for assignment in assignments(text, unit) {
        match assignment.words.is_empty() {
            true => commands.retain(|earlier| earlier.key != assignment.key),
            false => commands.push(assignment),
        }
    }
    commands.into_iter().map(|command| command.words).collect()
}

/// All of them, in the order of the file.
pub(super) fn assignments<'a>(text: &'a str, unit: &str) -> Vec<Assignment<'a>> {
    let mut found = Vec::new();
    // What has been read of a line that goes on: where it began, and what it says.
    let (mut begun, mut said) = (None, String::new());
    let mut at = 0;
    for whole in text.split_inclusive('\n') {
        let (from, line) = (at, whole.trim());
        at += whole.len();
        // A comment may be in the middle of a command.
        if line.starts_with(['#', ';']) {
            continue;
        }
        let from = *begun.get_or_insert(from);
        if let Some(part) = line.strip_suffix('\\') {
            said = said + part + " ";
            continue;
        }
        let logical = std::mem::take(&mut said) + line;
        begun = None;
        let raw = text[from..at].trim_end();
        let Some((key, _)) = raw.split_once('=').map(|(key, rest)| (key.trim(), rest)) else { continue };
        let Some((_, command)) = logical.split_once('=').filter(|_| KEYS.contains(&key)) else { continue };
        let command = command.trim().trim_start_matches(['-', '@', ':', '+', '!', '|', ' ']);
        found.push(Assignment { key, raw, words: words(command, unit) });
    }
    found
}

/// Words are separated by blanks; quotes are only such at the beginning of a word, or behind the `=` of an option of systemd's
/// or docker's, where people write them, too.
fn words(command: &str, unit: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_open) = (Vec::new(), String::new(), None, false);
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let mut chars = command.chars();
    while let Some(next) = chars.next() {
        match (next, quote) {
            (_, Some(open)) if next == open => quote = None,
            ('"' | '\'', None) if word.is_empty() || word.ends_with('=') => {
                (quote, is_open) = (Some(next), true);
            }
            (blank, None) if blank.is_whitespace() => {
                if is_open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                is_open = false;
            }
            ('\\', _) => word.extend(chars.next()),
            ('%', _) => match chars.next() {
                Some('n') => word += unit,
                Some('N') => word += stem,
                Some('p') => word += stem.split('@').next().unwrap_or(stem),
                Some('%') | None => word.push('%'),
                Some(other) => word.extend(['%', other]),
            },
            (other, _) => word.push(other),
        }
    }
    if is_open || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_go_on_are_one_command_and_quotes_keep_words_together() {
        let text = "[Service]\nEnvironment=\"HOME=/root\"\n# ExecStart=no\n\
                    ExecStartPre=-/usr/bin/env sh -c 'docker stop x 2>/dev/null || true'\n\
                    ExecStartPre=/usr/bin/docker create \\\n  --name  %N \\\n# between\n  --label=\"a b\" \"\" x%%\n\
                    ExecStop=/usr/bin/docker stop x\nExecStart=+/usr/bin/docker start -a %n\n";
        let found = commands(text, "matrix-postgres.service");
        assert_eq!(found[0], ["/usr/bin/env", "sh", "-c", "docker stop x 2>/dev/null || true"]);
        assert_eq!(
            found[1],
            ["/usr/bin/docker", "create", "--name", "matrix-postgres", "--label=a b", "", "x%"]
        );
        assert_eq!(found[2], ["/usr/bin/docker", "start", "-a", "matrix-postgres.service"]);
        assert_eq!(found.len(), 3);
        let raw: Vec<_> = assignments(text, "x.service").iter().map(|assignment| assignment.raw).collect();
        assert_eq!(
            raw[1],
            text[text.find("ExecStartPre=/usr/bin/docker").unwrap()..text.find("\nExecStop=").unwrap()]
                .to_owned()
        );
        // An empty one takes back what was said before.
        let text = format!("{text}[Service]\nExecStartPre=\nExecStartPre=/bin/true\n");
        assert_eq!(
            commands(&text, "x.service"),
            [vec!["/usr/bin/docker", "start", "-a", "x.service"], vec!["/bin/true"]]
        );
    }
}
