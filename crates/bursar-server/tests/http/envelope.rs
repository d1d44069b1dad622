//! The envelope of every response, and requests that match no route.

use axum::http::Method;
use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn a_valid_request_id_is_kept_and_an_invalid_one_replaced() {
    let app = TestApp::new();
    let long = "x".repeat(128);
    for sane in ["a", "req-1.2:3_4", "4bf92f3577b34da6a3ce929d0e0e4736", &long] {
        for path in ["/tenants", "/nothing"] {
            let answer = app.founder().get(path).header("x-request-id", sane).await;
            assert_eq!(answer.headers["x-request-id"], sane);
            assert_eq!(answer.text("/meta/request_id"), sane);
        }
    }
    for other in ["", " ", "a b", "a\"b", "<script>", "a/b", "ä", &format!("{long}x")] {
        let answer = app.founder().get("/tenants").header("x-request-id", other).await;
        assert!(answer.is(200).text("/meta/request_id").starts_with("req-"), "{other}");
    }
}

#[tokio::test]
async fn generated_request_ids_are_unique() {
    let app = TestApp::new();
    let first = app.founder().get("/tenants").await;
    let second = app.anonymous().get("/tenants").await;
    assert_ne!(first.is(200).text("/meta/request_id"), second.is(401).text("/meta/request_id"));
}

#[tokio::test]
async fn a_failure_has_the_envelope() {
    let app = TestApp::new();
    let refused = app.founder().post("/tenants").json(&json!({ "name": "" })).await;
    insta::assert_json_snapshot!(refused.is(422).redacted(), @r#"
    {
      "data": null,
      "error": {
        "code": "INVALID_FIELD",
        "field": "name",
        "message": "name must not be empty"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": false
    }
    "#);
    let refused = app.anonymous().get("/tenants").await;
    insta::assert_json_snapshot!(refused.is(401).redacted(), @r#"
    {
      "data": null,
      "error": {
        "code": "UNAUTHENTICATED",
        "message": "The credential is missing, wrong, expired or revoked."
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": false
    }
    "#);
}

#[tokio::test]
async fn an_unknown_path_is_404() {
    let app = TestApp::new();
    for path in
        ["", "/", "/nothing", "/tenants/", "/integrations/a/b/c", "/../tenants", "//tenants"]
    {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = app.founder().request(method, path).await;
            answer.refused(404, "ROUTE_NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn an_unsupported_method_is_405_with_an_allow_header() {
    let app = TestApp::new();
    for (method, path, allowed) in [
        (Method::DELETE, "/tenants", &["GET", "POST"][..]),
        (Method::GET, "/telemetry/llm-usage", &["POST"]),
        (Method::PUT, "/telemetry/llm-usage/batch", &["POST"]),
        (Method::POST, "/telemetry/usage-summary", &["GET"]),
        (Method::POST, "/integrations/x", &["GET", "PUT", "PATCH", "DELETE"]),
        (Method::GET, "/integrations/x/enable", &["POST"]),
        (Method::GET, "/enforcement/reservations/x", &["DELETE"]),
        (Method::OPTIONS, "/keys", &["GET", "POST"]),
    ] {
        let answer = app.founder().request(method, path).await;
        answer.refused(405, "METHOD_NOT_ALLOWED");
        let allow = answer.headers["allow"].to_str().unwrap();
        for method in allowed {
            assert!(allow.contains(method), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn health_needs_no_credential() {
    let anonymous = TestApp::new().anonymous();
    for (path, status) in
        [("/health", "ready"), ("/health/live", "live"), ("/health/ready", "ready")]
    {
        assert_eq!(anonymous.root(path).await.is(200).at("/data/status"), status);
    }
}
