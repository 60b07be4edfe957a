use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::runtime::Call;

/// A server that knows neither settings called `gone…` nor values called `bad…`, and says so as PostgreSQL does. Those
/// called `silent…` must not be `no…`, and it does not say which one that is.
const POSTGRES: &str = r#"
directory=$4
cd "$directory"
status=0
for name in $(grep -rhoE '^gone[a-z_]*' . --include '*.conf' | sort -u); do
    for found in $(grep -rnoE "^$name\b" . --include '*.conf'); do
        file=${found%%:*}; line=${found#*:}
        echo "LOG:  unrecognized configuration parameter \"$name\" in file \"$directory/${file#./}\" line ${line%%:*}" >&2
        status=1
    done
done
if [ $status = 0 ]; then
    for found in $(grep -rhoE "^[a-z_0-9]+ = bad[0-9]*" . --include '*.conf' | tr -d ' '); do
        echo "LOG:  invalid value for parameter \"${found%%=*}\": \"${found#*=}\"" >&2
        status=1
    done
    if grep -rqE "^silent[a-z]* = '?no" . --include '*.conf'; then
        echo "LOG:  it is not supported" >&2
        status=1
    fi
fi
exit $status
"#;

struct Stub;

impl Runtime for Stub {
    fn majors(&self) -> Vec<Major> {
        vec![Major(13), Major(17)]
    }

    fn extensions(&self, _: Major) -> Result<BTreeSet<String>> {
        Ok(BTreeSet::new())
    }

    fn has_library(&self, _: Major, library: &str) -> Option<bool> {
        Some(library == "there")
    }

    fn command(&self, _: Major, call: &Call) -> Result<Command> {
        let mut command = Command::new("/bin/bash");
        command
            .args(["-c", POSTGRES, "postgres"])
            .args(call.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()));
        Ok(command)
    }
}

struct Directories {
    _root: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
}

fn directories(files: &[(&str, &str)]) -> Directories {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    std::fs::create_dir(&new).unwrap();
    for name in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "PG_VERSION"] {
        std::fs::write(new.join(name), "of initdb\n").unwrap();
    }
    for (file, text) in files {
        let file = old.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    Directories { _root: root, old, new }
}

fn us() -> Account {
    Account::of(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

fn carried(directories: &Directories) -> Result<Carried> {
    let Directories { old, new, .. } = directories;
    carry(&Stub, (&Home::of(old), Major(13)), (&Home::of(new), Major(17)), Names::same(), &us())
}

fn foreseen(directories: &Directories) -> Vec<Foreseen> {
    foresee(&Stub, (&Home::of(&directories.old), Major(13)), Major(17), &us()).unwrap()
}

#[test]
fn the_new_directory_has_what_the_target_takes_of_the_old_one() {
    let directories = directories(&[
        (
            "postgresql.conf",
            "# mine\nshared_preload_libraries = 'there'\ngone_a = 1\nwal_keep_segments = 2\n\
             include_dir 'conf.d'\nssl_key_file = 'certs/key'\n",
        ),
        ("conf.d/10.conf", "gone_b = 1\nlc_time = bad\nport = 5\n"),
        ("postgresql.auto.conf", "gone_a = '2'\n"),
        ("pg_hba.conf", "local all @admins peer\n"),
        ("admins", "ada\n"),
        ("certs/key", "secret"),
        ("PG_VERSION", "13\n"),
        ("base/1/2", ""),
        ("notes/a", ""),
    ]);
    let key = directories.old.join("certs/key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(directories.old.join("conf.d"), std::fs::Permissions::from_mode(0o710)).unwrap();

    let before = snapshot(&directories.old);
    let expected = foreseen(&directories);
    let Carried { notes } = carried(&directories).unwrap();
    // What was foreseen is what came.
    let expected: Vec<_> = expected
        .into_iter()
        .map(|foreseen| match foreseen {
            Foreseen::Change(text) | Foreseen::Note(text) => text,
            Foreseen::Blocker { .. } => panic!("{foreseen:?}"),
        })
        .collect();
    assert_eq!(notes, expected);
    assert_eq!(notes.len(), 6, "{notes:#?}");
    assert_eq!(snapshot(&directories.old), before);

    let read = |file: &str| std::fs::read_to_string(directories.new.join(file)).unwrap();
    assert_eq!(
        read("postgresql.conf"),
        "# mine\nshared_preload_libraries = 'there'\n\
         # PostgreSQL 17 does not know this setting: gone_a = 1\n\
         wal_keep_size = '32MB' # was, before PostgreSQL 17: wal_keep_segments = 2\n\
         include_dir 'conf.d'\nssl_key_file = 'certs/key'\n"
    );
    assert_eq!(
        read("conf.d/10.conf"),
        "# PostgreSQL 17 does not know this setting: gone_b = 1\n\
         # PostgreSQL 17 rejects this value: lc_time = bad\nport = 5\n"
    );
    assert_eq!(read("postgresql.auto.conf"), "# PostgreSQL 17 does not know this setting: gone_a = '2'\n");
    assert_eq!((read("pg_hba.conf"), read("admins")), ("local all @admins peer\n".into(), "ada\n".into()));
    assert_eq!((read("certs/key"), read("PG_VERSION")), ("secret".into(), "of initdb\n".into()));
    let mode = |file: &str| directories.new.join(file).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("certs/key"), mode("conf.d")), (0o600, 0o710));
    assert!(!directories.new.join("notes").exists() && !directories.new.join("base").exists());

    // A second call ends as the first one did.
    let after = snapshot(&directories.new);
    assert_eq!(carried(&directories).unwrap().notes, notes);
    assert_eq!(snapshot(&directories.new), after);
}

#[test]
fn more_refusals_than_one_message_holds_are_all_found() {
    let lines: Vec<_> =
        (0..40).map(|n| format!("gone_{} = 1\nx{n} = bad{n}\n", char::from(b'a' + n % 26))).collect();
    let directories = directories(&[("postgresql.conf", &lines.concat())]);
    let notes = carried(&directories).unwrap().notes;
    let text = std::fs::read_to_string(directories.new.join("postgresql.conf")).unwrap();
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    assert_eq!(notes.len(), 80, "{notes:?}");
}

#[test]
fn what_cannot_be_carried_is_known_beforehand() {
    let directories = directories(&[("postgresql.conf", "session_preload_libraries = 'there, absent'\n")]);
    let expected = "library absent, named in session_preload_libraries, is not installed for PostgreSQL 17";
    assert!(matches!(&foreseen(&directories)[..],
        [Foreseen::Blocker { message, .. }] if message == expected));
    let error = carried(&directories).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Config, expected));
    std::fs::write(directories.old.join("postgresql.conf"), "").unwrap();
    std::fs::write(directories.old.join("pg_hba.conf"), "\nhostssl all all all cert clientcert=1\n").unwrap();
    let [Foreseen::Blocker { message, hint }] = &foreseen(&directories)[..] else { panic!() };
    assert!(
        message.contains("does not know clientcert=1 (") && message.ends_with("pg_hba.conf, line 2)"),
        "{message}"
    );
    assert_eq!(carried(&directories).unwrap_err().hint_text(), Some(hint.as_str()));
    std::fs::remove_file(directories.old.join("postgresql.conf")).unwrap();
    assert!(matches!(&foreseen(&directories)[..], [Foreseen::Blocker { message, .. }]
        if message.ends_with("configuration files outside of the data directory are not supported")));
}

#[test]
fn names_in_the_catalogs_are_asked_for_too() {
    let names: BTreeSet<_> = ["gone_x", "work_mem", "gone.extension"].map(str::to_owned).into();
    let unknown = unknown_settings(&Stub, Major(17), &names, &us()).unwrap();
    assert_eq!(unknown, ["gone_x".to_owned()].into());
}

#[test]
fn a_value_that_is_refused_without_a_name_is_found() {
    let text = "silenta = yes\nsilentb = no\nport = 5\nsilentb = 'not'\nsilentc = no\n";
    let directories = directories(&[("postgresql.conf", text)]);
    let notes = carried(&directories).unwrap().notes;
    assert_eq!(
        std::fs::read_to_string(directories.new.join("postgresql.conf")).unwrap(),
        "silenta = yes\n# PostgreSQL 17 rejects this value: silentb = no\nport = 5\n\
         # PostgreSQL 17 rejects this value: silentb = 'not'\n# PostgreSQL 17 rejects this value: silentc = no\n"
    );
    assert!(notes.iter().any(|note| note.contains("silentb = not: it is not supported")), "{notes:?}");
}

#[test]
fn values_in_the_catalogs_are_asked_for_too() {
    struct Newer(Stub);
    impl Runtime for Newer {
        fn majors(&self) -> Vec<Major> {
            self.0.majors()
        }
        fn extensions(&self, major: Major) -> Result<BTreeSet<String>> {
            self.0.extensions(major)
        }
        fn has_library(&self, major: Major, library: &str) -> Option<bool> {
            self.0.has_library(major, library)
        }
        fn command(&self, major: Major, call: &Call) -> Result<Command> {
            match major {
                Major(17) => self.0.command(major, call),
                _ => Ok(Command::new("true")),
            }
        }
    }
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings: BTreeSet<_> =
        [pair("silent", "no"), pair("silent", "yes"), pair("work_mem", "it's '7MB'"), pair("x", "bad")]
            .into();
    let ask =
        |runtime: &dyn Runtime| refused_values(runtime, (Major(15), Major(17)), &settings, &us()).unwrap();
    assert_eq!(ask(&Newer(Stub)), [(pair("silent", "no"), "it is not supported".to_owned())].into());
    // What the old version does not take from a file either is no difference.
    assert!(ask(&Stub).is_empty());
}

/// Paths, modes and contents.
fn snapshot(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().mode();
        all.push((path.clone(), mode, std::fs::read(&path).unwrap_or_default()));
        if path.is_dir() {
            all.extend(snapshot(&path));
        }
    }
    all.sort();
    all
}
