//! `postgres://role:password@host:port/database?parameters`, taken apart.

use std::fmt;

/// The address of a database and the login of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    login: Option<String>,
    host: String,
    database: String,
    parameters: Option<String>,
}

impl Url {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        // The message omits the text, which may contain a password.
        let (scheme, rest) = text.split_once("://").expect("a URL as postgres://host:port/name");
        let (rest, parameters) = match rest.split_once('?') {
            Some((rest, parameters)) => (rest, Some(parameters.to_owned())),
            None => (rest, None),
        };
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match place.rsplit_once('@') {
            Some((login, host)) => (Some(login.to_owned()), host),
            None => (None, place),
        };
        Self {
            scheme: scheme.to_owned(),
            login,
            host: host.to_owned(),
            database: database.to_owned(),
            parameters,
        }
    }

    /// The same with another role.
    pub fn with_login(&self, role: &str, password: &str) -> Self {
        Self { login: Some(format!("{role}:{password}")), ..self.clone() }
    }

    /// The same with another database.
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The same with another `host:port`.
    pub fn with_host(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        if self.host.contains(':') { self.host.clone() } else { format!("{}:5432", self.host) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, login, host, database, parameters } = self;
        write!(formatter, "{scheme}://")?;
        if let Some(login) = login {
            write!(formatter, "{login}@")?;
        }
        write!(formatter, "{host}/{database}")?;
        if let Some(parameters) = parameters {
            write!(formatter, "?{parameters}")?;
        }
        Ok(())
    }
}
