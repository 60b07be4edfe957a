//! Passwords in what programs write: none is ever shown.

/// What comes before one, and what ends it.
const MARKS: [(&str, &[char]); 4] = [
    ("SCRAM-SHA-256$", &['\'', '"', ' ']),
    ("PASSWORD '", &['\'']),
    ("password '", &['\'']),
    ("password=", &['\'', '"', ' ']),
];

/// The digits of an md5 hash.
const MD5: usize = 32;

/// The same text without passwords and their verifiers.
pub fn without_verifiers(text: &str) -> String {
    let mut text = text.to_owned();
    for (mark, ends) in MARKS {
        let mut shown = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once(mark) {
            shown = shown + before + mark + "…";
            let end = |c: char| ends.contains(&c) || c == '\n';
            rest = &after[after.find(end).unwrap_or(after.len())..];
        }
        text = shown + rest;
    }
    without_md5(&text)
}

fn without_md5(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("md5") {
        shown = shown + before + "md5";
        let digits = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        rest = after;
        if digits == MD5 {
            shown.push('…');
            rest = &after[digits..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_password_is_left() {
        for (text, shown) in [
            (
                "ALTER ROLE a PASSWORD 'SCRAM-SHA-256$4096:x=$y=:z=' LOGIN;",
                "ALTER ROLE a PASSWORD '…' LOGIN;",
            ),
            ("near \"SCRAM-SHA-256$4096:x\" at", "near \"SCRAM-SHA-256$…\" at"),
            ("x md50123456789abcdef0123456789abcdef'", "x md5…'"),
            ("CONNECTION 'host=a password=secret dbname=b'", "CONNECTION 'host=a password=… dbname=b'"),
            ("PASSWORD 'cut\noff", "PASSWORD '…\noff"),
            ("md5 is a method, as md5sum", "md5 is a method, as md5sum"),
        ] {
            assert_eq!(without_verifiers(text), shown);
        }
    }
}
