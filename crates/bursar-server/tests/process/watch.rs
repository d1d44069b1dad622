//! What a running server tells those who watch it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::folder::Folder;
use crate::support::http::Http;
use crate::support::server::Server;
use crate::support::tenant::Tenant;
use crate::support::within;

const METRICS_TOKEN: &str = "only for the metrics";

/// Scrapes until the metrics have a line that begins like this, and gives the line.
#[track_caller]
fn scraped(server: &Server, beginning: &str) -> String {
    let bearer = format!("Bearer {METRICS_TOKEN}");
    let mut http = Http::new(server.address(), &[("Authorization", &bearer)]);
    let found = within(Duration::from_secs(10), || {
        let answer = http.get("/metrics").ok()?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.body.as_str()?;
        text.lines().find(|line| line.starts_with(beginning)).map(str::to_owned)
    });
    found.unwrap_or_else(|| panic!("no {beginning} in the metrics"))
}

#[test]
fn a_budget_that_is_used_up_is_told_right_after_a_restart() {
    let mut folder = Folder::new();
    folder.set("BURSAR_METRICS_TOKEN", METRICS_TOKEN);
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration_id = tenant.add_integration(&server, 100);
    let record = json!({
        "integration_id": integration_id, "call_id": "call", "provider": "openai", "model": "gpt",
        "tokens_in": 1, "tokens_out": 1, "cost_cents": 150,
    });
    let answer = tenant.client(&server).post("/api/v1/telemetry/llm-usage", &record);
    assert_eq!(answer.expect("an answer").status, 201);
    assert!(scraped(&server, "bursar_calls_total").ends_with(" 1"));
    server.stop();

    let server = Server::start(&folder);
    let line = scraped(&server, "bursar_budget_used_ratio");
    assert!(line.contains(&integration_id) && line.ends_with(" 1.5"), "{line}");
    server.stop();
}

#[test]
fn the_log_is_json_and_tells_routes_and_ids_and_no_secret() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "info,bursar::http=debug");
    folder.set("BURSAR_LOG_FORMAT", "json");
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let named = [
        ("X-AOS-Key", "not-a-key-of-anyone"),
        ("X-Request-ID", "the-request"),
        ("traceparent", &format!("00-{trace}-b7ad6b7169203331-01")),
    ];
    let mut http = Http::new(server.address(), &named);
    let answer = http.get("/api/v1/integrations/not-an-id?name=not-a-name");
    assert_eq!(answer.expect("an answer").status, 401);
    let token = folder.operator_token();
    server.stop();

    let log = folder.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_request: Vec<&Value> =
        lines.iter().filter(|line| line.get("request_id") == Some(&json!("the-request"))).collect();
    let [line] = of_request.as_slice() else { panic!("{of_request:?}") };
    for (field, value) in [
        ("level", json!("DEBUG")),
        ("target", json!("bursar::http")),
        ("method", json!("GET")),
        ("route", json!("/api/v1/integrations/{id}")),
        ("status", json!(401)),
        ("trace_id", json!(trace)),
    ] {
        assert_eq!(line.get(field), Some(&value), "{line}");
    }
    assert!(line.get("latency_ms").is_some_and(Value::is_f64), "{line}");
    let api_key = tenant.bearer.trim_start_matches("Bearer ");
    for secret in [token.as_str(), "not-a-key", "not-an-id", "not-a-name", api_key] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_refusal_of_protection_is_one_event_in_the_log() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "info");
    folder.set("BURSAR_LOG_FORMAT", "json");
    folder.set("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1");
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration_id = tenant.add_integration(&server, 100);
    let mut http = tenant.client(&server);
    let record = json!({
        "integration_id": integration_id, "call_id": "call", "provider": "openai", "model": "gpt",
        "tokens_in": 1, "tokens_out": 1,
    });
    let accepted = http.post("/api/v1/telemetry/llm-usage", &record).expect("an answer");
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let path = format!("/api/v1/integrations/{integration_id}");
    let integration = http.get(&path).expect("an answer");
    assert_eq!(integration.status, 200, "{integration:?}");
    let refused = http.get(&path).expect("an answer");
    assert_eq!((refused.status, refused.code()), (429, "RATE_LIMITED"), "{refused:?}");
    server.stop();

    let log = folder.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let is_told = |line: &&Value| line.get("event").is_some();
    let told: Vec<&Value> = lines.iter().filter(is_told).collect();
    let [line] = told.as_slice() else { panic!("{told:?}") };
    for (field, value) in [
        ("level", json!("WARN")),
        ("target", json!("bursar::protection")),
        ("event", json!("abuse_protection_triggered")),
        ("tenant_id", integration.data("tenant_id").clone()),
        ("dimension", json!("rate")),
        ("action", json!("reject")),
        ("endpoint", json!("/api/v1/integrations/{id}")),
        ("operation", json!("GET")),
        ("current_value", json!(1)),
        ("allowed_value", json!(1)),
    ] {
        assert_eq!(line.get(field), Some(&value), "{line}");
    }
    assert!(line.get("timestamp").is_some() && line.get("anomaly").is_none(), "{line}");
    assert!(line.get("retry_after_ms").is_some_and(Value::is_i64), "{line}");
    assert!(!log.contains(&path), "a path with an id is in the log");
}
