//! The error codes with their statuses and messages. No other file chooses the status of an error.

use axum::http::StatusCode;
use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:ident;)+) => {
        /// The error codes, in the order of the table in docs/api.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// Every code, for the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// What the code means and what the caller can do.
            pub(crate) const fn meaning(self) -> &'static str {
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

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
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
    fn the_operators_guide_says_what_to_do_about_every_code() {
        let guide = include_str!("../../../../docs/operating.md");
        for code in ErrorCode::ALL {
            let row = format!("| `{}` | ", code.as_str());
            assert!(guide.contains(&row), "docs/operating.md lacks a row that begins with {row}");
        }
    }
}
