//! HTTP by way of curl(1). Its configuration, with URL and token, goes to its standard input: arguments can
//! be read by every user of the machine. No error message quotes them either.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::runtime::output_within;

/// How much of an answer a message quotes.
const QUOTED: usize = 300;

/// A request.
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) token: Option<String>,
    pub(super) body: Option<String>,
}

impl Request {
    /// curl's configuration; see "-K, --config" in curl(1) for the quotation marks.
    fn to_config(&self, limit: Duration) -> String {
        let mut config = String::from("silent\nshow-error\nproto = \"=http,https\"\n");
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(config, "{key} = {}", quote(value));
        };
        line("url", &self.url);
        line("request", self.method);
        line("max-time", &limit.as_secs().max(1).to_string());
        line("user-agent", concat!("matrix-postgres/", env!("CARGO_PKG_VERSION")));
        line("write-out", "\n%{http_code}");
        if let Some(token) = &self.token {
            line("header", &format!("Authorization: Bearer {token}"));
            line("header", "Content-Type: application/json");
        }
        if let Some(body) = &self.body {
            // curl splits no line of its configuration that is quoted.
            line("data-raw", body);
        }
        config
    }
}

/// Sends it; returns the answer, if that is JSON.
///
/// # Errors
/// [`Kind::NotDelivered`] with the other side's own words.
pub(super) fn send(request: &Request, limit: Duration) -> Result<Value> {
    let mut command = Command::new("curl");
    // Nobody's ~/.curlrc, which must be the first argument.
    command.args(["--disable", "--config", "-"]);
    // curl ends by itself, and says more.
    let patience = limit + Duration::from_secs(5);
    let host = host(&request.url);
    let answer =
        output_within(command, "curl", request.to_config(limit).into_bytes(), patience).map_err(|error| {
            let hint = "if curl is not installed: apt-get install curl";
            error.context(format!("could not reach {host}")).with_kind(Kind::NotDelivered).hint(hint)
        })?;
    judge(&host, &String::from_utf8_lossy(&answer))
}

/// The answer is followed by a line with the status.
fn judge(host: &str, answer: &str) -> Result<Value> {
    let (body, status) = answer.rsplit_once('\n').unwrap_or(("", answer));
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    if matches!(status.trim().parse(), Ok(200..=299)) {
        return Ok(value);
    }
    let refused =
        Error::new(Kind::NotDelivered, format!("{host} refused the notification (HTTP status {status})"));
    Err(match (value["errcode"].as_str(), value["error"].as_str()) {
        (Some(code @ ("M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN")), said) => refused
            .because(format!("{code}: {}", said.unwrap_or_default()))
            .hint("write a valid access token to /etc/credstore/matrix-postgres.matrix-token"),
        (Some(code @ "M_FORBIDDEN"), said) => refused
            .because(format!("{code}: {}", said.unwrap_or_default()))
            .hint("invite the account of the access token into the room"),
        (Some(code), said) => refused.because(format!("{code}: {}", said.unwrap_or_default())),
        (None, _) if body.is_empty() => refused,
        (None, _) => refused.because(body.chars().take(QUOTED).collect::<String>()),
    })
}

/// What may be said of a URL: scheme and host. Its path can be a secret, and so can its user.
fn host(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{}", authority.rsplit('@').next().unwrap_or_default())
}

/// A part of a path.
pub(super) fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_another_option() {
        let request = Request {
            method: "PUT",
            url: "https://example.org/x".into(),
            token: Some("t\"\noutput = \"/etc/passwd".into()),
            body: Some("@/etc/passwd\nurl = \\x".into()),
        };
        let config = request.to_config(Duration::from_secs(30));
        assert!(
            config.contains("header = \"Authorization: Bearer t\\\"\\noutput = \\\"/etc/passwd\"\n"),
            "{config}"
        );
        assert!(config.contains("data-raw = \"@/etc/passwd\\nurl = \\\\x\"\n"), "{config}");
        assert!(config.contains("max-time = \"30\"\n"), "{config}");
        assert_eq!(config.lines().filter(|line| line.starts_with("url")).count(), 1);
    }

    #[test]
    fn a_refusal_says_who_and_why_and_never_the_secret() {
        let answer = "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"error\":\"Invalid access token\"}\n401";
        let report = judge(&host("http://u:p@h:8008/secret"), answer).unwrap_err().report();
        assert_eq!(
            report,
            "http://h:8008 refused the notification (HTTP status 401)\n -> M_UNKNOWN_TOKEN: Invalid access token\n\
             HINT: write a valid access token to /etc/credstore/matrix-postgres.matrix-token"
        );
        assert_eq!(judge("h", "{\"room_id\":\"!a\"}\n200").unwrap()["room_id"], "!a");
        assert!(judge("h", "OK\n200").is_ok());
        assert!(judge("h", "\n301").is_err());
        assert!(judge("h", "").is_err());
    }

    #[test]
    fn a_room_is_one_part_of_a_path() {
        assert_eq!(escape("#a/b:c.d"), "%23a%2Fb%3Ac.d");
    }
}
