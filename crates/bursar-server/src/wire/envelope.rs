//! The envelope of every response, with data or with an error.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::answer_memory::StoreReader;
use crate::wire::error::ApiError;
use crate::wire::{request_id, timestamps};

/// The paging of a list.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct ListMeta {
    /// The number of all matching rows. Null if it is expensive to count.
    #[schema(required)]
    pub(crate) total: Option<i64>,
    /// The number of the page, from 1.
    pub(crate) page: u32,
    /// The requested rows per page.
    pub(crate) page_size: u32,
    /// Whether there are rows after this page.
    pub(crate) has_more: bool,
    /// The cursor of the next page, for lists with cursors.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
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

/// A successful response.
pub struct Answer<T> {
    status: StatusCode,
    data: T,
    list: Option<ListMeta>,
    headers: HeaderMap,
}

impl<T: Serialize> Answer<T> {
    /// Status 200.
    pub(crate) fn ok(data: T) -> Self {
        Self { status: StatusCode::OK, data, list: None, headers: HeaderMap::new() }
    }

    /// Status 201.
    pub fn created(data: T) -> Self {
        Self { status: StatusCode::CREATED, ..Self::ok(data) }
    }

    /// Status 200 with paging.
    pub(crate) fn list(data: T, meta: ListMeta) -> Self {
        Self { list: Some(meta), ..Self::ok(data) }
    }

    /// Adds headers.
    #[must_use]
    pub(crate) fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }
}

impl<T: Serialize + Send + 'static> Answer<T> {
    /// Serializes a large response on the worker pool.
    ///
    /// # Errors
    /// 503 if too many responses of the caller wait.
    pub(crate) async fn large(self, reader: &StoreReader) -> Result<Response, ApiError> {
        let id = request_id::current();
        let encoder = reader.encoder();
        encoder.encode(move || request_id::sync_within(id, || self.into_response())).await
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let mut response = render(self.status, Some(&self.data), None, self.list.as_ref());
        response.headers_mut().extend(self.headers);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code().status();
        let mut response = render::<()>(status, None, Some(&self), None);
        // Read by the metrics, which see responses only.
        response.extensions_mut().insert(self.code());
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn render<T: Serialize>(
    status: StatusCode,
    data: Option<&T>,
    error: Option<&ApiError>,
    list: Option<&ListMeta>,
) -> Response {
    let id = request_id::current();
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
