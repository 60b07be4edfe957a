//! Whether a server on the network is only away for a while, or will not have us tomorrow either.

use crate::error::Error;

/// What libpq says, which our programs let speak English, and what a server says before it knows anybody: of a host, a network or
/// a server that does not answer, or not yet. A certificate, a password or a name that is wrong is not among it.
const AWAY: [&str; 17] = [
    "Connection refused",
    "Connection reset by peer",
    "Connection timed out",
    "timeout expired",
    "No route to host",
    "Network is unreachable",
    "Network is down",
    "Host is down",
    "Temporary failure in name resolution",
    "server closed the connection unexpectedly",
    "could not send data to server",
    "could not receive data from server",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is not yet accepting connections",
    "too many clients already",
    "remaining connection slots are reserved",
];

/// Whether a program of PostgreSQL's has failed because the server did not answer.
pub fn is_away(error: &Error) -> bool {
    let said = error.report();
    AWAY.iter().any(|words| said.contains(words))
}

/// Whether there was no network to reach it by: a unit's sandbox allows none (`RestrictAddressFamilies=`). Of an address whose kind
/// the system does not know libpq says nothing (`PQconnectPoll` in fe-connect.c), and psql ends without a reason.
pub(super) fn has_no_network(said: &str) -> bool {
    said.contains("Address family not supported") || said.trim_end().ends_with("psql: error:")
}

/// What to do where a server on the network was not reached, or has refused the login.
pub(super) fn hint(said: &str, host: &str, port: u16) -> String {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has_no_network(said) {
        // The drop-in that opens the sandbox is missing.
        return "matrix-postgres setup".to_owned();
    }
    if has(&["certificate", "SSL"]) {
        return format!(
            "check server.host, server.sslmode and server.sslrootcert in /etc/matrix-postgres/config.toml; the server shows its \
             certificate to: openssl s_client -starttls postgres -connect {host}:{port}"
        );
    }
    if has(&["password"]) {
        return "check the password: the file of server.passfile, or the credential matrix-postgres-password"
            .to_owned();
    }
    format!(
        "check server.host and server.port in /etc/matrix-postgres/config.toml: pg_isready -h {host} -p {port}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn who_is_away_comes_back_and_who_is_wrong_does_not() {
        let said = |text: &str| Error::new(Kind::Program, "psql failed (exit status 2)").because(text);
        let refused =
            "psql: error: connection to server at \"db\" (192.0.2.7), port 5432 failed: Connection refused";
        assert!(is_away(&said(refused)) && is_away(&said(refused).context("x")));
        for (text, hinted) in [
            (
                "connection to server at \"db\", port 5432 failed: SSL error: certificate verify failed",
                "openssl",
            ),
            ("server certificate for \"a\" does not match host name \"b\"", "openssl"),
            ("server does not support SSL, but SSL was required", "openssl"),
            ("FATAL:  password authentication failed for user \"x\"", "credential"),
            ("fe_sendauth: no password supplied", "credential"),
            ("could not translate host name \"x\" to address: Name or service not known", "pg_isready"),
            ("psql: error: ", "matrix-postgres setup"),
            ("could not create socket: Address family not supported by protocol", "matrix-postgres setup"),
        ] {
            assert!(!is_away(&said(text)), "{text}");
            assert!(hint(text, "db", 5432).contains(hinted), "{text}");
        }
    }
}
