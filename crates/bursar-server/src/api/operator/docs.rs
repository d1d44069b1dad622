//! The API's description, for machines and for people. Open to all: it tells nothing about anyone.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use crate::middleware::response_headers::SharedText;
use crate::openapi;
use crate::wire::error::ErrorCode;

/// The page works without any other host, and without scripts.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// A text that is made once and served as it is.
struct Fixed {
    content_type: &'static str,
    body: Bytes,
    etag: HeaderValue,
}

impl Fixed {
    fn new(content_type: &'static str, text: String) -> Self {
        let digest = blake3::hash(text.as_bytes()).to_hex();
        let etag = format!("\"{}\"", digest.get(..32).unwrap_or_default());
        let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { content_type, body: Bytes::from(text), etag }
    }

    /// The text, or 304 for whoever has it already.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let known = asked.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = known.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        let own = self.etag.to_str().unwrap_or_default();
        let is_known = tags.any(|tag| tag.trim().trim_start_matches("W/") == own);
        let body = if is_known { Body::empty() } else { Body::from(self.body.clone()) };
        let mut response = Response::new(body);
        response.extensions_mut().insert(SharedText);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        // An upgrade changes it under the same address.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        response
    }
}

/// Serves this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses(
        (status = 200, body = Object, description = "The OpenAPI document."),
        (status = 304, description = "As before: `If-None-Match` names its `ETag`."),
    ),
    extensions(("x-refuses" = json!([ErrorCode::Overloaded]))),
)]
pub async fn get_openapi(headers: HeaderMap) -> Response {
    static DOCUMENT: LazyLock<Fixed> =
        LazyLock::new(|| Fixed::new("application/json", openapi::document().to_string()));
    DOCUMENT.answer(&headers)
}

/// Shows this document to people
#[utoipa::path(
    get,
    path = "/docs",
    tag = "server",
    responses(
        (status = 200, body = String, content_type = "text/html", description = "A page."),
        (status = 304, description = "As before: `If-None-Match` names its `ETag`."),
    ),
    extensions(("x-refuses" = json!([ErrorCode::Overloaded]))),
)]
pub async fn get_docs(headers: HeaderMap) -> Response {
    static PAGE: LazyLock<Fixed> =
        LazyLock::new(|| Fixed::new("text/html; charset=utf-8", openapi::page::html()));
    let mut response = PAGE.answer(&headers);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Serves the look of that page
#[utoipa::path(
    get,
    path = "/docs/style.css",
    tag = "server",
    responses(
        (status = 200, body = String, content_type = "text/css", description = "A style sheet."),
        (status = 304, description = "As before: `If-None-Match` names its `ETag`."),
    ),
    extensions(("x-refuses" = json!([ErrorCode::Overloaded]))),
)]
pub async fn get_docs_style(headers: HeaderMap) -> Response {
    static STYLE: LazyLock<Fixed> = LazyLock::new(|| {
        Fixed::new("text/css; charset=utf-8", include_str!("../../openapi/page.css").to_owned())
    });
    STYLE.answer(&headers)
}
