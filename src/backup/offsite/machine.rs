//! Which directory in a target is a machine's: two that send to one target do not get at each other's backups.
//!
//! Its name is that of the host, and a number that is this installation's: machines of the same name are told apart, and one
//! whose name changes goes on where it was. The server's own number would not do: an upgrade gives it another one.

use crate::archive::digest::Hasher;

/// How many digits the number has.
const DIGITS: usize = 8;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    host: String,
    number: String,
}

impl Machine {
    /// By the name of the host, and the text of machine-id(5), which itself is not to be shown to others.
    pub fn new(host: &str, machine_id: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let mut hasher = Hasher::default();
        hasher.update(b"matrix-postgres offsite ");
        hasher.update(machine_id.trim().as_bytes());
        let number = hasher.finish().sha256[..DIGITS].to_owned();
        Self { host: host.trim_start_matches('.').chars().map(plain).collect(), number }
    }

    /// Its directory among these, or the one that it makes.
    pub fn directory(&self, directories: &[String]) -> String {
        let ends_alike = |directory: &&String| directory.ends_with(&format!("-{}", self.number));
        let own = format!("{}-{}", self.host, self.number);
        match directories.iter().find(ends_alike) {
            Some(known) => known.clone(),
            None => own,
        }
    }
}

/// Those that are machines'.
pub(super) fn directories(names: &[String]) -> Vec<String> {
    let is_machines = |name: &&String| {
        name.rsplit_once('-').is_some_and(|(_, number)| {
            number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    names.iter().filter(is_machines).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_stays_where_it_was_under_another_name() {
        let machine = Machine::new("Matrix 1/a", "0123456789abcdef0123456789abcdef");
        let own = machine.directory(&[]);
        assert!(own.starts_with("Matrix_1_a-") && own.len() == 19, "{own}");
        let renamed = Machine::new("other", "0123456789abcdef0123456789abcdef\n");
        assert_eq!(renamed.directory(std::slice::from_ref(&own)), own);
        let another = Machine::new("Matrix 1/a", "1123456789abcdef0123456789abcdef");
        assert_ne!(another.directory(std::slice::from_ref(&own)), own);
    }

    #[test]
    fn what_others_have_in_a_target_is_no_machine() {
        let names = ["a-0123abcd", "photos", "x-0123abc", "20261129T030000Z"].map(str::to_owned);
        assert_eq!(directories(&names), ["a-0123abcd"]);
    }
}
