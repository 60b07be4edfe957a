//! Whom to encrypt to: looked up, and tried, before anything is dumped.

use std::path::Path;

use crate::archive::{Encryption, Method};
use crate::config::{Backup, EncryptTo, holds_secret, is_age_recipient};
use crate::error::{Error, IoContext as _, Kind, Result};

/// The encryption that the settings ask for, if they do, after it has encrypted a few bytes.
///
/// # Errors
/// [`Kind::Config`] if there is no key, or one that the program does not take; [`Kind::NotInstalled`] if there is no
/// program. A backup is then not made: it is never less protected than was asked for.
pub fn prepare(settings: &Backup) -> Result<Option<Encryption>> {
    let Some(asked) = &settings.encryption else { return Ok(None) };
    let prepared = match asked {
        EncryptTo::Age { recipients, file } => {
            let listed = file.as_deref().map(listed).transpose()?.unwrap_or_default();
            Encryption::new(Method::Age, [&recipients[..], &listed].concat(), None)
        }
        EncryptTo::OpenPgp { keys, home } => {
            readable(home)?;
            Encryption::new(Method::Gpg, keys.clone(), Some(home.clone()))
        }
    };
    let tried = prepared.and_then(|encryption| encryption.check().map(|()| encryption)).map_err(|error| {
        error.state(NOTHING).hint(match asked {
            EncryptTo::Age { .. } => "correct backup.encrypt_to or backup.recipients_file".to_owned(),
            EncryptTo::OpenPgp { home, .. } => {
                format!("import the public keys: gpg --homedir {} --import FILE", home.display())
            }
        })
    })?;
    Ok(Some(tried))
}

const NOTHING: &str = "nothing was dumped";

/// The recipients in a file of age's.
fn listed(file: &Path) -> Result<Vec<String>> {
    let refused = |message: String| Error::new(Kind::Config, message).state(NOTHING);
    let text = std::fs::read_to_string(file).at("read", file).map_err(|error| {
        error
            .with_kind(Kind::Config)
            .state(NOTHING)
            .hint("check backup.recipients_file; it must be readable by the user matrix-postgres")
    })?;
    let mut recipients = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        // Not even a line in its remarks is repeated by us.
        if holds_secret(line) {
            return Err(refused(format!(
                "{}, line {}: this is a private key; keep it on another machine",
                file.display(),
                number + 1
            ))
            .hint("write the recipient there, which `age-keygen -y` prints, and generate a new key"));
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !is_age_recipient(line) {
            return Err(refused(format!(
                "{}, line {}: this is not an age recipient",
                file.display(),
                number + 1
            ))
            .hint("a recipient is a line that begins with age1, ssh-ed25519 or ssh-rsa"));
        }
        recipients.push(line.to_owned());
    }
    match recipients.is_empty() {
        true => Err(refused(format!("there is no recipient in {}", file.display()))
            .hint("a recipient is a line that begins with age1, ssh-ed25519 or ssh-rsa")),
        false => Ok(recipients),
    }
}

fn readable(home: &Path) -> Result<()> {
    std::fs::read_dir(home).at("read", home).map(drop).map_err(|error| {
        error.with_kind(Kind::Config).state(NOTHING).hint(format!(
            "create it, readable by matrix-postgres: install -d -m 0700 -o matrix-postgres {}",
            home.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Fragment, Settings};

    fn report(text: &str) -> String {
        let fragment = Fragment::parse(text, Path::new("c.toml")).unwrap();
        let error = prepare(&Settings::from_fragment(fragment).unwrap().backup).unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{}", error.report());
        error.report()
    }

    #[test]
    fn a_file_of_recipients_is_refused_by_line_and_without_its_secrets() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("recipients");
        let settings = format!("backup.recipients_file = {file:?}");
        for (text, expected) in [
            ("# nobody\n\n", "there is no recipient in"),
            ("# ada\nada\n", "line 2: this is not an age recipient"),
            ("AGE-SECRET-KEY-1QQQQ\n", "line 1: this is a private key"),
            ("# AGE-SECRET-KEY-1QQQQ\nage1x", "line 1: this is a private key"),
        ] {
            std::fs::write(&file, text).unwrap();
            let report = report(&settings);
            assert!(report.contains(expected) && !report.contains("QQQQ"), "{report}");
            assert!(report.contains("nothing was dumped\nHINT: "), "{report}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(report(&settings).contains("could not read"));
    }

    #[test]
    fn a_directory_of_keys_that_is_missing_is_named() {
        let report = report("backup = { encrypt_to = [\"a@test.example\"], gnupg_home = \"/nonexistent\" }");
        assert!(
            report.contains("could not read /nonexistent") && report.contains("HINT: create it"),
            "{report}"
        );
    }
}
