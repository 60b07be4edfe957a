//! The control group of a process: which unit or container it belongs to.

use std::path::Path;

/// What the names of a container's groups end in.
const ID: usize = 64;

/// A path below the control groups' file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlGroup(String);

impl ControlGroup {
    /// From `/proc/PID/cgroup`: a line such as `0::/system.slice/x.service`. Kernels that mount the old hierarchies, too, have
    /// a line for each of those before it.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned())
    }

    /// That of a process, of which `process` is the directory in /proc; nothing if it has ended.
    pub fn of(process: &Path) -> Option<Self> {
        std::fs::read_to_string(process.join("cgroup")).ok().map(|text| Self::parse(&text))
    }

    /// The outermost unit, such as that of `/system.slice/system-postgresql.slice/postgresql@17-main.service`: what is below it has
    /// names that the unit gives, such as a user's own service manager, which may call a service as one of the system's is called.
    /// Of what is in a container it is the unit that has the container, and none within.
    pub fn unit(&self) -> Option<String> {
        let outside =
            self.container().map_or(self.0.as_str(), |(_, id)| self.0.split(id).next().unwrap_or_default());
        outside.split('/').find(|part| part.ends_with(".service")).map(str::to_owned)
    }

    /// The program that runs its container, and the container's id: docker has `docker-ID.scope` or `docker/ID`, podman
    /// `libpod-ID.scope` or `libpod-payload-ID`.
    pub fn container(&self) -> Option<(&str, &str)> {
        let mut parent = "";
        for part in self.0.split('/') {
            let name = part.strip_suffix(".scope").unwrap_or(part);
            let (before, id) = name.split_at_checked(name.len().saturating_sub(ID)).unwrap_or_default();
            if id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let program = if before.is_empty() { parent } else { before.trim_end_matches('-') };
                return Some((if program.starts_with("libpod") { "podman" } else { program }, id));
            }
            parent = part;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_and_container_are_told_by_the_path() {
        let id = "0123456789abcdef".repeat(4);
        let of = |path: &str| {
            let group = ControlGroup::parse(&format!("4:memory:/\n0::{path}\n"));
            let container = group.container().map(|(program, id)| format!("{program} {}", id.len()));
            (group.unit().unwrap_or_default(), container.unwrap_or_default())
        };
        for (path, unit, container) in [
            ("/system.slice/postgresql@15-main.service".to_owned(), "postgresql@15-main.service", ""),
            ("/user.slice/user-0.slice/session-3.scope".to_owned(), "", ""),
            (format!("/system.slice/docker-{id}.scope"), "", "docker 64"),
            (format!("/docker/{id}"), "", "docker 64"),
            (format!("/docker/{id}/system.slice/postgresql@17-main.service"), "", "docker 64"),
            (format!("/machine.slice/libpod-{id}.scope/container"), "", "podman 64"),
            (format!("/system.slice/db.service/libpod-payload-{id}"), "db.service", "podman 64"),
            (format!("/kubepods.slice/cri-containerd-{id}.scope"), "", "cri-containerd 64"),
            ("/é".to_owned(), "", ""),
            (
                format!("/user.slice/user-7.slice/user@7.service/app.slice/db.service/docker-{id}.scope"),
                "user@7.service",
                "docker 64",
            ),
            ("/user.slice/user-7.slice/user@7.service/app.slice/db.service".to_owned(), "user@7.service", ""),
        ] {
            assert_eq!(of(&path), (unit.to_owned(), container.to_owned()), "{path}");
        }
    }
}
