//! A response of Bursar, and the error when there is none.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;

/// Why a command failed, for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The request could not be made.
    #[error("{0}")]
    NotAsked(String),
    /// The server refused the request.
    #[error("{message} ({code}){hint}")]
    Refused {
        /// The message of the server.
        message: String,
        code: String,
        /// What the command line adds to it; may be empty.
        hint: String,
    },
}

impl ClientError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self::NotAsked(sentence.into())
    }
}

/// The size of a downloaded file, or the response that came instead.
pub(super) type Fetched = Result<u64, Reply>;

/// A response, whatever it says.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// How long to wait before the request is repeated, if the server says so.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) text: String,
}

/// Reads `Retry-After` in seconds, the only form that Bursar sends.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The error for a download that broke off.
pub(super) fn broken_off(error: impl std::fmt::Display) -> ClientError {
    ClientError::new(format!("the download broke off, so the file is incomplete: {error}"))
}
