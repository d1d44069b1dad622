//! Checks the head of every request, and adds headers and a memory charge to every response.
//!
//! Deliberately absent: CORS. Pages of other origins are not meant to call this server.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Frame, SizeHint};

use crate::auth::access;
use crate::http::answer_memory::{AnswerMemory, SMALL_ANSWER};
use crate::http::fixed_text::SharedText;
use crate::http::limits::{HEADERS_MAX, PATH_BYTES_MAX};
use crate::http::memory_budget::{AnswerBudgets, ByteHold};
use crate::http::request_extensions::{ListenerKind, OverTls, OverflowConnection, RequestTenant};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

static HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];
/// The error for a request that names two hosts.
const TWO_HOSTS: &str =
    "The header Host must equal the host and port of the request URL (in HTTP/2: :authority).";
static ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Refuses an invalid head, and adds the common headers to the response.
pub(crate) async fn apply(budgets: &AnswerBudgets, mut request: Request, next: Next) -> Response {
    // A request that came by a socket has one already.
    let tenant = request.extensions_mut().get_or_insert_default::<RequestTenant>().clone();
    let memory = AnswerMemory::default();
    request.extensions_mut().insert(memory.clone());
    let over_tls = request.extensions().get::<OverTls>().is_some();
    let response = match check_head(&request) {
        // The panic is in the log with the id of the request.
        Ok(()) => AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_panic| ApiError::of(ErrorCode::Internal).into_response()),
        Err(error) => error.into_response(),
    };
    let mut response = match bound_answer(budgets, (&tenant, &memory), response) {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    // Leaves room for the request id and the trace headers, which are added last.
    headers.reserve(HEADERS.len() + 4);
    for (name, value) in &HEADERS {
        set_default(headers, name, value);
    }
    if over_tls {
        set_default(headers, &header::STRICT_TRANSPORT_SECURITY, &ONLY_TLS);
    }
    response
}

/// A route can set its own value.
fn set_default(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    headers.entry(name).or_insert_with(|| value.clone());
}

/// Refuses what no route accepts: what HTTP/1.1 but not HTTP/2 rejects itself, and overflow
/// connections.
fn check_head(request: &Request) -> Result<(), ApiError> {
    let extensions = request.extensions();
    let is_overflow = extensions.get::<OverflowConnection>().is_some();
    if is_overflow && !access::is_monitoring_path(request.uri().path()) {
        let message =
            "All connections of the server are busy. Retry after the time in Retry-After.";
        return Err(ApiError::new(ErrorCode::Overloaded, message));
    }
    // A request from this process itself has no host.
    if extensions.get::<ListenerKind>().is_some() {
        check_host(request).map_err(|message| ApiError::new(ErrorCode::BadRequest, message))?;
    }
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if path > PATH_BYTES_MAX {
        return Err(ApiError::of(ErrorCode::UriTooLong));
    }
    if request.headers().len() > HEADERS_MAX {
        return Err(ApiError::of(ErrorCode::HeadersTooLarge));
    }
    Ok(())
}

/// Checks the host, so that all servers on the way agree on it (RFC 9112, 3.2; RFC 9113, 8.3.1).
fn check_host(request: &Request) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("The header Host must be sent only once.");
    }
    let authority = request.uri().authority();
    let Some(host) = host else {
        let may_have_none = match request.version() {
            Version::HTTP_09 | Version::HTTP_10 => true,
            Version::HTTP_2 => authority.is_some(),
            _ => false,
        };
        return if may_have_none { Ok(()) } else { Err("The header Host is required.") };
    };
    if host.is_empty() {
        return if authority.is_none() { Ok(()) } else { Err(TWO_HOSTS) };
    }
    let named = Authority::try_from(host.as_bytes()).ok();
    let named = named.filter(|named| !named.as_str().contains('@'));
    let named = named.ok_or("The header Host must be a host, or a host and a port.")?;
    if authority.is_some_and(|authority| *authority != named) {
        return Err(TWO_HOSTS);
    }
    Ok(())
}

/// Charges a large response until the client has read it.
///
/// It takes over the charge from building the response and resizes it to the exact size.
fn bound_answer(
    budgets: &AnswerBudgets,
    (tenant, memory): (&RequestTenant, &AnswerMemory),
    response: Response,
) -> Result<Response, ApiError> {
    let built = memory.finish();
    if response.extensions().get::<SharedText>().is_some() {
        return Ok(response);
    }
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes > SMALL_ANSWER) else { return Ok(response) };
    let mut hold = built.unwrap_or_else(|| budgets.hold(tenant.holder()));
    if !hold.resize(bytes) {
        return Err(ApiError::of(ErrorCode::Overloaded));
    }
    Ok(response.map(|body| Body::new(HeldBody { body, hold: Some(hold) })))
}

/// A body that holds its memory until it is sent.
struct HeldBody {
    body: Body,
    /// Moves to the first part, which is all of a response of known size.
    hold: Option<ByteHold>,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        Pin::new(&mut this.body).poll_frame(cx).map_ok(|frame| {
            frame.map_data(|bytes| match this.hold.take() {
                Some(hold) => hold.keep(bytes),
                None => bytes,
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
