//! Which image a unit's container is made of, and how the unit is made to run another one: a drop-in beside its file repeats the
//! command as it is, but for the image.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::created::Created;
use super::exec;
use crate::version::Major;

/// The drop-in's name. No other one of the unit may say anything of its commands, so its place among them does not matter.
const NAME: &str = "50-matrix-postgres-upgrade.conf";

/// Where an administrator has units.
const UNITS: &str = "etc/systemd/system";

/// What a unit's container is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The image.
    pub image: String,
    /// Where the cluster is in the container, for an image that would look for it elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
}

impl Run {
    /// Whether it names an image as others are named, which is written into units.
    pub fn is_plain(&self) -> bool {
        let data = self.data.as_ref().map(|data| data.to_string_lossy().into_owned());
        let is_path = |text: &String| text.starts_with('/') && text.bytes().all(is_plain);
        is_name(&self.image) && data.as_ref().is_none_or(is_path)
    }
}

/// Whether this is an image's name, with a tag or a digest.
pub fn is_name(image: &str) -> bool {
    image.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && image.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte)
}

/// Where the drop-in of a unit is, on the machine that has its files below `root`.
pub fn drop_in_of(root: &Path, unit: &str) -> PathBuf {
    root.join(UNITS).join(format!("{unit}.d")).join(NAME)
}

/// The image of another version in the same repository, by the way in which tags are formed there: `15.4-alpine` becomes
/// `17-alpine`. Nothing where a tag does not begin with a version.
pub fn of_version(image: &str, to: Major) -> Option<String> {
    let slash = image.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = image[slash..].split_once(':')?;
    let suffix = tag.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_version = suffix.len() < tag.len() && (suffix.is_empty() || suffix.starts_with('-'));
    let repository = &image[..slash + name.len()];
    (is_version && is_name(image) && !image.contains('@')).then(|| format!("{repository}:{to}{suffix}"))
}

/// Whether a drop-in says anything of the commands of its unit.
pub fn names_commands(text: &str, unit: &str) -> bool {
    !exec::assignments(text, unit).is_empty()
}

/// What a drop-in must say, so that a unit whose file says `text` runs this; nothing if it does so by itself.
///
/// # Errors
/// Why that cannot be said with certainty.
pub fn drop_in(text: &str, unit: &str, run: &Run) -> Result<Option<String>, String> {
    let all = exec::assignments(text, unit);
    let creating: Vec<_> = all
        .iter()
        .filter_map(|command| Created::of_command(&command.words).map(|created| (command, created)))
        .collect();
    let [(command, created)] = creating.as_slice() else {
        return Err(format!("{} of its commands start a container of a server", creating.len()));
    };
    let data = run.data.as_ref().map(|data| ("PGDATA".to_owned(), data.display().to_string()));
    let is_known = |variable: &(String, String)| created.variables.contains(variable);
    if created.image == run.image && data.as_ref().is_none_or(is_known) {
        return Ok(None);
    }
    let is_word = |(at, found): &(usize, &str)| {
        let before = command.raw[..*at].chars().next_back();
        let after = command.raw[at + found.len()..].chars().next();
        before.is_some_and(char::is_whitespace) && after.is_none_or(char::is_whitespace)
    };
    let places: Vec<_> = command.raw.match_indices(created.image.as_str()).filter(is_word).collect();
    let [(at, found)] = places.as_slice() else {
        return Err(format!("{:?} is not one word of the command", created.image));
    };
    let option = data.as_ref().map_or_else(String::new, |(name, value)| format!("--env={name}={value} "));
    let (before, after) = (&command.raw[..*at], &command.raw[at + found.len()..]);
    let replaced = format!("{before}{option}{}{after}", run.image);
    let mut lines = format!("[Service]\n{}=\n", command.key);
    for other in all.iter().filter(|other| other.key == command.key) {
        lines += if other.raw == command.raw { &replaced } else { other.raw };
        lines.push('\n');
    }
    let mut expected = created.clone();
    run.image.clone_into(&mut expected.image);
    expected.variables.extend(data);
    let said = format!("{text}\n{lines}");
    match Created::parse(&said, unit) == Some(expected) && run.is_plain() {
        true => Ok(Some(lines)),
        false => Err("its command has a form of its own".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "matrix-postgres.service";

    const PLAYBOOK: &str = "[Service]\nExecStartPre=/usr/bin/env sh -c 'docker rm matrix-postgres || true'\n\n# why\n\
ExecStartPre=/usr/bin/env docker create \\\n      --rm \\\n      --name matrix-postgres \\\n\
      --mount type=bind,src=/matrix/postgres/data,dst=/data \\\n      docker.io/postgres:15.4-alpine \\\n\
      postgres -c 'max_connections=200'\n\nExecStart=/usr/bin/env docker start --attach matrix-postgres\n";

    fn run(image: &str) -> Run {
        Run { image: image.to_owned(), data: None }
    }

    #[test]
    fn the_command_is_repeated_as_it_is_with_another_image() {
        let text = drop_in(PLAYBOOK, UNIT, &run("docker.io/postgres:17-alpine")).unwrap().unwrap();
        let expected = PLAYBOOK
            .replace("[Service]\n", "[Service]\nExecStartPre=\n")
            .replace("15.4-alpine", "17-alpine")
            .replace("\n\n# why", "")
            .replace("\n\nExecStart=/usr/bin/env docker start --attach matrix-postgres", "");
        assert_eq!(text, expected);
        assert_eq!(drop_in(PLAYBOOK, UNIT, &run("docker.io/postgres:15.4-alpine")), Ok(None));
        let newer = Run { data: Some("/data".into()), ..run("docker.io/postgres:18-alpine") };
        let text = drop_in(PLAYBOOK, UNIT, &newer).unwrap().unwrap();
        assert!(text.contains("      --env=PGDATA=/data docker.io/postgres:18-alpine \\\n"), "{text}");
        // What is said already is not said twice.
        let said = PLAYBOOK.replace("--rm", "--rm -e PGDATA=/data");
        let same = Run { data: Some("/data".into()), ..run("docker.io/postgres:15.4-alpine") };
        assert_eq!(drop_in(&said, UNIT, &same), Ok(None));
    }

    #[test]
    fn what_is_not_understood_with_certainty_is_refused() {
        let of = |text: &str, image: &str| drop_in(text, UNIT, &run(image));
        for (text, image) in [
            (PLAYBOOK.replace("docker.io/postgres:15.4-alpine", "${IMAGE}"), "postgres:17 --privileged"),
            (PLAYBOOK.replace("docker.io/postgres:15.4-alpine", "\"docker.io/postgres:15\""), "postgres:17"),
            (PLAYBOOK.replace("'max_connections=200'", "docker.io/postgres:15.4-alpine"), "postgres:17"),
            (format!("{PLAYBOOK}ExecStartPost=/usr/bin/docker run --name b postgres:15\n"), "postgres:17"),
            ("[Service]\nExecStart=/usr/bin/postgres\n".to_owned(), "postgres:17"),
            (PLAYBOOK.to_owned(), "postgres:17\nExecStart=/bin/sh"),
        ] {
            assert!(of(&text, image).is_err(), "{text}");
        }
    }

    #[test]
    fn the_image_of_another_version_has_the_same_kind_of_tag() {
        for (image, expected) in [
            ("docker.io/postgres:15.4-alpine", Some("docker.io/postgres:17-alpine")),
            ("postgres:15", Some("postgres:17")),
            (
                "registry.test:5000/own/postgres:15-bookworm",
                Some("registry.test:5000/own/postgres:17-bookworm"),
            ),
            ("postgres", None),
            ("registry.test:5000/postgres", None),
            ("postgres:latest", None),
            ("postgres:15beta1", None),
            ("postgres:15@sha256:00", None),
            ("${IMAGE}:15", None),
        ] {
            assert_eq!(of_version(image, Major(17)).as_deref(), expected, "{image}");
        }
        let file = drop_in_of(Path::new("/"), UNIT);
        let expected = "/etc/systemd/system/matrix-postgres.service.d/50-matrix-postgres-upgrade.conf";
        assert_eq!(file, Path::new(expected));
    }
}
