//! Why a database cannot be opened.

use std::path::PathBuf;

use super::tx;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenPostgresError {
    /// The URL cannot be parsed. The text does not show it, because it may contain a password.
    #[error("the database's URL is not understood: {0}")]
    Url(&'static str),
    /// A file of certificates is unusable.
    #[error("{0} has no certificate that can be used (sslrootcert)")]
    Certificate(PathBuf),
    /// The database cannot be reached, or reports an error.
    #[error("the database cannot be used: {0}")]
    Database(String),
    /// With a setting of the database server, acknowledged writes could be lost.
    #[error("{0}")]
    Setting(String),
    /// The schema is missing, or older than this binary needs.
    #[error(
        "the database has schema {found}, this binary needs {known}: run `bursar db migrate` with \
         the role that owns the tables"
    )]
    OlderSchema {
        /// The schema of the database.
        found: u32,
        /// The schema that this binary needs.
        known: u32,
    },
    /// A newer server changed the schema in an incompatible way.
    #[error("the database has schema {found}, which needs a newer bursar (this one knows {known})")]
    NewerSchema {
        /// The schema of the database.
        found: u32,
        /// The newest schema that this binary knows.
        known: u32,
    },
    /// The keys in the database were hashed with another secret key.
    #[error(
        "the database belongs to another secret key: start every node with the BURSAR_SECRET_KEY \
         with which its keys were made"
    )]
    OtherSecretKey,
}

impl From<tokio_postgres::Error> for OpenPostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(tx::redacted_text(&error))
    }
}
