//! The OpenAPI document and its HTML page. Both are public and say nothing about any tenant.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use utoipa_axum::routes;

use crate::api::route::{Audience, Routes, Rule};
use crate::app::App;
use crate::wire::error_code::ErrorCode;

/// The page loads nothing from other hosts and runs no scripts.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Returns the OpenAPI document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses(
        (status = 200, body = Object, description = "The OpenAPI document."),
        (status = 304, description = "Unchanged: `If-None-Match` has the current `ETag`."),
    ),
    extensions(("x-refuses" = json!([ErrorCode::Overloaded]))),
)]
pub(crate) async fn get_openapi(State(app): State<App>, headers: HeaderMap) -> Response {
    app.documents.openapi.answer(&headers)
}

/// Returns the OpenAPI document as an HTML page
#[utoipa::path(
    get,
    path = "/docs",
    tag = "server",
    responses(
        (status = 200, body = String, content_type = "text/html", description = "The page."),
        (status = 304, description = "Unchanged: `If-None-Match` has the current `ETag`."),
    ),
    extensions(("x-refuses" = json!([ErrorCode::Overloaded]))),
)]
pub(crate) async fn get_docs(State(app): State<App>, headers: HeaderMap) -> Response {
    let mut response = app.documents.page.answer(&headers);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Returns the style sheet of the page
#[utoipa::path(
    get,
    path = "/docs/style.css",
    tag = "server",
    responses(
        (status = 200, body = String, content_type = "text/css", description = "The style sheet."),
        (status = 304, description = "Unchanged: `If-None-Match` has the current `ETag`."),
    ),
    extensions(("x-refuses" = json!([ErrorCode::Overloaded]))),
)]
pub(crate) async fn get_docs_style(State(app): State<App>, headers: HeaderMap) -> Response {
    app.documents.style.answer(&headers)
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::open(Audience::Everyone), routes!(get_openapi))
        .add(Rule::open(Audience::Everyone), routes!(get_docs))
        .add(Rule::open(Audience::Everyone), routes!(get_docs_style))
}
