//! Whom backups are encrypted to.

use std::path::PathBuf;

use super::value::{contradiction, refused};
use crate::error::Result;

/// Whom backups are encrypted to, as it was written: nothing has been looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncryptTo {
    /// By age(1).
    Age {
        /// Recipients: `age1…`, or SSH's public keys.
        recipients: Vec<String>,
        /// A file of further ones.
        file: Option<PathBuf>,
    },
    /// By gpg(1).
    OpenPgp {
        /// Fingerprints, or addresses.
        keys: Vec<String>,
        /// `gnupg_home`: where their public keys are. Default `/etc/matrix-postgres/gnupg`.
        home: PathBuf,
    },
}

/// What the recipients look like says which program encrypts.
pub(super) fn encrypt_to(
    recipients: Vec<String>,
    file: Option<PathBuf>,
    home: PathBuf,
) -> Result<Option<EncryptTo>> {
    let (mut age, mut keys) = (Vec::new(), Vec::new());
    for recipient in recipients {
        let text = recipient.trim();
        if holds_secret(text) {
            return Err(contradiction(
                "backup.encrypt_to contains a private key; keep it on another machine",
                "write the recipient there, which `age-keygen -y` prints, and generate a new key: this one is no longer secret",
            ));
        }
        if is_age_recipient(text) {
            age.push(text.to_owned());
        } else if let Some(key) = openpgp_key(text) {
            keys.push(key);
        } else {
            return Err(refused(
                "backup.encrypt_to",
                text,
                "age recipients (age1...), or OpenPGP keys: full fingerprints (40 digits) or addresses",
            ));
        }
    }
    match (age.is_empty() && file.is_none(), keys.is_empty()) {
        (true, true) => Ok(None),
        (false, true) => Ok(Some(EncryptTo::Age { recipients: age, file })),
        (true, false) => Ok(Some(EncryptTo::OpenPgp { keys, home })),
        (false, false) => Err(contradiction(
            "backup.encrypt_to and backup.recipients_file have recipients of both age and OpenPGP, but a file is \
             encrypted by one of them",
            "use recipients of one kind only",
        )),
    }
}

/// Whether this is a private key, of which nothing must be shown.
pub(crate) fn holds_secret(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    text.contains("AGE-SECRET-KEY") || text.contains("AGE-PLUGIN-") || text.contains("PRIVATE KEY")
}

/// Whether this is a recipient as age takes it; age itself has the last word.
pub(crate) fn is_age_recipient(text: &str) -> bool {
    let one_line = !text.contains(char::is_control);
    one_line && ["age1", "ssh-ed25519 ", "ssh-rsa "].iter().any(|start| text.starts_with(start))
}

/// A whole fingerprint or an address, as gpg takes them. Shorter ids of keys are forged within minutes.
fn openpgp_key(text: &str) -> Option<String> {
    let digits: String = text.strip_prefix("0x").unwrap_or(text).chars().filter(|c| *c != ' ').collect();
    if matches!(digits.len(), 40 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_uppercase());
    }
    let address = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    let (name, domain) = address.split_once('@')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c.is_whitespace() || c.is_control() || "<>@\"=".contains(c))
    };
    // In angle brackets it is this address, and not any that it is a part of.
    (plain(name) && plain(domain)).then(|| format!("<{address}>"))
}
