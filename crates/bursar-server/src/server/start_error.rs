//! Why the server does not start, for the operator.

use std::io;
use std::path::PathBuf;

use bursar_store::{OpenError, OpenPostgresError};

use crate::config::data_dir;
use crate::config::database::PasswordError;
use crate::http::tls::TlsError;

/// Why the server does not start, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The shared database cannot be used.
    #[error(transparent)]
    Postgres(#[from] OpenPostgresError),
    /// The password of the database cannot be read.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The secret key of a node is missing.
    #[error(
        "PostgreSQL requires a secret key: set the same BURSAR_SECRET_KEY of at least 32 bytes on \
         every node (openssl rand -hex 32), and back it up like the database"
    )]
    NoSecretKey,
    /// The operator token of a node is missing.
    #[error(
        "PostgreSQL requires an operator's token: set the same BURSAR_OPERATOR_TOKEN on every node \
         (echo \"bur_operator_$(openssl rand -hex 24)\")"
    )]
    NoOperatorToken,
    /// The secret key is invalid.
    #[error("{0}")]
    SecretKey(&'static str),
    /// The database exists, but its secret key is missing.
    #[error(
        "{0} is missing, and no key in {1} works without it: restore the file, or set \
         BURSAR_SECRET_KEY to its content"
    )]
    SecretKeyLost(PathBuf, PathBuf),
    /// The file with the operator token is invalid.
    #[error(
        "{0} must have at least 16 characters: delete it, and the next start creates a new one"
    )]
    OperatorToken(PathBuf),
    /// The writer stopped, which only a bug can cause.
    #[error(
        "the writer stopped, which is a bug: start the server again, and report the log lines \
         before this one"
    )]
    WriterEnded,
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        address: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// A metric is malformed, which only a bug can cause.
    #[error("cannot create the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// TLS for outbound requests does not work, which only a faulty build can cause.
    #[error("cannot set up TLS for outbound requests: {0}")]
    Outbound(#[from] rustls::Error),
    /// The system refused a thread or a signal handler.
    #[error("cannot start: {0}")]
    System(io::Error),
}
