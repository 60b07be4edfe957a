//! What docker and podman say of the containers that run: both print the same, but for details.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::runtime::{bare, output_within, tool};

/// A program that hangs is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where podman writes down by which unit it was called; but anybody may, who makes an image or a container.
const UNIT_LABEL: &str = "PODMAN_SYSTEMD_UNIT";

/// What a container is, in the words of `docker inspect`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Container {
    /// Its id.
    pub(super) id: String,
    name: String,
    path: Option<String>,
    args: Option<Vec<String>>,
    state: State,
    config: Config,
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    pid: i32,
    conmon_pid: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    source: String,
    destination: String,
    #[serde(rename = "RW")]
    writable: bool,
}

impl Container {
    /// All that `docker inspect` or `podman inspect` has printed.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(Kind::Program, "what it says of containers cannot be read").because(error)
        })
    }

    /// Its name; docker's begin with a slash.
    pub(super) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    /// The number of its first process on this machine.
    pub(super) fn pid(&self) -> Option<i32> {
        Some(self.state.pid).filter(|pid| *pid > 0)
    }

    /// The unit that has called podman, if it was one, or that somebody says so of; and the process that podman leaves there.
    pub(super) fn unit(&self) -> Option<(&str, i32)> {
        let unit = self.config.labels.as_ref()?.get(UNIT_LABEL)?;
        Some((unit, self.state.conmon_pid))
    }

    /// Whether its server is on this data directory, or will be: it may still be getting ready. Who mounts a directory above,
    /// such as what makes copies of it, is no server.
    pub(super) fn serves(&self, data_directory: &Path) -> bool {
        let words = || self.path.iter().chain(self.args.iter().flatten()).map(Path::new);
        let is_server = words().any(|word| word.ends_with("postgres") || word.ends_with("postmaster"));
        let environment = self.config.env.as_deref().unwrap_or_default();
        let named = environment.iter().find_map(|entry| entry.strip_prefix("PGDATA=")).map(Path::new);
        let given = words().skip_while(|word| *word != Path::new("-D")).nth(1).or(named);
        self.mounts.iter().flatten().filter(|mount| mount.writable).any(|mount| {
            let source = Path::new(&mount.source);
            let source = source.canonicalize().unwrap_or_else(|_| source.to_owned());
            let Ok(rest) = data_directory.strip_prefix(source) else { return false };
            given.map_or(is_server, |given| given == Path::new(&mount.destination).join(rest))
        })
    }
}

/// All that run, as `program` (docker, podman) says; only root may ask for all.
///
/// # Errors
/// [`Kind::Program`], [`Kind::NotInstalled`].
pub(super) fn running(program: &'static str) -> Result<Vec<Container>> {
    let file = tool(program, program)?;
    let ask = |arguments: &[&str]| {
        let mut command = bare(&file);
        command.args(arguments);
        let text = output_within(command, &format!("{program} {}", arguments[0]), Vec::new(), PATIENCE)?;
        Ok::<_, Error>(String::from_utf8_lossy(&text).into_owned())
    };
    let ids = ask(&["ps", "--quiet", "--no-trunc"])?;
    let ids: Vec<_> = ids.split_whitespace().collect();
    match ids.is_empty() {
        true => Ok(Vec::new()),
        false => Container::parse(&ask(&[&["inspect"], &ids[..]].concat())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As docker 26 prints it of the playbook's container, in part.
    const DOCKER: &str = r#"[{"Id": "1a2b", "Created": "2026-11-28T12:00:00Z", "Path": "docker-entrypoint.sh",
        "Args": ["postgres", "-c", "max_connections=200"],
        "State": {"Status": "running", "Running": true, "Pid": 4711, "ExitCode": 0}, "Name": "/matrix-postgres",
        "HostConfig": {"NetworkMode": "matrix"},
        "Mounts": [{"Type": "bind", "Source": "/matrix/postgres/data", "Destination": "/var/lib/postgresql/data", "Mode": "",
            "RW": true, "Propagation": "rprivate"},
            {"Type": "bind", "Source": "/etc/passwd", "Destination": "/etc/passwd", "Mode": "", "RW": false}],
        "Config": {"Hostname": "1a2b", "Env": ["PATH=/usr/bin", "PGDATA=/var/lib/postgresql/data"],
            "Cmd": ["postgres"], "Entrypoint": ["docker-entrypoint.sh"], "Labels": {}}}]"#;

    /// As podman 5 prints it, in part.
    const PODMAN: &str = r#"[{"Id": "3c4d", "Path": "/usr/lib/postgresql/17/bin/postgres", "Args": ["-D", "/data/pg"],
        "State": {"OciVersion": "1.2.0", "Status": "running", "Running": true, "Pid": 42, "ConmonPid": 40}, "Name": "db",
        "Mounts": [{"Type": "bind", "Source": "/matrix/postgres", "Destination": "/data", "Driver": "", "Mode": "",
            "Options": ["rbind"], "RW": true, "Propagation": "rprivate"}],
        "Config": {"Env": ["container=podman"], "Cmd": ["-D"], "Entrypoint": "/usr/lib/postgresql/17/bin/postgres",
            "Labels": {"PODMAN_SYSTEMD_UNIT": "db.service"}}}]"#;

    fn one(text: &str) -> Container {
        Container::parse(text).unwrap().pop().unwrap()
    }

    #[test]
    fn a_server_has_what_it_mounts() {
        let docker = one(DOCKER);
        assert_eq!((docker.name(), docker.pid(), docker.unit()), ("matrix-postgres", Some(4711), None));
        let serves = |container: &Container, path: &str| container.serves(Path::new(path));
        assert!(serves(&docker, "/matrix/postgres/data"));
        assert!(!serves(&docker, "/matrix/postgres/data2") && !serves(&docker, "/matrix/postgres"));
        let podman = one(PODMAN);
        assert_eq!((podman.name(), podman.unit()), ("db", Some(("db.service", 40))));
        assert!(serves(&podman, "/matrix/postgres/pg") && !serves(&podman, "/matrix/postgres/data"));
        // From 18 on, the official image has it below its volume.
        let newer = DOCKER
            .replace("/var/lib/postgresql/data\", \"Mode", "/var/lib/postgresql\", \"Mode")
            .replace("PGDATA=/var/lib/postgresql/data", "PGDATA=/var/lib/postgresql/18/docker");
        assert!(serves(&one(&newer), "/matrix/postgres/data/18/docker"));
        assert!(!serves(&one(&newer), "/matrix/postgres/data"));
    }

    #[test]
    fn who_reads_or_does_something_else_is_no_server() {
        let path = Path::new("/matrix/postgres/data");
        assert!(!one(&DOCKER.replace("\"RW\": true", "\"RW\": false")).serves(path));
        let exporter = DOCKER.replace("\"postgres\"", "\"exporter\"").replace("PGDATA=", "X=");
        assert!(!one(&exporter).serves(path));
        for text in ["", "{}", "Error: no such object"] {
            assert_eq!(Container::parse(text).unwrap_err().kind(), Kind::Program);
        }
        let bare = r#"[{"Id": "1", "Name": "x", "Args": null, "Mounts": null, "State": {}, "Config": {"Env": null, "Labels": null}}]"#;
        assert!(!one(bare).serves(path));
    }
}
