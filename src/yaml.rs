//! YAML as configurations of homeservers are usually written: a line for each key, and a line for each item of a list.
//!
//! Nothing is known from what is written otherwise. A parser of all of YAML would have to be kept from references that unfold
//! without end: these files are not always root's.

/// Whether a line belongs to a key above it.
pub fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

/// Key and value of a line, without quotes and comment; that of an item begins behind its dash.
pub fn key(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let line = line.strip_prefix("- ").unwrap_or(line);
    let (key, rest) = line.split_once(':')?;
    (!key.starts_with('#')).then(|| (unquoted(key.trim()), value(rest)))
}

/// The lines below a key that is not below another.
pub fn block<'a>(text: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let mut lines = text.lines().skip_while(move |line| !is_head(line, name));
    lines.next()?;
    Some(lines.take_while(|line| belongs(line)))
}

/// The items below keys of this name that are not below others.
pub fn items<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    // An item may be as far to the left as its key.
    let is_item = |line: &str| line.trim_start().starts_with("- ");
    let mut found = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        is_within = is_head(line, name) || is_within && (belongs(line) || is_item(line));
        found.extend(line.trim_start().strip_prefix("- ").filter(|_| is_within).map(value));
    }
    found
}

fn is_head(line: &str, name: &str) -> bool {
    key(line) == Some((name, "")) && !is_indented(line)
}

fn belongs(line: &str) -> bool {
    is_indented(line) || line.trim().is_empty() || line.starts_with('#')
}

fn value(text: &str) -> &str {
    let text = text.trim();
    if let Some(quote) = text.chars().next().filter(|first| ['"', '\''].contains(first)) {
        return text[1..].split(quote).next().unwrap_or_default();
    }
    let text = text.split(" #").next().unwrap_or_default().trim_end();
    if text.starts_with('#') { "" } else { text }
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ways_to_write_a_list_are_understood() {
        let text = "\
app_service_config_files:
  - /a.yaml # a bridge
  # - /no.yaml

  - \"/b: c.yaml\"
other:
  app_service_config_files:
    - /not.yaml
app_service_config_files:
- '/d.yaml'
more: 1
- /stray.yaml
";
        assert_eq!(items(text, "app_service_config_files"), ["/a.yaml", "/b: c.yaml", "/d.yaml"]);
        assert!(items(text, "none").is_empty());
    }

    #[test]
    fn a_key_has_its_value_without_quotes_and_comment() {
        for (line, expected) in [
            ("a: b", Some(("a", "b"))),
            ("  - \"a\": 'b # c' # d", Some(("a", "b # c"))),
            ("a:   # b", Some(("a", ""))),
            ("# a: b", None),
            ("a", None),
        ] {
            assert_eq!(key(line), expected, "{line}");
        }
    }
}
