//! What every request passes on its way in, and every answer on its way out: bounds of the head,
//! headers for browsers, and a share of memory for large answers.
//!
//! Deliberately absent: CORS. No page of another origin is meant to call this server.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bursar_core::TenantId;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::app::App;
use crate::budget::ByteHold;
use crate::error::{ApiError, ErrorCode};
use crate::serve::limits::{HEADERS_MAX, PATH_BYTES_MAX};

/// Answers up to this size do not count in the budget: connections are bounded already.
const SMALL_ANSWER: u64 = 64 * 1024;

/// On which listener a request came; an extension of every request that came by a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Where tenants call.
    Public,
    /// Where only the operator's network calls.
    Operator,
}

/// That a request came over TLS; an extension of such requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTls;

/// Whose request it is, once that is proved; an extension of every request.
#[derive(Clone, Debug, Default)]
pub struct RequestTenant(Arc<OnceLock<TenantId>>);

impl RequestTenant {
    /// Someone proved to be of this tenant.
    pub(crate) fn proved(&self, tenant_id: TenantId) {
        // A request has one tenant, whoever asks for it how often.
        let _ = self.0.set(tenant_id);
    }

    /// The tenant, if one is proved.
    pub fn get(&self) -> Option<TenantId> {
        self.0.get().copied()
    }
}

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
static ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Refuses a head out of bounds, and sends an answer out with what every answer has.
pub async fn pass(app: &App, mut request: Request, next: Next) -> Response {
    let tenant = RequestTenant::default();
    request.extensions_mut().insert(tenant.clone());
    let over_tls = request.extensions().get::<OverTls>().is_some();
    let response = match check_head(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let mut response = match bound_answer(app, tenant.get(), response) {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    // With room for the ids and the trace, which come last.
    headers.reserve(HEADERS.len() + 4);
    for (name, value) in &HEADERS {
        set_default(headers, name, value);
    }
    if over_tls {
        set_default(headers, &header::STRICT_TRANSPORT_SECURITY, &ONLY_TLS);
    }
    response
}

/// A route that serves something else than data says so itself.
fn set_default(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    headers.entry(name).or_insert_with(|| value.clone());
}

/// What HTTP/1.1 refuses before a request is made of it, but HTTP/2 does not.
fn check_head(request: &Request) -> Result<(), ApiError> {
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if path > PATH_BYTES_MAX {
        return Err(ApiError::of(ErrorCode::UriTooLong));
    }
    if request.headers().len() > HEADERS_MAX {
        return Err(ApiError::of(ErrorCode::HeadersTooLarge));
    }
    Ok(())
}

/// Takes memory for a large answer until the client has taken it.
fn bound_answer(
    app: &App,
    tenant_id: Option<TenantId>,
    response: Response,
) -> Result<Response, ApiError> {
    let bytes = response.body().size_hint().exact().filter(|bytes| *bytes > SMALL_ANSWER);
    let Some(bytes) = bytes else { return Ok(response) };
    let mut hold = app.answer_budget.hold(tenant_id);
    if !usize::try_from(bytes).is_ok_and(|bytes| hold.take(bytes)) {
        return Err(ApiError::of(ErrorCode::Overloaded));
    }
    Ok(response.map(|body| Body::new(HeldBody { body, hold: Some(hold) })))
}

/// A body whose bytes hold a part of the budget until they are sent.
struct HeldBody {
    body: Body,
    /// For the first part, which is the whole of an answer of a known size.
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
