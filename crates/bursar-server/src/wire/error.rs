//! The error of a response: a code, a message and a field.
//!
//! The message tells the client what to change. Internal details go to the log and never into a
//! response. Deliberately absent: the conversion to a response ([`crate::wire::envelope`]).

use axum::http::StatusCode;
use bursar_core::{Breach, ProtectionDecision, UsageError};
use bursar_store::{ControlRefusal, NotWritable, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::oidc::PersonError;
use crate::credentials::raw_key;
use crate::wire::enums;
use crate::wire::error_code::ErrorCode;

/// `Retry-After` in seconds when storage cannot answer.
const RETRY_AFTER_SECONDS: u32 = 1;
/// `Retry-After` in seconds when only the next day helps.
///
/// Clients sleep for as long as they are told, so they are never told more than a minute.
const RETRY_NEXT_DAY_SECONDS: u32 = 60;

/// An error with its code and message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ApiError {
    #[schema(value_type = enums::ErrorCode)]
    code: ErrorCode,
    message: String,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[schema(value_type = ErrorDetails, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<ErrorDetails>>,
    /// A more precise `Retry-After` than the status implies.
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
}

/// The threshold that a request exceeded.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetails {
    #[schema(value_type = enums::ProtectionDimension)]
    dimension: &'static str,
    /// When to retry, in milliseconds from now.
    retry_after_ms: i64,
    /// The current value, in requests.
    current_value: i64,
    /// The threshold.
    allowed_value: i64,
}

impl ErrorDetails {
    /// When to retry, in whole seconds, rounded up.
    const fn retry_after_seconds(&self) -> i64 {
        const MILLIS: i64 = 1_000;
        self.retry_after_ms / MILLIS + (self.retry_after_ms % MILLIS > 0) as i64
    }
}

impl ApiError {
    /// An error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, field: None, details: None, retry_after_seconds: None }
    }

    /// An error with the standard message of its code.
    pub fn of(code: ErrorCode) -> Self {
        Self::new(code, code.meaning())
    }

    /// An error about a field, with the rest of a sentence: `must not be empty`.
    pub fn field(field: impl Into<String>, problem: &str) -> Self {
        Self::new(ErrorCode::InvalidField, String::new()).on(field, problem)
    }

    /// The error for a body of more than `bytes_max` bytes.
    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let kib_max = bytes_max / 1024;
        let message = format!("The body is larger than {kib_max} KiB, the maximum of this route.");
        Self::new(ErrorCode::BodyTooLarge, message)
    }

    /// The error for a refused request. `None` if the request may pass.
    pub(crate) fn protection(decision: &ProtectionDecision) -> Option<Self> {
        let (code, breach) = match decision {
            ProtectionDecision::Allow | ProtectionDecision::Warn(_) => return None,
            ProtectionDecision::Throttle(breach) => (ErrorCode::Throttled, breach),
            ProtectionDecision::Reject(breach) => (ErrorCode::RateLimited, breach),
        };
        let &Breach { dimension, retry_after_ms, current_value, allowed_value } = breach;
        let dimension = dimension.as_str();
        let details = ErrorDetails { dimension, retry_after_ms, current_value, allowed_value };
        Some(Self { details: Some(Box::new(details)), ..Self::of(code) })
    }

    /// The error for a write that waits for the clock.
    fn clock(ahead_seconds: i64, adopted_in_seconds: u32) -> Self {
        let message = format!(
            "The server's clock jumped {ahead_seconds} seconds ahead, so nothing is stored or \
             decided. If the clock stays there, the server accepts it in {adopted_in_seconds} \
             seconds. Retry after the time in Retry-After. The operator can end the wait with \
             `bursar clock confirm`."
        );
        let error = Self::new(ErrorCode::ClockJumped, message);
        // The clock may recover at any moment, so no client should wait for long.
        Self { retry_after_seconds: Some(adopted_in_seconds), ..error }
    }

    /// The error for a failed write. The log reports once that writes fail, and why.
    fn not_writable(reason: NotWritable) -> Self {
        let message = format!(
            "The database does not accept writes ({}). Retry after the time in Retry-After.",
            reason.as_str()
        );
        Self::new(ErrorCode::Unavailable, message)
    }

    /// Adds a field and what is wrong with it.
    #[must_use]
    pub(crate) fn on(mut self, field: impl Into<String>, problem: &str) -> Self {
        // JSON escapes control characters with letters, which could form a key with what follows.
        let field = field.into().replace(char::is_control, "\u{fffd}");
        // Field names come from clients and could contain a key by mistake.
        let field = raw_key::redact(&field).unwrap_or(field);
        self.message = format!("{field} {problem}");
        self.field = Some(field);
        self
    }

    /// Prefixes the field with the one that contains it, such as `requests[1]`.
    #[must_use]
    pub(crate) fn within(mut self, outer: &str) -> Self {
        match self.field.take() {
            Some(inner) => {
                let whole = format!("{outer}.{inner}");
                if let Some(problem) = self.message.strip_prefix(&inner) {
                    self.message = format!("{whole}{problem}");
                }
                self.field = Some(whole);
            }
            None => {
                self.message = format!("{outer}: {}", self.message);
                self.field = Some(outer.to_owned());
            }
        }
        self
    }

    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// `Retry-After` in seconds. `None` where a retry does not help.
    pub(crate) fn retry_after_seconds(&self) -> Option<i64> {
        match &self.details {
            Some(details) => Some(details.retry_after_seconds()),
            None if self.code == ErrorCode::StoredBytesExceeded => {
                Some(i64::from(RETRY_NEXT_DAY_SECONDS))
            }
            None if self.code.status() == StatusCode::SERVICE_UNAVAILABLE => {
                Some(i64::from(self.retry_after_seconds.unwrap_or(RETRY_AFTER_SECONDS)))
            }
            None => None,
        }
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<UsageError> for ApiError {
    fn from(UsageError { field, problem }: UsageError) -> Self {
        Self::field(field, &problem)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Overloaded => Self::of(ErrorCode::Overloaded),
            StoreError::ReadTooLarge => Self::of(ErrorCode::ReadTooLarge),
            StoreError::Closed => Self::new(ErrorCode::Unavailable, "The server is stopping."),
            StoreError::Exists(_) => Self::of(ErrorCode::AlreadyExists),
            StoreError::TotalsOverflow(figure) => {
                let message =
                    format!("The total of {figure} would exceed the range of a 64-bit integer.");
                Self::new(ErrorCode::TotalsOverflow, message)
            }
            // The panic is in the log already.
            StoreError::Panicked => Self::of(ErrorCode::Internal),
            StoreError::NotWritable { reason, .. } => Self::not_writable(*reason),
            &StoreError::ClockJumped { ahead_seconds, adopted_in_seconds } => {
                Self::clock(ahead_seconds, adopted_in_seconds)
            }
            StoreError::Unavailable(cause) | StoreError::Retry(cause) => {
                let cause = cause.as_ref() as &dyn std::error::Error;
                tracing::error!(cause, "the database could not be used");
                Self::of(ErrorCode::Unavailable)
            }
            StoreError::Statement(cause) => {
                let cause = cause.as_ref() as &dyn std::error::Error;
                tracing::error!(cause, "the database refused a statement");
                Self::of(ErrorCode::Internal)
            }
            StoreError::Corrupt(what) => {
                tracing::error!(what, "stored data is invalid");
                Self::of(ErrorCode::Internal)
            }
        }
    }
}

impl From<PersonError> for ApiError {
    fn from(error: PersonError) -> Self {
        let code = match error {
            PersonError::Refused(_) => ErrorCode::Unauthenticated,
            PersonError::KeysUnavailable => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ControlRefusal> for ApiError {
    fn from(refusal: ControlRefusal) -> Self {
        match refusal {
            ControlRefusal::TenantNotFound => Self::of(ErrorCode::TenantNotFound),
            ControlRefusal::TenantSuspended => Self::of(ErrorCode::TenantSuspended),
            ControlRefusal::TenantTerminated => Self::of(ErrorCode::TenantTerminated),
            ControlRefusal::Tenant(cause) => {
                Self::new(ErrorCode::InvalidState, format!("Not possible: {cause}."))
            }
            ControlRefusal::IntegrationNotFound => Self::of(ErrorCode::IntegrationNotFound),
            ControlRefusal::NameTaken => Self::of(ErrorCode::NameTaken)
                .on("name", "is already used by another integration of the tenant"),
            ControlRefusal::KeyNotFound => Self::of(ErrorCode::KeyNotFound),
            ControlRefusal::KeyEnded | ControlRefusal::KeyReplaced => {
                Self::new(ErrorCode::InvalidState, format!("Not possible: {refusal}."))
            }
            ControlRefusal::TooManyIntegrations { max } => {
                let message = format!(
                    "The tenant has {max} integrations, the maximum. Delete one that is not used, \
                     or ask the operator to raise tenant.integrations_max."
                );
                Self::new(ErrorCode::TooManyIntegrations, message)
            }
            ControlRefusal::TooManyDeleted { max } => {
                let message = format!(
                    "The tenant has {max} deleted integrations, the maximum. They are kept for \
                     their usage. Reuse an integration instead of creating another, or ask the \
                     operator to raise tenant.integrations_max."
                );
                Self::new(ErrorCode::TooManyIntegrations, message)
            }
            ControlRefusal::TooManyKeys { max } => {
                let message = format!(
                    "There are {max} valid keys, the maximum. Revoke one that is not used, rotate \
                     with overlap_seconds 0, or ask the operator to raise tenant.api_keys_max or \
                     tenant.integration_keys_max."
                );
                Self::new(ErrorCode::TooManyKeys, message)
            }
            ControlRefusal::Lifecycle(cause) => {
                Self::new(ErrorCode::InvalidState, format!("Not possible: {cause}."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_field_has_no_key_in_the_form_in_which_it_is_sent() {
        let digits = "0123456789abcdef".repeat(3);
        let error = ApiError::field(format!("\u{8}ur_operator_{digits}"), "is not known");
        let sent = serde_json::to_string(&error).unwrap();
        assert!(!raw_key::contains_key(&sent), "{sent}");
    }
}
