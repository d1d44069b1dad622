//! Requests of the attacker as bytes.

use std::fmt::Write as _;

/// A request without a body.
pub(crate) fn get(path: &str, bearer: &str) -> Vec<u8> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: bursar\r\nAuthorization: {bearer}\r\n\r\n");
    head.into_bytes()
}

/// A POST request with JSON.
pub(crate) fn post(path: &str, bearer: &str, body: &str) -> Vec<u8> {
    with_body("POST", path, bearer, "", body.as_bytes())
}

/// A request with a body and further header lines.
pub(crate) fn with_body(
    method: &str,
    path: &str,
    bearer: &str,
    more: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut head = String::new();
    write!(
        head,
        "{method} {path} HTTP/1.1\r\nHost: bursar\r\nAuthorization: {bearer}\r\n{more}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .expect("written to a text");
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

/// The route of single records.
pub(crate) const ONE: &str = "/api/v1/telemetry/llm-usage";
/// The batch route.
pub(crate) const BATCH: &str = "/api/v1/telemetry/llm-usage/batch";

/// A usage record. `more` has further fields, each after a comma.
pub(crate) fn record(integration: &str, call_id: &str, model: &str, more: &str) -> String {
    format!(
        "{{\"integration_id\":\"{integration}\",\"call_id\":\"{call_id}\",\"provider\":\"openai\",\
         \"model\":\"{model}\",\"tokens_in\":700,\"tokens_out\":200,\"cost_cents\":0.25{more}}}"
    )
}

/// The body of a batch.
pub(crate) fn batch(records: &[String]) -> String {
    format!("{{\"records\":[{}]}}", records.join(","))
}
