//! What an upgrade writes into the files of a cluster of Debian's that is not to run, or not as it did: each such line bears
//! the one that was there, so that whatever else the administrator changes meanwhile stays.

/// Behind the value, with why, and what was there.
const MARK: &str = " # matrix-postgres-upgrade: ";
const WAS: &str = "; was: ";

/// Why.
const UPGRADED: &str = "upgraded to ";
const UNDER_WAY: &str = "under way";

/// Why a line is another one than it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'a> {
    /// This cluster has come in its place.
    UpgradedTo(&'a str),
    /// Until an upgrade has ended.
    UnderWay,
}

/// Replaces the line of this index by `new`, or appends it.
pub fn replaced(text: &str, line: Option<usize>, new: &str, reason: Reason<'_>) -> String {
    let marked = |was: &str| {
        let reason = match reason {
            Reason::UpgradedTo(cluster) => format!("{UPGRADED}{cluster}"),
            Reason::UnderWay => UNDER_WAY.to_owned(),
        };
        format!("{new}{MARK}{reason}{WAS}{was}")
    };
    let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
    if let Some(line) = line.and_then(|line| lines.get_mut(line)) {
        *line = marked(line.trim_end());
    } else {
        let end = lines.len() - usize::from(lines.last().is_some_and(String::is_empty));
        lines.insert(end, marked(""));
    }
    ended(&lines)
}

/// Replaces what start.conf says; `auto` is what it says without a line.
pub fn start(text: &str, mode: &str, reason: Reason<'_>) -> String {
    let text = restored(text);
    let says = |line: &str| line.split('#').next().is_some_and(|word| !word.trim().is_empty());
    match text.split('\n').position(says) {
        Some(line) => replaced(&text, Some(line), mode, reason),
        None => replaced(&format!("{text}auto\n"), Some(text.matches('\n').count()), mode, reason),
    }
}

/// The text as it was before.
pub fn restored(text: &str) -> String {
    if !is_marked(text) {
        return text.to_owned();
    }
    let was = |line: &str| match line.split_once(MARK).and_then(|(_, rest)| rest.split_once(WAS)) {
        Some((_, "")) => None,
        Some((_, was)) => Some(was.to_owned()),
        None => Some(line.to_owned()),
    };
    let lines: Vec<_> = text.split('\n').filter_map(was).collect();
    ended(&lines)
}

/// Whether there is such a line.
pub fn is_marked(text: &str) -> bool {
    text.contains(MARK)
}

/// The cluster that has come in place of the one with this start.conf.
pub fn successor(start: &str) -> Option<&str> {
    let (_, rest) = start.split_once(MARK)?;
    rest.strip_prefix(UPGRADED)?.split_once(WAS).map(|(cluster, _)| cluster)
}

fn ended(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "# Automatic startup configuration\n#   auto: started\n\nauto\n";

    #[test]
    fn what_is_put_aside_comes_back_and_the_rest_stays() {
        let aside = start(START, "manual", Reason::UpgradedTo("17/main"));
        let line = "manual # matrix-postgres-upgrade: upgraded to 17/main; was: auto";
        assert_eq!(aside.lines().last(), Some(line));
        assert_eq!((successor(&aside), successor(START)), (Some("17/main"), None));
        assert_eq!(restored(&aside), START);
        // From one to the other, and again.
        let barred = start(START, "disabled", Reason::UnderWay);
        assert_eq!((successor(&barred), is_marked(&barred)), (None, true));
        assert_eq!(start(&barred, "manual", Reason::UpgradedTo("17/main")), aside);
        assert_eq!(restored(&format!("{aside}# more\n")), format!("{START}# more\n"));
        assert_eq!(restored("auto"), "auto");
        assert_eq!(restored(&start("", "manual", Reason::UnderWay)), "auto\n");
        assert_eq!(
            restored(&start("manual # by hand\n", "disabled", Reason::UnderWay)),
            "manual # by hand\n"
        );
    }

    #[test]
    fn a_line_is_replaced_or_appended() {
        let conf = "x = 1\nport = 5432\t\t# (change requires restart)\ny = 2";
        let reason = Reason::UpgradedTo("17/main");
        let aside = replaced(conf, Some(1), "port = 5433", reason);
        assert_eq!(
            aside.lines().nth(1),
            Some(
                "port = 5433 # matrix-postgres-upgrade: upgraded to 17/main; was: port = 5432\t\t# (change requires restart)"
            )
        );
        assert_eq!(restored(&aside), format!("{conf}\n"));
        let aside = replaced("x = 1\n", None, "port = 5433", reason);
        assert_eq!(aside.lines().count(), 2);
        assert_eq!(restored(&aside), "x = 1\n");
    }
}
