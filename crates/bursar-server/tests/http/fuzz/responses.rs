//! What every response must fulfil.

use axum::http::Method;
use bursar_server::credentials::raw_key::contains_key;
use bursar_server::wire::error_code::ErrorCode;

use crate::fuzz::server::{METRICS_TOKEN, OPERATOR_TOKEN, Reply, SECRET_KEY};

/// A secret in credential references and configurations, which no response may contain.
pub(crate) const HIDDEN: &str = "Q7zX1kP0w";

/// Asserts that a response is documented and contains no secret.
#[track_caller]
pub(crate) fn check_response(method: &Method, path: &str, reply: &Reply) {
    let status = reply.status.as_u16();
    assert!(status < 500, "{method} {path}: {status} {}", reply.body);
    let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
    let request_id = header("x-request-id").expect("a request id");
    assert!((1..=128).contains(&request_id.len()), "{request_id}");
    assert_eq!(header("x-content-type-options"), Some("nosniff"));
    assert_eq!(header("cache-control"), Some("no-store"));
    for secret in [OPERATOR_TOKEN, METRICS_TOKEN, SECRET_KEY, HIDDEN] {
        assert!(!reply.body.contains(secret), "{method} {path}: {}", reply.body);
    }
    if *method == Method::HEAD {
        return assert_eq!(reply.body, "");
    }
    if header("content-type") != Some("application/json") {
        assert!(status == 200 && is_no_json(path), "{method} {path}: {status} {}", reply.body);
        return;
    }
    let success = (200..300).contains(&status);
    let at = |pointer: &str| reply.json.pointer(pointer);
    assert_eq!(
        at("/success").and_then(serde_json::Value::as_bool),
        Some(success),
        "{}",
        reply.body
    );
    assert_eq!(at("/data").is_some_and(serde_json::Value::is_null), !success, "{}", reply.body);
    assert_eq!(at("/meta/request_id").and_then(serde_json::Value::as_str), Some(request_id));
    assert!(at("/meta/timestamp").is_some());
    let code = at("/error/code").and_then(serde_json::Value::as_str);
    assert_eq!(code.is_none(), success, "{}", reply.body);
    if let Some(code) = code {
        let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code).expect("known");
        assert_eq!(known.status(), reply.status);
        assert!(at("/error/message").and_then(serde_json::Value::as_str) != Some(""));
        assert!(!contains_key(&reply.body), "{method} {path}: {}", reply.body);
        assert_eq!(header("www-authenticate").is_some(), status == 401);
    }
}

/// Whether a successful response of the route is not JSON.
fn is_no_json(path: &str) -> bool {
    path.starts_with("/metrics") || path.starts_with("/api/v1/telemetry/export")
}
