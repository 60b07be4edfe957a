//! Where a server listens: on a Unix socket, or on the network, where it must be known for the one that is meant.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Seconds until a server that says nothing is given up: whoever owns the directory of the socket may have put another there.
pub(super) const PATIENCE: u32 = 120;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// On the Unix socket in this directory. There is no password: the system user is mapped to the role (chapter "User Name
    /// Maps").
    Socket(PathBuf),
    /// On the network.
    Remote(Remote),
}

impl Endpoint {
    /// The directory of the socket; nothing for a server on the network.
    pub fn socket_directory(&self) -> Option<&Path> {
        match self {
            Self::Socket(directory) => Some(directory),
            Self::Remote(_) => None,
        }
    }

    /// The server on the network, if it is one.
    pub fn remote(&self) -> Option<&Remote> {
        match self {
            Self::Socket(_) => None,
            Self::Remote(remote) => Some(remote),
        }
    }

    /// Where it is, in a sentence.
    pub(super) fn place(&self, port: u16) -> String {
        match self {
            Self::Socket(directory) => directory.join(socket_name(port)).display().to_string(),
            Self::Remote(remote) => format!("{}, port {port}", remote.host),
        }
    }

    /// Whether certainly nobody listens: there is no socket.
    pub(super) fn is_absent(&self, port: u16) -> bool {
        let socket = self.socket_directory().map(|directory| directory.join(socket_name(port)));
        socket.is_some_and(
            |socket| matches!(socket.metadata(), Err(error) if error.kind() == ErrorKind::NotFound),
        )
    }

    /// The part of a connection string that is about the host.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Socket(directory) => format!("host={}", value(&directory.to_string_lossy())),
            Self::Remote(remote) => remote.address(),
        }
    }

    /// The same for a program of the user's own, by variables.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Socket(directory) => vec![("PGHOST", directory.to_string_lossy().into_owned())],
            Self::Remote(remote) => remote.variables(),
        }
    }
}

fn socket_name(port: u16) -> String {
    format!(".s.PGSQL.{port}")
}

/// A value in a connection string.
pub(super) fn value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// How a connection is protected (chapter "SSL Support", `sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never by TLS.
    Disable,
    /// By TLS only if the server asks for it.
    Allow,
    /// By TLS if the server has it.
    Prefer,
    /// By TLS, whoever the server is.
    Require,
    /// By TLS, with a server that has a certificate of an authority that is trusted.
    VerifyCa,
    /// The same, and the certificate is that of the host.
    VerifyFull,
}

impl SslMode {
    /// All of them, from the weakest on.
    pub const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// As libpq calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// What protects a connection to `host`, if nobody has said it: whoever is on the way could be the server, unless there is
    /// no way.
    pub fn for_host(host: &str) -> Self {
        if is_near(host) { Self::Prefer } else { Self::VerifyFull }
    }

    /// Whether it is known who the server is.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// Whether nothing that is sent to this host leaves the machine: a loopback address, or a socket's directory.
pub fn is_near(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A server on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name or address.
    pub host: String,
    /// How the connection is protected.
    pub sslmode: SslMode,
    /// The certificates of the authorities that are trusted; nothing for libpq's own default.
    pub sslrootcert: Option<PathBuf>,
    /// The file with the password (chapter "The Password File"); nothing for libpq's own default, or where none is needed.
    pub passfile: Option<PathBuf>,
    /// Whether the role that we log in as is known to be a superuser. Until it is, no setting is asked for that only superusers
    /// may set: the server would not let us in.
    pub is_superuser: bool,
}

impl Remote {
    /// One of which nothing is known but its host.
    pub fn to(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            sslmode: SslMode::for_host(host),
            sslrootcert: None,
            passfile: None,
            is_superuser: false,
        }
    }

    fn address(&self) -> String {
        let mut text = format!("host={}", value(&self.host));
        // Writing to a String cannot fail. GSSAPI's encryption would come before TLS, and verify nothing of what is asked for.
        let _ = write!(text, " sslmode={} gssencmode=disable", self.sslmode.name());
        let mut file = |key: &str, path: &Path| {
            let _ = write!(text, " {key}={}", value(&path.to_string_lossy()));
        };
        if let Some(path) = self.sslrootcert.as_deref().filter(|_| self.sslmode.verifies()) {
            file("sslrootcert", path);
        }
        if let Some(path) = &self.passfile {
            file("passfile", path);
        }
        // A server that has gone, or a network, ends nothing by itself: it is asked whether it is there.
        let _ = write!(
            text,
            " keepalives_idle=30 keepalives_interval=10 keepalives_count=9 tcp_user_timeout={}",
            PATIENCE * 1000
        );
        text
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut variables = vec![
            ("PGHOST", self.host.clone()),
            ("PGSSLMODE", self.sslmode.name().to_owned()),
            ("PGGSSENCMODE", "disable".to_owned()),
        ];
        let root = self.sslrootcert.as_ref().filter(|_| self.sslmode.verifies());
        variables.extend(root.map(|root| ("PGSSLROOTCERT", path(root))));
        variables.extend(self.passfile.as_ref().map(|file| ("PGPASSFILE", path(file))));
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_on_the_way_is_not_taken_for_the_server() {
        for near in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "/run/tunnel"] {
            assert_eq!(SslMode::for_host(near), SslMode::Prefer, "{near}");
        }
        for far in ["db.example.org", "192.0.2.7", "2001:db8::7", "localhost.example.org"] {
            assert_eq!(SslMode::for_host(far), SslMode::VerifyFull, "{far}");
        }
    }

    #[test]
    fn the_modes_are_libpqs_and_the_certificates_only_for_who_looks_at_them() {
        let remote = |sslmode| Remote {
            host: "it's".into(),
            sslmode,
            sslrootcert: Some("/c a".into()),
            passfile: Some("/p".into()),
            is_superuser: false,
        };
        let text = remote(SslMode::VerifyFull).address();
        let expected = r"host='it\'s' sslmode=verify-full gssencmode=disable sslrootcert='/c a' passfile='/p' keepalives_idle=";
        assert!(text.starts_with(expected), "{text}");
        assert!(!remote(SslMode::Require).address().contains("sslrootcert"));
        let variables = remote(SslMode::VerifyCa).variables();
        assert!(variables.contains(&("PGSSLROOTCERT", "/c a".into())), "{variables:?}");
    }
}
