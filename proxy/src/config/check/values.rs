//! One value at a time: from text or number to what it means, or a problem that says why not.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::typed::{self, Whole};
use crate::config::{HostPort, Origin, Problem, Secret};

/// A time of more than an hour is a slip in the unit.
const TIMEOUT_MS_MAX: i64 = 3_600_000;
/// A password file larger than this is surely another file.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Collects what is wrong while values are looked at.
pub(super) struct Checker<'a> {
    pub(super) origin: &'a Origin,
    pub(super) problems: Vec<Problem>,
    pub(super) folder: &'a Path,
    pub(super) environment: &'a dyn Fn(&str) -> Option<OsString>,
}

/// A choice's spelling and its meaning.
pub(super) type Choice<T> = (&'static str, T);

impl Checker<'_> {
    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(self.origin.problem(key, message));
    }

    /// A required value. A key that was there and refused in the first stage is not reported twice.
    pub(super) fn required<T>(&mut self, key: &str, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() && !self.origin.has(key) {
            self.wrong(key, format!("missing; {what}"));
        }
        value
    }

    pub(super) fn socket_address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.wrong(
                key,
                format!("\"{text}\" is not an IP address and a port, like \"127.0.0.1:6379\" or \"[::]:6379\""),
            );
        }
        address
    }

    pub(super) fn host_port(&mut self, key: &str, text: &str) -> Option<HostPort> {
        text.parse()
            .map_err(|error| self.wrong(key, format!("\"{text}\": {error}")))
            .ok()
    }

    pub(super) fn path(&mut self, key: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            self.wrong(key, "an empty path; name a file");
            return None;
        }
        Some(self.folder.join(text))
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        text: Option<&str>,
        default: T,
        all: &[Choice<T>],
    ) -> T {
        let Some(text) = text else { return default };
        if let Some((_, value)) = all.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        let listed = names
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let hint = typed::suggestion(text, &names);
        self.wrong(key, format!("\"{text}\" is none of {listed}{hint}"));
        default
    }

    /// A number from `min` to `max`, both included, or `default` when it was not written.
    pub(super) fn number(
        &mut self,
        key: &str,
        value: Option<Whole>,
        default: usize,
        (min, max): (i64, i64),
    ) -> usize {
        let Some(Whole(value)) = value else {
            return default;
        };
        match usize::try_from(value) {
            Ok(number) if (min..=max).contains(&value) => number,
            _ => {
                self.wrong(key, format!("{value} is out of range; {min} to {max}"));
                default
            }
        }
    }

    pub(super) fn millis(
        &mut self,
        key: &str,
        value: Option<Whole>,
        default: Duration,
    ) -> Duration {
        let Some(Whole(value)) = value else {
            return default;
        };
        match u64::try_from(value) {
            Ok(millis) if (1..=TIMEOUT_MS_MAX).contains(&value) => Duration::from_millis(millis),
            _ => {
                let range = format!("1 to {TIMEOUT_MS_MAX} milliseconds");
                self.wrong(key, format!("{value} is out of range; {range}"));
                default
            }
        }
    }
}

/// The password in `path` without the line feed that editors and `echo` leave at its end.
pub(super) fn read_password(path: &Path) -> Result<Secret, String> {
    let bytes = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if bytes > PASSWORD_BYTES_MAX {
        return Err(format!("{bytes} bytes is too large for a password"));
    }
    let mut password = std::fs::read(path).map_err(|error| error.to_string())?;
    if password.last() == Some(&b'\n') {
        password.pop();
        if password.last() == Some(&b'\r') {
            password.pop();
        }
    }
    if password.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(Secret::new(password))
}
