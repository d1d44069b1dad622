//! Static responses that are held in memory.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

/// Marks a response whose body is shared static text; an extension of such responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedText;

/// The OpenAPI document, its page and style sheet, each built on first use.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) openapi: LazyLock<FixedText>,
    pub(crate) page: LazyLock<FixedText>,
    pub(crate) style: LazyLock<FixedText>,
}

/// A text that is built once and served unchanged.
#[derive(Debug)]
pub(crate) struct FixedText {
    content_type: &'static str,
    body: Bytes,
    etag: HeaderValue,
}

impl FixedText {
    pub(crate) fn new(content_type: &'static str, text: String) -> Self {
        let digest = blake3::hash(text.as_bytes()).to_hex();
        let etag = format!("\"{}\"", digest.get(..32).unwrap_or_default());
        let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { content_type, body: Bytes::from(text), etag }
    }

    /// The response: the text, or 304 if the client has it already.
    pub(crate) fn answer(&self, asked: &HeaderMap) -> Response {
        let known = asked.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = known.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        let own = self.etag.to_str().unwrap_or_default();
        let is_known = tags.any(|tag| tag.trim().trim_start_matches("W/") == own);
        let body = if is_known { Body::empty() } else { Body::from(self.body.clone()) };
        let mut response = Response::new(body);
        response.extensions_mut().insert(SharedText);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        // An upgrade of the server changes the text at the same URL.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        response
    }
}
