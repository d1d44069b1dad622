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
    /// The body is not valid JSON in UTF-8 or is nested too deeply, or its gzip is broken or too
    /// costly.
    InvalidJson = "INVALID_JSON", BAD_REQUEST;
    /// A header, the path or the query of the request is malformed.
    BadRequest = "BAD_REQUEST", BAD_REQUEST;
    /// The update has no fields. Send at least one field to change.
    NothingToChange = "NOTHING_TO_CHANGE", BAD_REQUEST;
    /// The operator must name a tenant. Send its id in X-Tenant-ID.
    TenantRequired = "TENANT_REQUIRED", BAD_REQUEST;
    /// The request has two different credentials. Send only one.
    AmbiguousCredentials = "AMBIGUOUS_CREDENTIALS", BAD_REQUEST;
    /// The credential is missing, wrong, expired or revoked.
    Unauthenticated = "UNAUTHENTICATED", UNAUTHORIZED;
    /// The credential does not permit this request.
    Forbidden = "FORBIDDEN", FORBIDDEN;
    /// The key lacks the scope that the route requires.
    MissingScope = "MISSING_SCOPE", FORBIDDEN;
    /// X-Tenant-ID names another tenant than that of the credential.
    TenantMismatch = "TENANT_MISMATCH", FORBIDDEN;
    /// The tenant is suspended. It can read, record usage, release reservations and revoke keys.
    TenantSuspended = "TENANT_SUSPENDED", FORBIDDEN;
    /// The tenant is terminated or archived.
    TenantTerminated = "TENANT_TERMINATED", FORBIDDEN;
    /// No route has this path.
    RouteNotFound = "ROUTE_NOT_FOUND", NOT_FOUND;
    /// No tenant has this id.
    TenantNotFound = "TENANT_NOT_FOUND", NOT_FOUND;
    /// The tenant has no integration with this id.
    IntegrationNotFound = "INTEGRATION_NOT_FOUND", NOT_FOUND;
    /// The tenant or the integration has no key with this id.
    KeyNotFound = "KEY_NOT_FOUND", NOT_FOUND;
    /// The server has no cache with this name.
    CacheNotFound = "CACHE_NOT_FOUND", NOT_FOUND;
    /// The tenant has no reservation with this call id.
    ReservationNotFound = "RESERVATION_NOT_FOUND", NOT_FOUND;
    /// The route does not support this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED;
    /// Another integration of the tenant has this name.
    NameTaken = "NAME_TAKEN", CONFLICT;
    /// The tenant has reached its maximum number of integrations.
    TooManyIntegrations = "TOO_MANY_INTEGRATIONS", CONFLICT;
    /// The tenant or the integration has reached its maximum number of valid keys.
    TooManyKeys = "TOO_MANY_KEYS", CONFLICT;
    /// The state of the integration, key or tenant does not allow the change.
    InvalidState = "INVALID_STATE", CONFLICT;
    /// The call id is already used with other content. Nothing changed.
    CallIdConflict = "CALL_ID_CONFLICT", CONFLICT;
    /// The call is already recorded, or its reservation has ended. Nothing changed.
    ReservationEnded = "RESERVATION_ENDED", CONFLICT;
    /// The integration or the tenant has reached its maximum number of open reservations.
    TooManyReservations = "TOO_MANY_RESERVATIONS", CONFLICT;
    /// An object with the same identity already exists.
    AlreadyExists = "ALREADY_EXISTS", CONFLICT;
    /// The body is larger than the route accepts.
    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE;
    /// The path and the query are together longer than 8 KiB.
    UriTooLong = "URI_TOO_LONG", URI_TOO_LONG;
    /// The request has more than 100 headers.
    HeadersTooLarge = "HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The Content-Type or the Content-Encoding of the body is not supported.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE;
    /// A field or parameter is missing, has the wrong type or is out of bounds.
    InvalidField = "INVALID_FIELD", UNPROCESSABLE_ENTITY;
    /// The route does not have this field or parameter.
    UnknownField = "UNKNOWN_FIELD", UNPROCESSABLE_ENTITY;
    /// A text looks like a secret, which is not stored. Remove it, or send a reference to it.
    SecretRefused = "SECRET_REFUSED", UNPROCESSABLE_ENTITY;
    /// A reservation needs an estimate above 0 of each amount that a limit of the call counts.
    EstimateRequired = "ESTIMATE_REQUIRED", UNPROCESSABLE_ENTITY;
    /// The read takes too much time or memory. Ask for fewer days, one integration or a smaller
    /// page.
    ReadTooLarge = "READ_TOO_LARGE", UNPROCESSABLE_ENTITY;
    /// A total would exceed the range of a 64-bit integer.
    TotalsOverflow = "TOTALS_OVERFLOW", UNPROCESSABLE_ENTITY;
    /// The body did not arrive in time.
    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT;
    /// The tenant or the integration key sends too many requests to this route. Retry after the
    /// time in Retry-After.
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS;
    /// The tenant has stored its maximum of bytes for this UTC day. Retry after the time in
    /// Retry-After.
    StoredBytesExceeded = "STORED_BYTES_EXCEEDED", TOO_MANY_REQUESTS;
    /// The server has failed. Its log states the cause.
    Internal = "INTERNAL", INTERNAL_SERVER_ERROR;
    /// Too many requests are waiting. Retry after the time in Retry-After.
    Overloaded = "OVERLOADED", SERVICE_UNAVAILABLE;
    /// The tenant or the integration key sends too many requests at once. Retry after the time in
    /// Retry-After.
    Throttled = "THROTTLED", SERVICE_UNAVAILABLE;
    /// The server's clock jumped forward. Nothing is stored or decided until the clock is back or
    /// accepted.
    ClockJumped = "CLOCK_JUMPED", SERVICE_UNAVAILABLE;
    /// The database is unavailable. Retry with the same call id after the time in Retry-After.
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
