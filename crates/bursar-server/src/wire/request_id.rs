//! The id of a request: accepted from the client or created, and known to the request's task.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::credentials::raw_key;

/// The header of the request id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest accepted request id.
const REQUEST_ID_CHARS_MAX: usize = 128;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// The id of the request that this task handles.
pub(crate) fn current() -> Option<HeaderValue> {
    CURRENT.try_with(HeaderValue::clone).ok()
}

/// The id as text; empty outside of requests.
pub(crate) fn current_text() -> String {
    CURRENT.try_with(|id| id.to_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// Accepts a valid request id, or creates one.
pub(crate) fn identify(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| is_sane(value));
    given.cloned().unwrap_or_else(make_request_id)
}

/// Runs a future as part of a request, and adds the id to its response.
pub(crate) async fn within(id: HeaderValue, answer: impl Future<Output = Response>) -> Response {
    let mut response = CURRENT.scope(id.clone(), answer).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Runs work of a request on another thread.
pub(crate) fn sync_within<T>(id: Option<HeaderValue>, work: impl FnOnce() -> T) -> T {
    match id {
        Some(id) => CURRENT.sync_scope(id, work),
        None => work(),
    }
}

/// Whether an id is safe in responses, logs and the audit log.
fn is_sane(id: &HeaderValue) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let Ok(id) = id.to_str() else { return false };
    let is_plain = !id.is_empty() && id.len() <= REQUEST_ID_CHARS_MAX && id.bytes().all(plain);
    is_plain && !raw_key::contains_key(id)
}

fn make_request_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let process = PROCESS.get_or_init(|| getrandom::u32().unwrap_or_else(|_| std::process::id()));
    let id = format!("req-{process:08x}-{:x}", NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("req"))
}
