//! The id of every request: taken over from the client or made here, and known to the task that
//! answers.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::credentials::raw_key;

/// The header of the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over.
const REQUEST_ID_CHARS_MAX: usize = 128;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// The id of the request that this task answers.
pub fn current() -> Option<HeaderValue> {
    CURRENT.try_with(HeaderValue::clone).ok()
}

/// The same as a text, which is empty outside of requests.
pub fn current_text() -> String {
    CURRENT.try_with(|id| id.to_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// Takes a sane request id over, or makes one.
pub fn identify(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| is_sane(value));
    given.cloned().unwrap_or_else(make_request_id)
}

/// Answers a request of this id, and returns it with the answer.
pub async fn within(id: HeaderValue, answer: impl Future<Output = Response>) -> Response {
    let mut response = CURRENT.scope(id.clone(), answer).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Does a part of a request's work on a thread of its own.
pub fn sync_within<T>(id: Option<HeaderValue>, work: impl FnOnce() -> T) -> T {
    match id {
        Some(id) => CURRENT.sync_scope(id, work),
        None => work(),
    }
}

/// Whether an id can stand in answers, logs and the audit log.
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
