//! Programs of this machine as far as it has them, and containers for the rest.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::sandbox::Sandbox;
use super::{Call, Child, Container, Host, Image, Inside, Runtime};
use crate::account::Account;
use crate::error::Result;
use crate::version::Major;

/// This machine's programs before those of the server's image: who has them needs no access to docker.
#[derive(Debug, Clone)]
pub struct Mixed {
    host: Host,
    container: Option<Container>,
    /// What a server is called that only containers reach.
    apart: Option<String>,
}

impl Mixed {
    /// The programs of `host`, and those of `container`. A server that is called `apart` is reached from containers only.
    pub fn new(host: Host, container: Option<Container>, apart: Option<String>) -> Self {
        Self { host, container, apart }
    }

    /// The image whose programs are needed, if those of this machine are not enough to make backups.
    pub fn needed_image(&self) -> Option<&Image> {
        let image = self.container.as_ref().map(Container::image)?;
        let is_enough = self.apart.is_none() && self.host.program("pg_dump", image.major).is_ok();
        (!is_enough).then_some(image)
    }

    /// Which version of it is a program of this machine's, if one is to be that carries this out.
    fn of_host(&self, major: Major, call: &Call) -> Option<Major> {
        let is_apart = |host: &String| {
            // As a connection string of ours begins.
            let begins = format!("host='{host}' ");
            call.arguments.iter().any(|argument| argument.to_string_lossy().starts_with(&begins))
        };
        // What psql can do is asked of the one that talks to the server.
        let asks_version =
            call.program == "psql" && call.arguments.iter().all(|argument| argument == "--version");
        if self.apart.as_ref().is_some_and(|host| asks_version || is_apart(host)) {
            return None;
        }
        if self.container.is_none() || self.host.program(call.program, major).is_ok() {
            return Some(major);
        }
        // Every psql talks to every server.
        self.host.majors().last().copied().filter(|_| call.program == "psql")
    }
}

impl Runtime for Mixed {
    fn majors(&self) -> Vec<Major> {
        let of_image = self.container.iter().flat_map(Container::majors);
        self.host.majors().into_iter().chain(of_image).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn near_majors(&self) -> Vec<Major> {
        self.host.majors()
    }

    fn extensions(&self, major: Major) -> Result<BTreeSet<String>> {
        self.host.extensions(major)
    }

    fn has_library(&self, major: Major, library: &str) -> Option<bool> {
        self.host.has_library(major, library)
    }

    fn programs(&self, major: Major) -> Option<PathBuf> {
        self.host.programs(major)
    }

    fn inside(&self, path: &std::path::Path) -> Inside {
        self.host.inside(path)
    }

    fn command(&self, major: Major, call: &Call) -> Result<Command> {
        match (self.of_host(major, call), &self.container) {
            (None, Some(container)) if call.program == "psql" => {
                container.command(container.image().major, call)
            }
            (None, Some(container)) => container.command(major, call),
            (found, _) => self.host.command(found.unwrap_or(major), call),
        }
    }

    fn start_server(&self, major: Major, call: &Call, allowed: Sandbox, name: String) -> Result<Child> {
        match (self.of_host(major, call), &self.container) {
            (None, Some(container)) => container.start_server(major, call, allowed, name),
            (found, _) => self.host.start_server(found.unwrap_or(major), call, allowed, name),
        }
    }

    fn account(&self) -> Option<&Account> {
        self.host.account()
    }
}
