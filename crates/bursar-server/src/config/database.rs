//! The database of the ledger: a local file, or PostgreSQL shared by several nodes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::setting::SettingValue;
use crate::auth::secret::Secret;

/// The scheme of a file.
const SQLITE: &str = "sqlite:";
/// The schemes of PostgreSQL.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The database of the ledger. Its `Display` form has no password.
pub enum Database {
    /// The embedded store's file.
    File(PathBuf),
    Postgres(PostgresDatabase),
}

/// The value of the setting `database`.
pub(crate) enum DatabaseSetting {
    /// The default file in the data folder.
    InDataDir,
    File(PathBuf),
    Postgres(PostgresUrl),
}

/// The URL of a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresUrl {
    url: Secret,
    /// The URL without role, password and parameters. Only this part may be shown.
    shown: String,
}

/// A PostgreSQL database and its numbers of connections.
pub struct PostgresDatabase {
    pub(crate) address: PostgresUrl,
    /// The file with the password, if the URL has none.
    pub(crate) password_file: Option<PathBuf>,
    /// Connections for writing, each with its own thread.
    pub(crate) writers: usize,
    /// Connections for reading.
    pub(crate) readers: usize,
}

/// The file with the database password cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} (postgres.password_file): {cause}")]
pub struct PasswordError {
    path: PathBuf,
    cause: io::Error,
}

impl Database {
    /// The file of the embedded store, if the ledger is kept there.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(database) => database.address.shown.fmt(f),
        }
    }
}

impl PostgresUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// The problem. It quotes nothing of the URL, because a misplaced part may be a password.
    fn parse(url: &str) -> Result<Self, &'static str> {
        Ok(Self { shown: hosts_and_name(url)?, url: Secret::new(url.to_owned()) })
    }
}

impl PostgresDatabase {
    /// The same database with other numbers of connections.
    pub(crate) fn with_connections(&self, writers: usize, readers: usize) -> Self {
        let (address, password_file) = (self.address.clone(), self.password_file.clone());
        Self { address, password_file, writers, readers }
    }

    /// The URL with its own password, or with the one in the file.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn url(&self) -> Result<Secret, PasswordError> {
        let url = self.address.url.expose();
        let file = self.password_file.as_ref().filter(|_| !has_password(url));
        let Some(path) = file else { return Ok(Secret::new(url.to_owned())) };
        let read = std::fs::read_to_string(path).map(Secret::new);
        let text = read.map_err(|cause| PasswordError { path: path.clone(), cause })?;
        Ok(with_password(url, text.expose().trim()))
    }
}

impl DatabaseSetting {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self::InDataDir);
        }
        if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return PostgresUrl::parse(text).map(Self::Postgres);
        }
        match text.strip_prefix(SQLITE) {
            Some(path) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(_) | None => Err("must be sqlite:<path> or postgres://..."),
        }
    }
}

impl<'de> Deserialize<'de> for DatabaseSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Secret::deserialize(deserializer)?;
        Self::parse(text.expose()).map_err(D::Error::custom)
    }
}

impl SettingValue for DatabaseSetting {
    const IS_SECRET: bool = true;

    fn shown(text: &str) -> String {
        shown(text)
    }
}

/// The part of the setting `database` that may be shown, also for an invalid value.
fn shown(text: &str) -> String {
    if text.is_empty() || text.starts_with(SQLITE) {
        return text.to_owned();
    }
    hosts_and_name(text).unwrap_or_else(|_| "(set)".to_owned())
}

/// The hosts and the name of the database.
fn hosts_and_name(url: &str) -> Result<String, &'static str> {
    let (scheme, login, rest) = parts(url).ok_or("must begin with postgres://")?;
    // The text behind the first @ is taken for the host and would be shown.
    if rest.contains('@') {
        return Err("has more than one @: in a role or a password, write it as %40");
    }
    let address = rest.split('?').next().unwrap_or_default();
    let (hosts, name) = address.split_once('/').unwrap_or((address, ""));
    if name.contains('/') {
        return Err("has more than one / after the host: write it as %2F");
    }
    let is_host = |host: &str| {
        let port = match host.rsplit_once(']') {
            Some((_, rest)) => rest.strip_prefix(':'),
            None => host.split_once(':').map(|(_, port)| port),
        };
        port.is_none_or(|port| port.parse::<u16>().is_ok())
    };
    if !hosts.split(',').all(is_host) {
        return Err("has a port that is not a number; in a password, write : as %3A");
    }
    if login.is_none() && hosts.is_empty() && name.is_empty() && !rest.contains('?') {
        return Err("has no host");
    }
    Ok(format!("{scheme}{address}"))
}

/// The scheme, the role with the password, and the rest.
fn parts(url: &str) -> Option<(&'static str, Option<&str>, &str)> {
    SCHEMES.into_iter().find_map(|scheme| {
        let rest = url.strip_prefix(scheme)?;
        Some(match rest.split_once('@') {
            Some((login, rest)) => (scheme, Some(login), rest),
            None => (scheme, None, rest),
        })
    })
}

fn has_password(url: &str) -> bool {
    let Some((_, login, rest)) = parts(url) else { return false };
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    login.is_some_and(|login| login.contains(':'))
        || parameters.split('&').any(|pair| pair.starts_with("password="))
}

/// Adds a password as a percent-encoded parameter.
fn with_password(url: &str, password: &str) -> Secret {
    use std::fmt::Write;
    let mark = if url.contains('?') { '&' } else { '?' };
    // Allocated once, because a reallocation would leave a copy of the password in memory.
    let mut text = String::with_capacity(url.len() + "?password=".len() + password.len() * 3);
    text.push_str(url);
    text.push(mark);
    text.push_str("password=");
    for byte in password.bytes() {
        // Writing to a String cannot fail.
        let _ = write!(text, "%{byte:02X}");
    }
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(url: &str, password_file: Option<&Path>) -> Result<PostgresDatabase, &'static str> {
        let password_file = password_file.map(Path::to_owned);
        let address = PostgresUrl::parse(url)?;
        Ok(PostgresDatabase { address, password_file, writers: 1, readers: 1 })
    }

    #[track_caller]
    fn check_shown(url: &str, expected: &str) {
        let database = postgres(url, None).map(Database::Postgres).expect(url);
        assert_eq!(database.to_string(), expected);
        assert_eq!(shown(url), expected);
    }

    #[test]
    fn the_place_is_shown_and_neither_the_role_nor_the_password() {
        check_shown("postgres://role:hidden@host:5432/bursar", "postgres://host:5432/bursar");
        check_shown("postgresql://role@host/bursar?password=hidden", "postgresql://host/bursar");
        check_shown("postgres://r:hid/den?x@a:1,b:2/bursar", "postgres://a:1,b:2/bursar");
        check_shown("postgres://r:hidden@[::1]:5432/bursar", "postgres://[::1]:5432/bursar");
        check_shown("postgres://r:hidden@/bursar?host=/run", "postgres:///bursar");
        assert_eq!(shown("sqlite:/data/bursar.db"), "sqlite:/data/bursar.db");
    }

    #[test]
    fn what_could_be_a_part_of_a_password_is_refused_and_not_shown() {
        for url in [
            "postgres://role:hid@den@host/bursar",
            "postgres://role:hidden",
            "postgres://role:hidden/bursar",
            "postgres://role:x@hid/den/bursar",
            "postgres://",
        ] {
            let problem = postgres(url, None).err().expect(url);
            assert!(!problem.contains("hid") && !shown(url).contains("hid"), "{url}: {problem}");
        }
    }

    #[test]
    fn a_password_comes_from_its_file_when_the_url_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "p&:/ä\n").expect("written");
        let url = |url: &str| {
            let database = postgres(url, Some(&path)).expect(url);
            database.url().expect("a password").expose().to_owned()
        };
        assert_eq!(url("postgres://r@h/b"), "postgres://r@h/b?password=%70%26%3A%2F%C3%A4");
        assert_eq!(url("postgres:///b?host=/run"), {
            "postgres:///b?host=/run&password=%70%26%3A%2F%C3%A4"
        });
        for own in ["postgres://r:own@h/b", "postgres://r@h/b?password=own"] {
            assert_eq!(url(own), own);
        }
        std::fs::remove_file(&path).expect("removed");
        let missing = postgres("postgres://r@h/b", Some(&path)).expect("a place").url();
        let message = missing.err().map(|error| error.to_string()).expect("no file");
        assert!(message.contains("postgres.password_file"), "{message}");
    }
}
