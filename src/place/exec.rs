//! The commands of a unit's file (systemd.service(5), "Command lines"; systemd.syntax(7)), as far as they start containers.

/// The commands of the keys `ExecStartPre=`, `ExecStart=` and `ExecStartPost=`, each as its words, in the order of the file.
/// `unit` is the unit's name, for what `%n`, `%N` and `%p` stand for; other specifiers are left as they are.
pub(super) fn commands(text: &str, unit: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => open = open + part + " ",
            None => lines.push(std::mem::take(&mut open) + line),
        }
    }
    let commands = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(key.trim(), "ExecStartPre" | "ExecStart" | "ExecStartPost"));
    commands
        .map(|(_, command)| words(command.trim_start_matches(['-', '@', ':', '+', '!', '|', ' ']), unit))
        .collect()
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
    }
}
