//! The envelope of every answer, and the id of every request.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::credentials::raw_key;
use crate::http::answer_memory::Reads;
use crate::wire::error::ApiError;
use crate::wire::timestamps;

/// The header of the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over.
const REQUEST_ID_CHARS_MAX: usize = 128;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// The id of the request that this task answers.
pub fn request_id() -> String {
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

/// What a list says about itself.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ListMeta {
    /// All rows that match; null where it cannot be known cheaply.
    #[schema(required)]
    pub total: Option<i64>,
    /// The page, from 1.
    pub page: u32,
    /// The rows asked for.
    pub page_size: u32,
    /// Whether there is more after this page.
    pub has_more: bool,
    /// Where to go on, for lists that are paged by place.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Meta<'a> {
    timestamp: String,
    request_id: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    list: Option<&'a ListMeta>,
}

#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    success: bool,
    data: Option<&'a T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    meta: Meta<'a>,
}

/// A successful answer.
pub struct Answer<T> {
    status: StatusCode,
    data: T,
    list: Option<ListMeta>,
    headers: HeaderMap,
}

impl<T: Serialize> Answer<T> {
    /// 200 with this data.
    pub fn ok(data: T) -> Self {
        Self { status: StatusCode::OK, data, list: None, headers: HeaderMap::new() }
    }

    /// 201 with this data.
    pub fn created(data: T) -> Self {
        Self { status: StatusCode::CREATED, ..Self::ok(data) }
    }

    /// 200 with a list.
    pub fn list(data: T, meta: ListMeta) -> Self {
        Self { list: Some(meta), ..Self::ok(data) }
    }

    /// The same answer with more headers.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }
}

impl<T: Serialize + Send + 'static> Answer<T> {
    /// Writes a large answer of what was read where it keeps no other request waiting.
    ///
    /// # Errors
    /// 503 when too many answers of the caller wait to be written.
    pub async fn large(self, reads: &Reads) -> Result<Response, ApiError> {
        let id = CURRENT.try_with(HeaderValue::clone);
        let written = reads.writers().write(move || match id {
            Ok(id) => CURRENT.sync_scope(id, || self.into_response()),
            Err(_) => self.into_response(),
        });
        written.await
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = render(self.status, Some(&self.data), None, self.list.as_ref());
        response.headers_mut().extend(self.headers);
        response
    }
}

/// A failed answer.
pub(crate) fn failure(status: StatusCode, error: &ApiError) -> Response {
    render::<()>(status, None, Some(error), None)
}

fn render<T: Serialize>(
    status: StatusCode,
    data: Option<&T>,
    error: Option<&ApiError>,
    list: Option<&ListMeta>,
) -> Response {
    let id = CURRENT.try_with(HeaderValue::clone).ok();
    let request_id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    let meta = Meta { timestamp: timestamps::text(timestamps::system_now()), request_id, list };
    let envelope = Envelope { success: error.is_none(), data, error, meta };
    let Ok(body) = serde_json::to_vec(&envelope) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let json = HeaderValue::from_static("application/json");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
