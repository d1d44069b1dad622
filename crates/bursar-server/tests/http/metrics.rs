//! The metrics, and who may read them.

use axum::http::Method;
use serde_json::json;

use crate::support::{METRICS_TOKEN, TestApp, record, reservation, with};

/// An id that does not exist.
const UNKNOWN: &str = "00000000-0000-8000-8000-000000000000";

/// The metrics as text.
async fn scrape(app: &TestApp) -> String {
    let answer = app.founder().root("/metrics").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    answer.body
}

/// Asserts that the metrics have this line.
#[track_caller]
fn check(metrics: &str, line: &str) {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    let family: Vec<&str> = metrics.lines().filter(|line| line.starts_with(name)).collect();
    assert!(family.contains(&line), "{line}\nis not among\n{}", family.join("\n"));
}

#[tokio::test]
async fn usage_is_counted_once_by_tenant_and_model() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    let cached = with(
        record(&id, "a"),
        json!({ "tokens_cache_read": 300, "tokens_cache_write": 20, "tokens_reasoning": 50 }),
    );
    let records = json!({ "records": [
        cached,
        cached,
        with(record(&id, "b"), json!({ "error_code": "timeout" })),
        with(record(&id, "c"), json!({ "policy_result": "blocked", "cost_cents": null })),
        with(record(&id, "d"), json!({ "model": "a \"quoted\\ mo\ndel" })),
        with(record(&id, "a"), json!({ "tokens_in": 1 })),
    ] });
    let answer = founder.post("/telemetry/llm-usage/batch").json(&records).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 4);
    founder
        .post("/telemetry/llm-usage")
        .json(&record(&id, "b"))
        .await
        .refused(409, "CALL_ID_CONFLICT");

    let metrics = scrape(&app).await;
    let labels = format!(r#"{{tenant_id="{}",provider="openai",model="gpt-4o"}}"#, tenant.id);
    check(&metrics, &format!("bursar_calls_total{labels} 3"));
    check(&metrics, &format!("bursar_calls_failed_total{labels} 1"));
    check(&metrics, &format!("bursar_calls_blocked_total{labels} 1"));
    check(&metrics, &format!("bursar_calls_unpriced_total{labels} 1"));
    check(&metrics, &format!("bursar_tokens_in_total{labels} 2400"));
    check(&metrics, &format!("bursar_tokens_out_total{labels} 600"));
    check(&metrics, &format!("bursar_tokens_cache_read_total{labels} 300"));
    check(&metrics, &format!("bursar_tokens_cache_write_total{labels} 20"));
    check(&metrics, &format!("bursar_tokens_reasoning_total{labels} 50"));
    check(&metrics, &format!("bursar_cost_nanodollars_total{labels} 25000000"));
    check(&metrics, r#"bursar_cost_by_source_nanodollars_total{cost_source="reported"} 37500000"#);
    let odd = labels.replace("gpt-4o", "a \\\"quoted\\\\ mo\u{fffd}del");
    check(&metrics, &format!("bursar_calls_total{odd} 1"));
    check(&metrics, r#"bursar_http_errors_total{code="CALL_ID_CONFLICT"} 1"#);
}

#[tokio::test]
async fn decisions_are_counted_by_result_and_first_reason() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 20 })).await;
    let founder = tenant.founder();
    let question = |cents: i64| json!({ "integration_id": id, "estimated_cost_cents": cents });
    founder.post("/enforcement/check").json(&question(1)).await.is(200);
    let batch = json!({ "requests": [question(21), question(22), { "integration_id": UNKNOWN }] });
    founder.post("/enforcement/batch").json(&batch).await.is(200);
    for call in ["a", "a", "b", "c"] {
        founder.post("/enforcement/reservations").json(&reservation(&id, call)).await;
    }
    let metrics = scrape(&app).await;
    let decided = |kind: &str, result: &str, reason: &str, count: u32| {
        let labels = format!(r#"kind="{kind}",reason="{reason}",result="{result}""#);
        check(&metrics, &format!("bursar_decisions_total{{{labels}}} {count}"));
    };
    decided("check", "allowed", "all_checks_passed", 1);
    decided("check", "blocked", "budget_exceeded", 2);
    decided("check", "hard_blocked", "integration_not_found", 1);
    decided("reservation", "blocked", "budget_exceeded", 1);
    // The second has a warning; the repetition of the first is no new decision.
    decided("reservation", "allowed", "all_checks_passed", 1);
    decided("reservation", "warned", "budget_warning", 1);
    check(&metrics, r#"bursar_reservation_changes_total{change="made"} 2"#);
}

#[tokio::test]
async fn requests_are_counted_by_route_template() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    founder.get(&format!("/integrations/{id}")).await.is(200);
    founder.get("/integrations/nonsense").await.refused(404, "INTEGRATION_NOT_FOUND");
    founder.delete("/enforcement/reservations/my-call").await.refused(404, "RESERVATION_NOT_FOUND");
    founder.get("/no/such/route?secret=1").await.refused(404, "ROUTE_NOT_FOUND");
    let odd = Method::from_bytes(b"BREW").unwrap();
    founder.request(odd, "/tenants").await.refused(405, "METHOD_NOT_ALLOWED");
    app.anonymous().get("/tenants").await.refused(401, "UNAUTHENTICATED");

    let metrics = scrape(&app).await;
    let counted = |method: &str, route: &str, status: u16| {
        let labels = format!(r#"method="{method}",route="{route}",status="{status}""#);
        check(&metrics, &format!("bursar_http_requests_total{{{labels}}} 1"));
    };
    counted("GET", "/api/v1/integrations/{id}", 200);
    counted("GET", "/api/v1/integrations/{id}", 404);
    counted("DELETE", "/api/v1/enforcement/reservations/{call_id}", 404);
    counted("GET", "none", 404);
    counted("other", "/api/v1/tenants", 405);
    counted("GET", "/api/v1/tenants", 401);
    check(&metrics, r#"bursar_http_errors_total{code="UNAUTHENTICATED"} 1"#);
    check(&metrics, r#"bursar_http_request_seconds_count{route="/api/v1/integrations/{id}"} 2"#);
    // The scrape itself is in flight.
    check(&metrics, "bursar_http_requests_in_flight 1");
    for outside in [id.as_str(), "nonsense", "my-call", "such", "secret", "BREW"] {
        assert!(!metrics.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn store_metrics_come_from_the_database() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let limits = json!({ "budget_limit_cents": 40, "token_limit_month": 4000 });
    let hot = tenant.integration("hot", limits).await;
    tenant.integration("unlimited", json!({})).await;
    let founder = tenant.founder();
    for call in ["a", "b"] {
        founder.post("/enforcement/reservations").json(&reservation(&hot, call)).await.is(201);
    }
    founder.post("/telemetry/llm-usage").json(&record(&hot, "a")).await.is(201);
    let metrics = scrape(&app).await;
    assert!(!metrics.contains("bursar_budget_used_ratio"), "nothing was read yet");

    app.read_store_stats().await;
    let metrics = scrape(&app).await;
    let labels = format!(r#"{{integration_id="{hot}",tenant_id="{}"}}"#, tenant.id);
    // Used 1.25 and held 10 of 40 cents; used 1,000 and held 1,000 of 4,000 tokens.
    check(&metrics, &format!("bursar_budget_used_ratio{labels} 0.28125"));
    check(&metrics, &format!("bursar_tokens_used_ratio{labels} 0.5"));
    assert_eq!(metrics.matches("\nbursar_budget_used_ratio{").count(), 1);
    check(&metrics, "bursar_reservations_open 1");
    check(&metrics, "bursar_tenants 1");
    assert!(metrics.contains(r#"bursar_database_bytes{file="data"}"#));

    // A deleted integration is not shown.
    founder.delete(&format!("/integrations/{hot}")).await.is(200);
    app.read_store_stats().await;
    assert!(!scrape(&app).await.contains(&hot));
}

#[tokio::test]
async fn metrics_cover_the_writer_and_the_process() {
    let app = TestApp::new();
    app.tenant("t").await;
    let metrics = scrape(&app).await;
    check(&metrics, "bursar_commit_seconds_count 1");
    check(&metrics, "bursar_transaction_seconds_count 1");
    check(&metrics, "bursar_group_commands_sum 1");
    check(&metrics, "bursar_queue_wait_seconds_count 1");
    check(&metrics, "bursar_queue_commands 0");
    check(&metrics, "bursar_queue_limit_bytes 25165824");
    let version = env!("CARGO_PKG_VERSION");
    check(&metrics, &format!(r#"bursar_build_info{{version="{version}"}} 1"#));
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
    {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        let value: f64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        assert!(value > 0.0, "{name}");
    }
}

#[tokio::test]
async fn the_metrics_token_opens_only_the_metrics() {
    let app = TestApp::new();
    let scraper = app.anonymous().with("authorization", &format!("Bearer {METRICS_TOKEN}"));
    assert_eq!(scraper.root("/metrics").await.status.as_u16(), 200);
    scraper.get("/tenants").await.refused(401, "UNAUTHENTICATED");
    // Two credentials are ambiguous here too.
    let both = scraper.clone().with("x-aos-key", "another");
    both.root("/metrics").await.refused(400, "AMBIGUOUS_CREDENTIALS");
    let wrong = app.anonymous().with("authorization", &format!("Bearer {METRICS_TOKEN}x"));
    wrong.root("/metrics").await.refused(401, "UNAUTHENTICATED");
    let as_key = app.anonymous().with("x-aos-key", METRICS_TOKEN);
    as_key.root("/metrics").await.refused(401, "UNAUTHENTICATED");
    let metrics = scrape(&app).await;
    assert!(!metrics.contains(METRICS_TOKEN));
}

/// A scrape larger than the memory of responses could never be sent.
#[tokio::test]
async fn metrics_stay_available_with_many_long_model_names() {
    let app = TestApp::new();
    for number in 0..7 {
        let tenant = app.tenant(&format!("t {number}")).await;
        let id = tenant.integration("i", json!({})).await;
        let records: Vec<_> = (0..400)
            .map(|model| {
                let names = json!({
                    "provider": "\u{1f4b8}".repeat(50),
                    "model": format!("{}{model:04}", "\u{1f4b8}".repeat(96)),
                    "error_code": "e",
                    "tokens_cache_read": 3,
                    "tokens_cache_write": 2,
                    "tokens_reasoning": 1,
                });
                with(record(&id, &format!("call {model}")), names)
            })
            .collect();
        let batch = json!({ "records": records });
        let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
        assert_eq!(answer.is(200).at("/data/accepted"), 400, "{}", answer.at("/data/results/0"));
    }
    let metrics = scrape(&app).await;
    assert!(metrics.len() < 8 * 1_024 * 1_024, "{} bytes", metrics.len());
    let counted = |line: &&str| line.starts_with("bursar_calls_total{");
    let calls = metrics.lines().filter(counted).filter_map(|line| line.rsplit(' ').next());
    let calls: u64 = calls.map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!(calls, 7 * 400, "none is lost");
    let others = r#"provider="other",model="other"} "#;
    assert_eq!(metrics.lines().filter(counted).filter(|line| line.contains(others)).count(), 7);
    check(&metrics, r#"bursar_series_left_out{metric="bursar_calls_total"} 0"#);
    // More than the share of response memory for requests without a tenant.
    let second = scrape(&app).await;
    assert_eq!(second.lines().filter(counted).count(), metrics.lines().filter(counted).count());
}

#[tokio::test]
async fn the_operator_can_clear_label_sets() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let id = tenant.integration("i", json!({})).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "a")).await.is(201);
    check(&scrape(&app).await, "bursar_label_sets 1");
    let cleared = app.founder().root("/fdr/caches/label-sets").method(Method::DELETE).await;
    assert_eq!(cleared.is(200).at("/data/cleared"), 1);
    let metrics = scrape(&app).await;
    check(&metrics, "bursar_label_sets 0");
    check(&metrics, r#"bursar_label_sets_forgotten_total{reason="cleared"} 1"#);
    assert!(!metrics.contains("bursar_calls_total{"));
}
