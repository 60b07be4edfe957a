//! Single values: what each kind of key takes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;

use crate::error::{Error, Kind, Result};

pub(super) fn absolute(key: &str, path: Option<PathBuf>, default: &str) -> Result<PathBuf> {
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    match path.is_absolute() && path != Path::new("/") {
        true => Ok(path),
        false => Err(refused(key, &path.display().to_string(), "an absolute path")),
    }
}

pub(super) fn name(key: &str, value: Option<String>, default: &str) -> Result<String> {
    match value {
        None => Ok(default.to_owned()),
        Some(value) if value.is_empty() || value.contains(['\0', '\n']) => {
            Err(refused(key, &value, "a name without newlines"))
        }
        Some(value) => Ok(value),
    }
}

pub(super) fn patterns(key: &str, texts: Vec<String>) -> Result<Vec<Pattern>> {
    let pattern = |text: String| match Pattern::new(&text) {
        Ok(pattern) if !text.is_empty() => Ok(pattern),
        _ => Err(refused(
            key,
            &text,
            "names of databases, or patterns with *, ? and [...]; [*] matches a literal *",
        )),
    };
    texts.into_iter().map(pattern).collect()
}

pub(super) fn share(key: &str, value: f64) -> Result<f64> {
    match value > 0.0 && value <= 1.0 {
        true => Ok(value),
        false => Err(refused(key, &value.to_string(), "a number greater than 0 and at most 1")),
    }
}

/// A time span as people and systemd write it: `90s`, `10m`, `30h`, `2d`, `1h 30m`.
pub(super) fn duration(key: &str, text: Option<&str>, default: &str) -> Result<Duration> {
    let text = text.unwrap_or(default);
    let spans = || refused(key, text, "a time span such as 90s, 10m, 30h or 2d");
    let span: jiff::Span = text.parse().map_err(|_| spans())?;
    let seconds = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| spans())?;
    Duration::try_from(seconds).ok().filter(|duration| !duration.is_zero()).ok_or_else(spans)
}

pub(super) fn contradiction(message: &str, hint: &str) -> Error {
    Error::new(Kind::Config, format!("configuration: {message}")).state("nothing was started").hint(hint)
}

pub(super) fn refused(key: &str, value: &str, allowed: &str) -> Error {
    Error::new(Kind::Config, format!("configuration: invalid value {key} = {value:?}"))
        .state("nothing was started")
        .hint(format!("{key} takes {allowed}"))
}

/// As [`absolute`], for a path that has no default; an empty one is none.
pub(super) fn optional_path(key: &str, path: Option<String>) -> Result<Option<PathBuf>> {
    let path = path.filter(|path| !path.is_empty());
    path.map(|path| absolute(key, Some(path.into()), "")).transpose()
}
