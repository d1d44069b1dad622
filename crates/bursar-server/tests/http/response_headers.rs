//! What applies to every route: security headers, limits on the head, and shared limits on memory.

use axum::http::Method;
use serde_json::json;

use crate::support::{ApiResponse, TestApp, record, with};

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let app = TestApp::new();
    let (anonymous, founder) = (app.anonymous(), app.founder());
    for (client, path, status) in [
        (&anonymous, "/health/live", 200),
        (&founder, "/api/v1/tenants", 200),
        (&anonymous, "/api/v1/tenants", 401),
        (&anonymous, "/nowhere", 404),
    ] {
        let answer = client.root(path).await;
        assert_eq!(answer.status.as_u16(), status);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        assert!(!answer.headers.contains_key("strict-transport-security"), "only over TLS");
    }
}

#[track_caller]
fn check_no_cors(answer: &ApiResponse) {
    let mut names = answer.headers.keys();
    assert!(names.all(|name| !name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn no_response_allows_another_origin() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let read = tenant.founder().get("/integrations").header("origin", "https://example.com").await;
    check_no_cors(read.is(200));
    let preflight = app
        .anonymous()
        .request(Method::OPTIONS, "/integrations")
        .header("origin", "https://example.com")
        .header("access-control-request-method", "POST")
        .await;
    check_no_cors(preflight.refused(405, "METHOD_NOT_ALLOWED"));
}

#[tokio::test]
async fn a_head_beyond_its_limits_is_refused() {
    let app = TestApp::new();
    let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
    app.anonymous().root(&path(8 * 1024)).await.refused(404, "ROUTE_NOT_FOUND");
    app.anonymous().root(&path(8 * 1024 + 1)).await.refused(414, "URI_TOO_LONG");
    let many = |count: usize| {
        (0..count)
            .fold(app.anonymous().root("/nowhere"), |request, _| request.header("x-many", "1"))
    };
    many(100).await.refused(404, "ROUTE_NOT_FOUND");
    many(101).await.refused(431, "HEADERS_TOO_LARGE");
}

#[tokio::test]
async fn bodies_beyond_the_memory_limit_get_503() {
    let app = TestApp::with_settings(&[("BURSAR_SERVER_BODY_BYTES_MAX_TOTAL", "8000")]);
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let body = with(record(&id, "c"), json!({ "metadata": { "a": "x".repeat(2_000) } }));
    for _ in 0..2 {
        let answer = tenant.founder().post("/telemetry/llm-usage").json(&body).await;
        assert_eq!(answer.refused(503, "OVERLOADED").headers["retry-after"], "1");
    }
    let small = record(&id, "c");
    tenant.founder().post("/telemetry/llm-usage").json(&small).await.is(201);
}

#[tokio::test]
async fn a_compressed_body_counts_with_its_decompressed_size() {
    let app = TestApp::with_settings(&[("BURSAR_SERVER_BODY_BYTES_MAX_TOTAL", "4000000")]);
    let founder = app.tenant("a").await.founder();
    let bomb = crate::bodies::gzip(&vec![b' '; 2_000_000]);
    assert!(bomb.len() < 5_000, "{}", bomb.len());
    let request = founder.post("/telemetry/llm-usage/batch").body(bomb);
    request.header("content-encoding", "gzip").await.refused(503, "OVERLOADED");
}

#[tokio::test]
async fn large_responses_beyond_the_memory_limit_get_503() {
    let app = TestApp::with_settings(&[("BURSAR_SERVER_ANSWER_BYTES_MAX_TOTAL", "800000")]);
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for call in ["a", "b", "c", "d"] {
        let body = with(record(&id, call), json!({ "metadata": { "a": "x".repeat(30_000) } }));
        tenant.founder().post("/telemetry/llm-usage").json(&body).await.is(201);
    }
    let key = tenant.key(&["telemetry:read"]).await;
    key.get("/telemetry/usage-history").await.refused(422, "READ_TOO_LARGE");
    let path = "/telemetry/usage-history?limit=3";
    key.get(path).await.is(200);
    let untaken = key.get(path).response().await;
    assert_eq!(untaken.status(), 200);
    key.get(path).await.refused(503, "OVERLOADED");
    key.get("/telemetry/usage-history?limit=1").await.is(200);
    drop(untaken);
    key.get(path).await.is(200);
}

#[tokio::test]
async fn both_listeners_serve_health_and_only_the_public_one_the_api() {
    let app = TestApp::new();
    for path in ["/health", "/health/live", "/health/ready"] {
        app.anonymous_at_operator_listener().root(path).await.is(200);
        app.anonymous().root(path).await.is(200);
    }
    app.anonymous_at_operator_listener().get("/tenants").await.refused(404, "ROUTE_NOT_FOUND");
}
