//! What comes back from Bursar, and what is said when nothing does.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;

/// Why a command cannot be done, in words for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be asked for.
    #[error("{0}")]
    NotAsked(String),
    /// The server refused it.
    #[error("{message} ({code}){hint}")]
    Refused {
        /// The server's sentence.
        message: String,
        code: String,
        /// What the command line knows besides, or nothing.
        hint: String,
    },
}

impl ClientError {
    pub fn new(sentence: impl Into<String>) -> Self {
        Self::NotAsked(sentence.into())
    }
}

/// How many bytes a file has that was fetched, or what came in its place.
pub(super) type Fetched = Result<u64, Reply>;

/// What came back, whatever it says.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before the same is sent again, where that is said.
    pub retry_after: Option<Duration>,
    pub text: String,
}

/// What an answer says of when to come again: in seconds, as Bursar does, or not at all.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What is said of a file that ended too early.
pub(super) fn broken_off(error: impl std::fmt::Display) -> ClientError {
    ClientError::new(format!("the file is not whole: {error}"))
}
