//! Every error that a client can read: its code, its status and its words. The only place of
//! status codes of failures.
//!
//! What the client reads says what to change; what happened inside goes to the log and never into
//! an answer.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bursar_core::{Breach, Dimension, ProtectionDecision, UsageError};
use bursar_store::{ControlRefusal, NotWritable, StoreError};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::auth::oidc::PersonError;
use crate::credentials::raw_key;
use crate::wire::enums;
use crate::wire::envelope;

/// Seconds after which a caller may come again when storage cannot answer.
const RETRY_AFTER_SECONDS: u32 = 1;
/// Seconds after which a caller may come again when only the next day helps: clients sleep for as
/// long as they are told, so they are never told more than a minute.
const RETRY_NEXT_DAY_SECONDS: u32 = 60;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:ident;)+) => {
        /// The codes of failures, as the contract's table of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// Every code, for the documents.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status it comes with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// What it means, and what the caller can do.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON, nested too deeply, not UTF-8, or its gzip is broken or takes too much work.
    InvalidJson = "INVALID_JSON", BAD_REQUEST;
    /// The request cannot be understood: a header, a cursor or the like.
    BadRequest = "BAD_REQUEST", BAD_REQUEST;
    /// An update names no field.
    NothingToChange = "NOTHING_TO_CHANGE", BAD_REQUEST;
    /// The operator did not say which tenant is meant: send X-Tenant-ID.
    TenantRequired = "TENANT_REQUIRED", BAD_REQUEST;
    /// Two different credentials came in one request.
    AmbiguousCredentials = "AMBIGUOUS_CREDENTIALS", BAD_REQUEST;
    /// No credential, or one that is wrong, expired or revoked.
    Unauthenticated = "UNAUTHENTICATED", UNAUTHORIZED;
    /// The credential is good, but not for this.
    Forbidden = "FORBIDDEN", FORBIDDEN;
    /// The key lacks the scope that the route asks for.
    MissingScope = "MISSING_SCOPE", FORBIDDEN;
    /// X-Tenant-ID names another tenant than the key.
    TenantMismatch = "TENANT_MISMATCH", FORBIDDEN;
    /// The tenant is suspended: only reads and telemetry work.
    TenantSuspended = "TENANT_SUSPENDED", FORBIDDEN;
    /// The tenant is terminated.
    TenantTerminated = "TENANT_TERMINATED", FORBIDDEN;
    /// No such route.
    RouteNotFound = "ROUTE_NOT_FOUND", NOT_FOUND;
    /// No such tenant.
    TenantNotFound = "TENANT_NOT_FOUND", NOT_FOUND;
    /// No such integration among the tenant's.
    IntegrationNotFound = "INTEGRATION_NOT_FOUND", NOT_FOUND;
    /// No such key among the tenant's.
    KeyNotFound = "KEY_NOT_FOUND", NOT_FOUND;
    /// No such cache on this server.
    CacheNotFound = "CACHE_NOT_FOUND", NOT_FOUND;
    /// No such reservation among the tenant's.
    ReservationNotFound = "RESERVATION_NOT_FOUND", NOT_FOUND;
    /// The route exists, but not with this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED;
    /// Another live integration of the tenant has this name.
    NameTaken = "NAME_TAKEN", CONFLICT;
    /// The tenant has as many integrations as it may have.
    TooManyIntegrations = "TOO_MANY_INTEGRATIONS", CONFLICT;
    /// The tenant, or the integration, has as many live keys as it may have.
    TooManyKeys = "TOO_MANY_KEYS", CONFLICT;
    /// The state of the integration, key or tenant does not allow it.
    InvalidState = "INVALID_STATE", CONFLICT;
    /// The call id stands for other content; nothing changed.
    CallIdConflict = "CALL_ID_CONFLICT", CONFLICT;
    /// The call is recorded or its reservation ended; nothing changed.
    ReservationEnded = "RESERVATION_ENDED", CONFLICT;
    /// The integration or the tenant has as many open reservations as it may have.
    TooManyReservations = "TOO_MANY_RESERVATIONS", CONFLICT;
    /// Something of that kind exists already.
    AlreadyExists = "ALREADY_EXISTS", CONFLICT;
    /// The body is larger than the route takes.
    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE;
    /// The path with its query is longer than 8 KiB.
    UriTooLong = "URI_TOO_LONG", URI_TOO_LONG;
    /// The request has more than 100 headers.
    HeadersTooLarge = "HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The body's Content-Type or Content-Encoding is not one that is read.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE;
    /// A field or parameter is missing, of the wrong type or out of its bounds.
    InvalidField = "INVALID_FIELD", UNPROCESSABLE_ENTITY;
    /// A field or parameter that the route does not know.
    UnknownField = "UNKNOWN_FIELD", UNPROCESSABLE_ENTITY;
    /// A text looks like a secret; store it as a credential and refer to it.
    SecretRefused = "SECRET_REFUSED", UNPROCESSABLE_ENTITY;
    /// Under a limit a reservation needs a positive estimate of what is limited.
    EstimateRequired = "ESTIMATE_REQUIRED", UNPROCESSABLE_ENTITY;
    /// The read takes too long or finds too much: ask for fewer days, one integration or a smaller page.
    ReadTooLarge = "READ_TOO_LARGE", UNPROCESSABLE_ENTITY;
    /// A total would leave the range of its integer.
    TotalsOverflow = "TOTALS_OVERFLOW", UNPROCESSABLE_ENTITY;
    /// The body did not arrive in time.
    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT;
    /// Too many requests of the tenant, or by the key of the integration, to this route; come again
    /// after Retry-After.
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS;
    /// The tenant has spent what it may spend on a day; come again after Retry-After.
    CostLimitExceeded = "COST_LIMIT_EXCEEDED", TOO_MANY_REQUESTS;
    /// The tenant has stored as many bytes of records as it may store on a UTC day.
    StoredBytesExceeded = "STORED_BYTES_EXCEEDED", TOO_MANY_REQUESTS;
    /// Something is wrong in the server; the operator's log says what.
    Internal = "INTERNAL", INTERNAL_SERVER_ERROR;
    /// Too much waits to be read or written; come again after Retry-After.
    Overloaded = "OVERLOADED", SERVICE_UNAVAILABLE;
    /// Too many requests of the tenant, or by the key of the integration, at once; come again after
    /// Retry-After.
    Throttled = "THROTTLED", SERVICE_UNAVAILABLE;
    /// The server's clock jumped forward; nothing is stored or decided until it is back or believed.
    ClockJumped = "CLOCK_JUMPED", SERVICE_UNAVAILABLE;
    /// Storage cannot answer; repeat with the same call id after Retry-After.
    Unavailable = "UNAVAILABLE", SERVICE_UNAVAILABLE;
}

/// A failure as the client reads it.
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
    /// When to come again, where that is known better than by the status.
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
}

/// The threshold that a request met.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorDetails {
    #[schema(value_type = enums::ProtectionDimension)]
    dimension: &'static str,
    /// When to come again, in milliseconds from now.
    retry_after_ms: i64,
    /// What is there: requests, of `cost` cents.
    current_value: i64,
    /// What is allowed.
    allowed_value: i64,
}

impl ErrorDetails {
    /// Whole seconds after which to come again, rounded up.
    const fn retry_after_seconds(&self) -> i64 {
        const MILLIS: i64 = 1_000;
        self.retry_after_ms / MILLIS + (self.retry_after_ms % MILLIS > 0) as i64
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl ApiError {
    /// A failure with a sentence for the client.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, field: None, details: None, retry_after_seconds: None }
    }

    /// A failure in the words of the code itself.
    pub fn of(code: ErrorCode) -> Self {
        Self::new(code, code.meaning())
    }

    /// A field that is wrong, with the rest of a sentence: `must not be empty`.
    pub fn field(field: impl Into<String>, problem: &str) -> Self {
        Self::new(ErrorCode::InvalidField, String::new()).on(field, problem)
    }

    /// The failure of a body of more than so many bytes.
    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("The body may have at most {} KiB.", bytes_max / 1024);
        Self::new(ErrorCode::BodyTooLarge, message)
    }

    /// The failure of a request that protection refuses; nothing when it goes on.
    pub fn protection(decision: &ProtectionDecision) -> Option<Self> {
        let (code, breach) = match decision {
            ProtectionDecision::Allow | ProtectionDecision::Warn(_) => return None,
            ProtectionDecision::Throttle(breach) => (ErrorCode::Throttled, breach),
            ProtectionDecision::Reject(breach) => match breach.dimension {
                Dimension::Cost => (ErrorCode::CostLimitExceeded, breach),
                Dimension::Rate | Dimension::Burst | Dimension::Anomaly => {
                    (ErrorCode::RateLimited, breach)
                }
            },
        };
        let &Breach { dimension, retry_after_ms, current_value, allowed_value } = breach;
        let dimension = dimension.as_str();
        let details = ErrorDetails { dimension, retry_after_ms, current_value, allowed_value };
        Some(Self { details: Some(Box::new(details)), ..Self::of(code) })
    }

    /// The failure of what waits for the clock.
    fn clock(ahead_seconds: i64, adopted_in_seconds: u32) -> Self {
        let message = format!(
            "The server's clock jumped {ahead_seconds} seconds ahead, so nothing is stored or \
             decided. If the clock stays there, it is believed in {adopted_in_seconds} seconds. \
             Send the same again after Retry-After; the operator can end the wait with `bursar \
             clock confirm`."
        );
        let error = Self::new(ErrorCode::ClockJumped, message);
        // The clock may be back at any moment, and then nobody should wait for long.
        Self { retry_after_seconds: Some(adopted_in_seconds), ..error }
    }

    /// The failure of what cannot be written now. The log tells once that the writes fail, and why.
    fn not_writable(reason: NotWritable) -> Self {
        let message = format!(
            "The database takes no writes now ({}). Send the same again after Retry-After.",
            reason.as_str()
        );
        Self::new(ErrorCode::Unavailable, message)
    }

    /// The same failure, blamed on a field.
    #[must_use]
    pub fn on(mut self, field: impl Into<String>, problem: &str) -> Self {
        // JSON writes control characters with letters, which could make a key of what follows.
        let field = field.into().replace(char::is_control, "\u{fffd}");
        // Names of fields come from outside too, and could be a key by mistake.
        let field = raw_key::redact(&field).unwrap_or(field);
        self.message = format!("{field} {problem}");
        self.field = Some(field);
        self
    }

    /// The same failure, of a field inside another: `requests[1]`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
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

    /// Its code.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Its sentence.
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
            StoreError::Closed => Self::new(ErrorCode::Unavailable, "The server is shutting down."),
            StoreError::Exists(_) => Self::of(ErrorCode::AlreadyExists),
            StoreError::TotalsOverflow(figure) => {
                let message =
                    format!("The total of {figure} would leave the range of its integer.");
                Self::new(ErrorCode::TotalsOverflow, message)
            }
            // The panic is in the log already.
            StoreError::Panicked => Self::of(ErrorCode::Internal),
            StoreError::NotWritable { reason, .. } => Self::not_writable(*reason),
            &StoreError::ClockJumped { ahead_seconds, adopted_in_seconds } => {
                Self::clock(ahead_seconds, adopted_in_seconds)
            }
            StoreError::Unavailable(cause) | StoreError::Again(cause) => {
                tracing::error!(cause = cause.as_ref() as &dyn std::error::Error, "storage");
                Self::of(ErrorCode::Unavailable)
            }
            StoreError::Statement(cause) => {
                tracing::error!(cause = cause.as_ref() as &dyn std::error::Error, "statement");
                Self::of(ErrorCode::Internal)
            }
            StoreError::Corrupt(what) => {
                tracing::error!(what, "stored data is not understood");
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
                .on("name", "is taken by another integration of this tenant"),
            ControlRefusal::KeyNotFound => Self::of(ErrorCode::KeyNotFound),
            ControlRefusal::KeyEnded | ControlRefusal::KeyReplaced => {
                Self::new(ErrorCode::InvalidState, format!("Not possible: {refusal}."))
            }
            ControlRefusal::TooManyIntegrations { max } => {
                let message = format!(
                    "This tenant may have {max} integrations. Delete one that is not used, or ask \
                     the operator of this server to raise tenant.integrations_max."
                );
                Self::new(ErrorCode::TooManyIntegrations, message)
            }
            ControlRefusal::TooManyDeleted { max } => {
                let message = format!(
                    "This tenant has deleted {max} integrations, and their usage refers to them. \
                     Use an integration again instead of making another, or ask the operator of \
                     this server to raise tenant.integrations_max."
                );
                Self::new(ErrorCode::TooManyIntegrations, message)
            }
            ControlRefusal::TooManyKeys { max } => {
                let message = format!(
                    "There may be {max} live keys here. Revoke one that is not used, rotate with \
                     overlap_seconds 0, or ask the operator of this server to raise \
                     tenant.api_keys_max or tenant.integration_keys_max."
                );
                Self::new(ErrorCode::TooManyKeys, message)
            }
            ControlRefusal::Lifecycle(cause) => {
                Self::new(ErrorCode::InvalidState, format!("Not possible: {cause}."))
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let retry_after = match &self.details {
            Some(details) => Some(HeaderValue::from(details.retry_after_seconds())),
            None if self.code == ErrorCode::StoredBytesExceeded => {
                Some(HeaderValue::from(RETRY_NEXT_DAY_SECONDS))
            }
            None if status == StatusCode::SERVICE_UNAVAILABLE => {
                let seconds = self.retry_after_seconds.unwrap_or(RETRY_AFTER_SECONDS);
                Some(HeaderValue::from(seconds))
            }
            None => None,
        };
        let mut response = envelope::failure(status, &self);
        // For the metrics, which see answers only.
        response.extensions_mut().insert(self.code);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_every_code() {
        let documents = include_str!("../../../../docs/api.md");
        for code in ErrorCode::ALL {
            let row = format!(
                "| `{}` | {} | {} |",
                code.as_str(),
                code.status().as_u16(),
                code.meaning()
            );
            assert!(documents.contains(&row), "docs/api.md lacks the row\n{row}");
        }
    }

    #[test]
    fn what_is_said_of_a_field_has_no_key_in_the_form_in_which_it_is_sent() {
        let digits = "0123456789abcdef".repeat(3);
        let error = ApiError::field(format!("\u{8}ur_operator_{digits}"), "is not known");
        let sent = serde_json::to_string(&error).unwrap();
        assert!(!raw_key::contains_key(&sent), "{sent}");
    }

    #[test]
    fn the_operators_guide_says_what_to_do_about_every_code() {
        let guide = include_str!("../../../../docs/operating.md");
        for code in ErrorCode::ALL {
            let row = format!("| `{}` | ", code.as_str());
            assert!(guide.contains(&row), "docs/operating.md lacks a row that begins with {row}");
        }
    }
}
