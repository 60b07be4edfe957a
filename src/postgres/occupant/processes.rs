//! The processes of the machine that may have to do with a data directory, from the process file system.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::postgres::control_group::ControlGroup;

/// A server's process, or one of a program that runs containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Its number here.
    pub(super) pid: i32,
    /// That of what has started it.
    pub(super) parent: i32,
    /// The first bytes of its program's name.
    pub(super) name: String,
    /// How it was called.
    pub(super) words: Vec<String>,
    /// Device and number of the directory that it works in.
    pub(super) works_in: Option<(u64, u64)>,
    /// Whether we may not know that.
    pub(super) is_hidden: bool,
    /// Whether it has another number in a namespace of its own.
    pub(super) is_apart: bool,
    /// Whether it runs as root.
    pub(super) is_roots: bool,
    /// Where it belongs.
    pub(super) group: ControlGroup,
}

impl Process {
    /// A server works in its data directory, and so do all its processes, as which programs ever they were started.
    pub(super) fn is_server(&self) -> bool {
        self.name.starts_with("postgres") || self.name.starts_with("postmaster")
    }

    fn read(process: &Path, pid: i32) -> Option<Self> {
        let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
        let mut found = Self { pid, name: read("comm").trim_end().to_owned(), ..Self::default() };
        if !found.is_server() && !["docker", "dockerd", "podman", "conmon"].contains(&found.name.as_str()) {
            return None;
        }
        // It is told who it is in each namespace, from ours on.
        for line in read("status").lines() {
            match line.split_once(':') {
                Some(("PPid", parent)) => found.parent = parent.trim().parse().unwrap_or_default(),
                Some(("Uid", numbers)) => found.is_roots = numbers.split_whitespace().eq(["0"; 4]),
                Some(("NSpid", numbers)) => found.is_apart = numbers.split_whitespace().count() > 1,
                _ => {}
            }
        }
        match process.join("cwd").metadata() {
            Ok(directory) => found.works_in = Some((directory.dev(), directory.ino())),
            Err(error) => found.is_hidden = error.kind() == ErrorKind::PermissionDenied,
        }
        found.words = read("cmdline").split('\0').map(str::to_owned).collect();
        found.group = ControlGroup::parse(&read("cgroup"));
        Some(found)
    }
}

/// All of them, as far as they are seen; `proc` is where the process file system is mounted.
pub(super) fn all(proc: &Path) -> Vec<Process> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let numbered =
        entries.filter_map(|entry| Some((entry.path(), entry.file_name().to_str()?.parse().ok()?)));
    numbered.filter_map(|(process, pid)| Process::read(&process, pid)).collect()
}

/// The first process of the server that works in the directory of this identity: one that none of the others has started.
pub(super) fn first_of(processes: &[Process], directory: (u64, u64)) -> Option<&Process> {
    let working = || processes.iter().filter(|it| it.is_server() && it.works_in == Some(directory));
    working().find(|process| !working().any(|other| other.pid == process.parent))
}
