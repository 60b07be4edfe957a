//! What the administrator wrote, made into settings.
//!
//! Three layers, each with its own name: a [`fragment`] is one TOML file as written, everything optional;
//! fragments laid over each other in order give the input; [`settings`] are validated and complete, and
//! the rest of the program sees nothing else.

/// A table in which every key that the upper one sets is the upper one's; tables in it, behind the second semicolon, are laid
/// over each other in turn.
macro_rules! overlay {
    ($lower:expr, $upper:expr; $($key:ident),* $(; $($table:ident),*)?) => {
        Self {
            $($key: $upper.$key.or($lower.$key),)*
            $($($table: $lower.$table.overlaid_by($upper.$table),)*)?
        }
    };
}

mod backup;
mod clients;
mod encryption;
mod fragment;
mod keep;
mod layout;
mod notify;
mod offsite;
mod remote;
mod server;
mod settings;
mod upgrade;
mod value;

use std::path::{Path, PathBuf};

pub use backup::{Backup, Compression, Engine, StartServer};
pub use clients::Clients;
pub use encryption::EncryptTo;
pub(crate) use encryption::{holds_secret, is_age_recipient};
pub use fragment::Fragment;
pub use keep::Keep;
pub use layout::Layout;
pub use notify::{Matrix, Notify};
pub use offsite::{Offsite, parse_remote};
pub use server::{Server, ServerKind};
pub use settings::Settings;
pub use upgrade::{Depth, Method, Upgrade};

use crate::error::{Error, IoContext as _, Kind, Result};

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_FILE: &str = "/etc/matrix-postgres/config.toml";
/// Fragments laid over [`DEFAULT_FILE`], in the order of their names.
pub const DEFAULT_DIRECTORY: &str = "/etc/matrix-postgres/config.d";

/// Reads `file`, which must exist; without one the default file and directory, each if it is there.
///
/// # Errors
/// [`Kind::Config`] naming file, line and the key that was probably meant.
pub fn load(file: Option<&Path>) -> Result<Settings> {
    match file {
        Some(file) => settle(read_fragment(file)?, Path::new("/")),
        None => load_default(Path::new("/"), None),
    }
}

/// The default ones, without the file `left_out`.
///
/// # Errors
/// As [`load`].
pub fn load_without(left_out: &Path) -> Result<Settings> {
    load_default(Path::new("/"), Some(left_out))
}

/// The default file and directory below `root`, without the file `left_out`.
fn load_default(root: &Path, left_out: Option<&Path>) -> Result<Settings> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let mut input = Fragment::default();
    let main = below(DEFAULT_FILE);
    if main.try_exists().at("read", &main).map_err(as_config)? {
        input = read_fragment(&main)?;
    }
    for file in fragment_files(&below(DEFAULT_DIRECTORY))?.iter().filter(|file| left_out != Some(file)) {
        input = input.overlaid_by(read_fragment(file)?);
    }
    settle(input, root)
}

/// With what is not written, but found below `root`.
fn settle(input: Fragment, root: &Path) -> Result<Settings> {
    Settings::from_fragment(Fragment { layout: Some(Layout::of(root)), ..input })
}

fn fragment_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(as_config(Error::io("read", directory, error))),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.at("read", directory).map_err(as_config)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_fragment(file: &Path) -> Result<Fragment> {
    let text = std::fs::read_to_string(file).at("read", file).map_err(as_config)?;
    Fragment::parse(&text, file)
}

fn as_config(error: Error) -> Error {
    error.with_kind(Kind::Config).state("nothing was started").hint(
        "check the path; the file must be readable by the user that runs this, and contains no secrets: chmod 0644",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::BackupFormat;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn no_file_at_all_is_a_whole_configuration() {
        let settings = load_default(tree(&[]).path(), None).unwrap();
        assert_eq!(settings.data_directory, Path::new("/var/lib/matrix-postgres/data"));
        assert_eq!(settings.upgrade.keep_path, Path::new("/var/lib/matrix-postgres/auto-upgrade-backup"));
        assert_eq!(settings.backup.directory, Path::new("/var/backups/matrix-postgres"));
        assert!(settings.server.listen.is_empty());
    }

    #[test]
    fn later_fragments_win_key_by_key() {
        let root = tree(&[
            ("etc/matrix-postgres/config.toml", "[backup]\ncompression = \"gzip\"\nformat = \"plain\""),
            ("etc/matrix-postgres/config.d/20-b.toml", "[backup]\ncompression = \"none\""),
            ("etc/matrix-postgres/config.d/10-a.toml", "[backup]\ncompression = \"zstd\""),
            ("etc/matrix-postgres/config.d/30-c.toml.bak", "nonsense"),
        ]);
        let settings = load_default(root.path(), None).unwrap();
        assert_eq!(settings.backup.compression, Compression::None);
        assert_eq!(settings.backup.format, BackupFormat::Plain);
    }

    #[test]
    fn a_misspelt_key_is_named_with_file_line_and_the_key_meant() {
        let root =
            tree(&[("etc/matrix-postgres/config.d/a.toml", "[backup]\n# faster\ncompresion = \"zstd\"\n")]);
        let error = load_default(root.path(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        let report = error.report();
        assert!(report.contains("config.d/a.toml, line 3"), "{report}");
        assert!(report.contains("unknown key `compresion`"), "{report}");
        assert!(report.contains("HINT: did you mean `compression`?"), "{report}");
    }

    /// The example says of itself that it shows every key with its default.
    #[test]
    fn the_example_shows_the_defaults() {
        let example = include_str!("../../docs/config.toml.example");
        let is_key = |line: &str| {
            line.starts_with('#')
                && line[1..].split(" = ").next().is_some_and(|key| {
                    !key.is_empty()
                        && line.contains(" = ")
                        && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                })
        };
        let text: String = example
            .lines()
            .map(|line| if is_key(line) { &line[1..] } else { line })
            .fold(String::new(), |text, line| text + line + "\n");
        let shown = Fragment::parse(&text, Path::new("example")).unwrap();
        let keys = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        assert_eq!(keys, 64, "a key is missing in the example, or this count is to be raised");
        let mut settings = Settings::from_fragment(shown).unwrap();
        assert_eq!(settings.server.version.take(), Some(crate::postgres::Major(17)));
        assert_eq!(settings.server.kind.take(), Some((ServerKind::Own, "server.kind")));
        assert!(std::mem::take(&mut settings.server.is_database_named));
        assert_eq!(settings.upgrade.to.take(), Some(crate::postgres::Major(17)));
        assert_eq!(settings.upgrade.image.take().as_deref(), Some("docker.io/postgres:17-alpine"));
        assert_eq!(settings.notify.matrix.take().unwrap().room, "!room:example.org");
        assert!(std::mem::take(&mut settings.server.is_unit_named));
        assert_eq!(settings, load_default(tree(&[]).path(), None).unwrap());
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = load(Some(Path::new("/nonexistent/x.toml"))).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("/nonexistent/x.toml"));
    }
}
