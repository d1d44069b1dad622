//! The error that ends an import.

use crate::cli::client::ClientError;

/// Why an import cannot continue, for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ImportError(String);

impl From<ClientError> for ImportError {
    fn from(error: ClientError) -> Self {
        Self(error.to_string())
    }
}

impl ImportError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
