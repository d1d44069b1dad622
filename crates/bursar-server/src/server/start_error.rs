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
        "on PostgreSQL the secret key is required: give every node the same BURSAR_SECRET_KEY, at \
         least 32 bytes (openssl rand -hex 32), and keep it as safe as the database"
    )]
    NoSecretKey,
    /// The operator token of a node is missing.
    #[error(
        "on PostgreSQL the operator's token is required: give every node the same \
         BURSAR_OPERATOR_TOKEN (echo \"bur_operator_$(openssl rand -hex 24)\")"
    )]
    NoOperatorToken,
    /// The secret key is invalid.
    #[error("{0}")]
    SecretKey(&'static str),
    /// The database exists, but its secret key is missing.
    #[error(
        "{0} is missing, without which no key of {1} works: put it back, or give its text as \
         BURSAR_SECRET_KEY"
    )]
    SecretKeyLost(PathBuf, PathBuf),
    /// The file with the operator token is invalid.
    #[error("{0} must hold at least 16 characters; delete it, and a new one is made")]
    OperatorToken(PathBuf),
    /// The writer stopped, which only a bug can cause.
    #[error("the writer stopped; start again, and report what the log says before this")]
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
    #[error("the metrics cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
    /// TLS for outbound requests does not work, which only a faulty build can cause.
    #[error("requests to others cannot be made: {0}")]
    Outbound(#[from] rustls::Error),
    /// The system refused a thread or a signal handler.
    #[error("cannot start: {0}")]
    System(io::Error),
}
