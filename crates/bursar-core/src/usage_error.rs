//! Why a field of a record or an estimate is refused.

/// A field of a record is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct UsageError {
    /// The field's name on the wire.
    pub field: &'static str,
    /// The problem as the rest of a sentence, for example `must not be empty`.
    pub problem: String,
}

impl UsageError {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}
