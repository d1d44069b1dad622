//! Protection over HTTP: each threshold at its limit, what is never refused, and the operator's
//! overrides and signals.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{ApiResponse, Client, Tenant, TestApp, record, reservation, with};

const PER_MINUTE: &str = "BURSAR_PROTECTION_REQUESTS_PER_MINUTE";
const PER_SECOND: &str = "BURSAR_PROTECTION_REQUESTS_PER_SECOND";
const TRAFFIC_PER_MINUTE: &str = "BURSAR_PROTECTION_TRAFFIC_PER_MINUTE";
const TRAFFIC_PER_SECOND: &str = "BURSAR_PROTECTION_TRAFFIC_PER_SECOND";
const COST: &str = "BURSAR_PROTECTION_COST_CENTS_DAY";
const FLOOR: &str = "BURSAR_PROTECTION_ANOMALY_FLOOR";

/// A tenant after onboarding, with an integration. Its setup requests have left all windows.
async fn onboarded(app: &TestApp) -> (Tenant, String) {
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let first = with(record(&id, "first"), json!({ "cost_cents": 0 }));
    tenant.founder().post("/telemetry/llm-usage").json(&first).await.is(201);
    app.clock.advance_monotonic(600);
    (tenant, id)
}

/// Asserts a refusal with these details and a matching `Retry-After`.
#[track_caller]
fn check_refused(
    answer: &ApiResponse,
    status: u16,
    code: &str,
    (dimension, details): (&str, [i64; 3]),
) {
    let [retry_after_ms, current_value, allowed_value] = details;
    let expected = json!({
        "dimension": dimension,
        "retry_after_ms": retry_after_ms,
        "current_value": current_value,
        "allowed_value": allowed_value,
    });
    assert_eq!(*answer.refused(status, code).at("/error/details"), expected);
    let seconds = (retry_after_ms + 999) / 1_000;
    assert_eq!(answer.headers["retry-after"], seconds.to_string());
}

async fn usage(client: &Client, id: &str, call_id: &str) -> ApiResponse {
    client.post("/telemetry/llm-usage").json(&record(id, call_id)).await
}

async fn batch(client: &Client, id: &str, call_ids: &[&str]) -> ApiResponse {
    let records: Vec<Value> = call_ids.iter().map(|call_id| record(id, call_id)).collect();
    client.post("/telemetry/llm-usage/batch").json(&json!({ "records": records })).await
}

async fn reserve(client: &Client, id: &str, call_id: &str) -> ApiResponse {
    client.post("/enforcement/reservations").json(&reservation(id, call_id)).await
}

async fn check(client: &Client, id: &str) -> ApiResponse {
    client.post("/enforcement/check").json(&json!({ "integration_id": id })).await
}

async fn total_calls(tenant: &Tenant) -> Value {
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    summary.is(200).at("/data/total_calls").clone()
}

fn overriding(tenant: &Tenant, changes: Value) -> Value {
    let base = json!({
        "tenant_id": tenant.id,
        "dimension": "rate",
        "allowed_value": 5,
        "expires_at": "2026-03-14T09:40:00Z",
        "reason": "a launch that we agreed on",
    });
    with(base, changes)
}

async fn signals(app: &TestApp, tenant: &Tenant) -> ApiResponse {
    app.tick().await;
    app.founder().root(&format!("/fdr/abuse/signals/{}", tenant.id)).await
}

#[tokio::test]
async fn a_route_is_limited_per_minute_until_requests_leave_the_window() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "3")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["integrations:read"]).await;
    for seconds in [0, 10, 0] {
        app.clock.advance(seconds);
        key.get("/integrations").await.is(200);
    }
    let full = |ms| ("rate", [ms, 3, 3]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full(50_000));
    app.clock.advance(49);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full(1_000));
    // A repeated request is admitted when the first leaves the window; others are unaffected.
    app.clock.advance(1);
    key.get("/integrations").await.is(200);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full(10_000));
    key.get(&format!("/integrations/{}", tenant.id)).await.refused(404, "INTEGRATION_NOT_FOUND");
    onboarded(&app).await.0.founder().get("/integrations").await.is(200);
}

#[tokio::test]
async fn clearing_the_windows_of_a_tenant_resets_only_that_tenant() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "3")]);
    let tenants = [onboarded(&app).await.0, onboarded(&app).await.0];
    let keys = [tenants[0].key(&["*"]).await, tenants[1].key(&["*"]).await];
    for key in &keys {
        for _ in 0..3 {
            key.get("/integrations").await.is(200);
        }
        key.get("/integrations").await.refused(429, "RATE_LIMITED");
    }
    let path = format!("/fdr/caches/protection-windows?tenant_id={}", tenants[0].id);
    app.founder().root(&path).method(Method::DELETE).await.is(200);
    for _ in 0..3 {
        keys[0].get("/integrations").await.is(200);
    }
    for key in &keys {
        key.get("/integrations").await.refused(429, "RATE_LIMITED");
    }
}

#[tokio::test]
async fn all_routes_of_a_class_share_a_limit_per_second() {
    let settings = [(PER_SECOND, "3"), (TRAFFIC_PER_SECOND, "2")];
    let app = TestApp::with_settings(&settings);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(1);
    for path in ["/integrations", "/telemetry/usage-summary", "/session/context"] {
        key.get(path).await.is(200);
    }
    let full = ("burst", [1_000, 3, 3]);
    check_refused(&key.get("/keys").await, 503, "THROTTLED", full);
    // Traffic has its own limit per second.
    for call_id in ["a", "b"] {
        usage(&key, &id, call_id).await.is(201);
    }
    let full = ("burst", [1_000, 2, 2]);
    check_refused(&usage(&key, &id, "c").await, 503, "THROTTLED", full);
    check_refused(&check(&key, &id).await, 503, "THROTTLED", full);
    app.clock.advance(1);
    key.get("/keys").await.is(200);
    usage(&key, &id, "c").await.is(201);
}

#[tokio::test]
async fn the_daily_cost_limit_applies_at_exactly_its_amount_and_resets_at_midnight() {
    let app = TestApp::with_settings(&[(COST, "10")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    let other = tenant.integration("other", json!({})).await;
    reserve(&key, &id, "held").await.is(201);
    reserve(&key, &id, "kept").await.is(201);
    let spend = async |call_id, cents: f64| {
        let spent = with(record(&other, call_id), json!({ "cost_cents": cents }));
        key.post("/telemetry/llm-usage").json(&spent).await.is(201);
        // The cost that was read is cached for a second.
        app.clock.advance(1);
    };
    spend("most", 9.999_999_9).await;
    check(&key, &id).await.is(200);
    spend("rest", 0.000_000_1).await;
    // It is 9:26:55, and the limit is the tenant's, not an integration's.
    let until_midnight = (24 * 3_600 - (9 * 3_600 + 26 * 60 + 55)) * 1_000;
    let full = ("cost", [until_midnight, 10, 10]);
    check_refused(&check(&key, &id).await, 429, "COST_LIMIT_EXCEEDED", full);
    let question = json!({ "requests": [{ "integration_id": id }] });
    let answer = key.post("/enforcement/batch").json(&question).await;
    check_refused(&answer, 429, "COST_LIMIT_EXCEEDED", full);
    check_refused(&reserve(&key, &id, "more").await, 429, "COST_LIMIT_EXCEEDED", full);
    // Records, reads and existing holds are not affected.
    usage(&key, &id, "a fact").await.is(201);
    key.get(&format!("/enforcement/status?integration_id={id}")).await.is(200);
    key.post("/enforcement/reservations/kept/extend").await.is(200);
    key.delete("/enforcement/reservations/held").await.is(200);
    app.clock.set((2026, 3, 15), 0);
    check(&key, &id).await.is(200);
}

#[tokio::test]
async fn ten_times_the_usual_traffic_is_one_anomaly_signal_and_refuses_nothing() {
    let app = TestApp::with_settings(&[(FLOOR, "2")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["integrations:read"]).await;
    for _ in 0..30 {
        key.get("/integrations").await.is(200);
    }
    let shown = signals(&app, &tenant).await;
    let found = &shown.is(200).data()["signals"];
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found[0]["dimension"], "anomaly");
    assert_eq!(found[0]["action"], "warn");
    // The operator's request that created the key counts for the tenant.
    assert_eq!([&found[0]["current_value"], &found[0]["allowed_value"]], [20, 20]);
    assert_eq!([&found[0]["count"], &found[0]["retry_after_ms"]], [1, 0]);
}

#[tokio::test]
async fn a_tenant_in_onboarding_has_ten_times_the_thresholds() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (PER_SECOND, "2"), (COST, "1")]);
    let tenant = app.tenant("new").await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance_monotonic(60);
    for _ in 0..10 {
        key.get("/integrations").await.is(200);
    }
    let full = ("rate", [60_000, 10, 10]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    for _ in 0..10 {
        key.get("/session/context").await.is(200);
    }
    let full = ("burst", [1_000, 20, 20]);
    check_refused(&key.get("/keys").await, 503, "THROTTLED", full);
    // An override is absolute.
    let absolute = overriding(&tenant, json!({ "allowed_value": 11 }));
    app.founder().root_post("/fdr/abuse/override", &absolute).await.is(201);
    app.clock.advance_monotonic(1);
    key.get("/integrations").await.is(200);
    let full = ("rate", [59_000, 11, 11]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    tenant.founder().get("/integrations").await.is(200);
}

#[tokio::test]
async fn finalizing_onboarding_is_exempt() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (TRAFFIC_PER_MINUTE, "1")]);
    let (tenant, _) = onboarded(&app).await;
    for _ in 0..5 {
        tenant.founder().post("/onboarding/finalize").await.is(200);
    }
    let key = tenant.key(&["*"]).await;
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    key.get("/session/context").await.is(200);
    key.get("/session/context").await.refused(429, "RATE_LIMITED");
}

#[tokio::test]
async fn a_stopped_or_jumping_clock_extends_no_window() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "5"), (TRAFFIC_PER_MINUTE, "5")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    // A jump of an hour and back: the time stands for that hour, because it never goes back.
    app.clock.jump(3_600);
    key.get("/integrations").await.is(200);
    app.clock.jump(-3_600);
    for minute in 0..10 {
        for number in 0..4 {
            key.get("/integrations").await.is(200);
            usage(&key, &id, &format!("{minute}-{number}")).await.is(201);
        }
        app.clock.advance_monotonic(60);
    }
    // A refused request is admitted after its `Retry-After`.
    for _ in 0..5 {
        key.get("/integrations").await.is(200);
    }
    app.clock.advance_monotonic(13);
    let full = ("rate", [47_000, 5, 5]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    app.clock.advance_monotonic(47);
    key.get("/integrations").await.is(200);
}

#[tokio::test]
async fn the_cached_daily_cost_expires_while_the_clock_stands() {
    let app = TestApp::with_settings(&[(COST, "10")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    check(&key, &id).await.is(200);
    let spent = with(record(&id, "spent"), json!({ "cost_cents": 10 }));
    key.post("/telemetry/llm-usage").json(&spent).await.is(201);
    app.clock.advance_monotonic(1);
    check(&key, &id).await.refused(429, "COST_LIMIT_EXCEEDED");
    // The cost of another day is read at once, even within the same second.
    app.clock.jump(24 * 3_600);
    let confirm = app.founder().root("/fdr/clock/confirm").method(axum::http::Method::POST);
    confirm.await.is(200);
    check(&key, &id).await.is(200);
}

#[tokio::test]
async fn signals_have_a_row_per_minute_while_the_clock_stands() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    for _ in 0..2 {
        key.get("/integrations").await.is(200);
        key.get("/integrations").await.refused(429, "RATE_LIMITED");
        app.tick().await;
        app.clock.advance_monotonic(60);
    }
    let shown = signals(&app, &tenant).await;
    assert_eq!(shown.is(200).data()["signals"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn requests_with_an_integration_key_count_against_that_integration_alone() {
    let settings = [(PER_SECOND, "2"), (PER_MINUTE, "3"), (TRAFFIC_PER_SECOND, "2")];
    let app = TestApp::with_settings(&settings);
    let (tenant, id) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let (loud, quiet) = (tenant.integration_key(&id).await, tenant.integration_key(&other).await);
    let key = tenant.key(&["*"]).await;
    app.clock.advance_monotonic(60);
    let limits = format!("/integrations/{id}/limits");
    for path in [&limits, "/session/context"] {
        loud.get(path).await.is(200);
    }
    let full = ("burst", [1_000, 2, 2]);
    check_refused(&loud.get(&limits).await, 503, "THROTTLED", full);
    for call_id in ["a", "b"] {
        usage(&loud, &id, call_id).await.is(201);
    }
    check_refused(&usage(&loud, &id, "c").await, 503, "THROTTLED", full);
    check_refused(&check(&loud, &id).await, 503, "THROTTLED", full);
    // Its tenant and the other integrations have their own windows.
    for path in [&limits, "/integrations"] {
        key.get(path).await.is(200);
    }
    check_refused(&key.get("/integrations").await, 503, "THROTTLED", full);
    for call_id in ["d", "e"] {
        usage(&key, &id, call_id).await.is(201);
        usage(&quiet, &other, &format!("quiet {call_id}")).await.is(201);
    }
    check_refused(&usage(&quiet, &other, "f").await, 503, "THROTTLED", full);
    // So is the limit of a route per minute.
    for _ in 0..2 {
        app.clock.advance_monotonic(1);
        loud.get(&limits).await.is(200);
    }
    let full = ("rate", [58_000, 3, 3]);
    check_refused(&loud.get(&limits).await, 429, "RATE_LIMITED", full);
    key.get(&limits).await.is(200);
}

#[tokio::test]
async fn a_tenant_over_its_thresholds_can_still_revoke_keys_and_disable_integrations() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (PER_SECOND, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let made = tenant.founder().post(&format!("/integrations/{id}/keys")).await;
    let key_id = made.is(201).text("/data/id").to_owned();
    let known = tenant.founder().post("/keys").json(&json!({ "name": "n", "scopes": ["*"] })).await;
    let api_key_id = known.is(201).text("/data/id").to_owned();
    let key = tenant.key(&["*"]).await;
    app.clock.advance_monotonic(60);
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    key.get("/keys").await.refused(503, "THROTTLED");
    for _ in 0..3 {
        key.delete(&format!("/integrations/{id}/keys/{key_id}")).await.is(200);
        key.post(&format!("/integrations/{id}/disable")).await.is(200);
        key.delete(&format!("/keys/{api_key_id}")).await.is(200);
    }
    for integration in [&id, &other] {
        key.delete(&format!("/integrations/{integration}")).await.is(200);
    }
    key.post(&format!("/integrations/{id}/enable")).await.refused(503, "THROTTLED");
}

#[tokio::test]
async fn a_throttled_client_that_retries_loses_nothing() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_MINUTE, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for call_id in ["held-1", "held-2"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    for call_id in ["a", "b"] {
        usage(&key, &id, call_id).await.is(201);
        batch(&key, &id, &[&format!("{call_id}-1"), &format!("{call_id}-2")]).await.is(200);
    }
    // Beyond the threshold only settling records and repetitions are accepted.
    let full = |current| ("rate", [60_000, current, 2]);
    check_refused(&usage(&key, &id, "c").await, 429, "RATE_LIMITED", full(2));
    usage(&key, &id, "held-1").await.is(201);
    check_refused(&usage(&key, &id, "c").await, 429, "RATE_LIMITED", full(3));
    check_refused(&batch(&key, &id, &["d", "e"]).await, 429, "RATE_LIMITED", full(2));
    let mixed = ["d", "held-2", "e"];
    let answer = batch(&key, &id, &mixed).await;
    let counts = ["accepted", "errors", "total"].map(|name| answer.is(200).data()[name].clone());
    assert_eq!(counts, [1, 2, 3], "{}", answer.body);
    let statuses: Vec<&str> =
        (0..3).map(|at| answer.text(&format!("/data/results/{at}/status"))).collect();
    assert_eq!(statuses, ["error", "accepted", "error"]);
    assert_eq!(answer.text("/data/results/0/error/code"), "RATE_LIMITED");
    assert_eq!(answer.text("/data/results/2/error/details/dimension"), "rate");
    assert_eq!(total_calls(&tenant).await, 1 + 6 + 2);
    // The client repeats everything with the same call ids.
    app.clock.advance(60);
    usage(&key, &id, "c").await.is(201);
    usage(&key, &id, "held-1").await.is(200);
    let answer = batch(&key, &id, &mixed).await;
    let counts =
        ["accepted", "duplicates", "errors"].map(|name| answer.is(200).data()[name].clone());
    assert_eq!(counts, [2, 1, 0], "{}", answer.body);
    assert_eq!(total_calls(&tenant).await, 1 + 6 + 2 + 3);
    let open = key.get("/enforcement/reservations").await;
    assert_eq!(open.is(200).at("/meta/total"), 0);
}

#[tokio::test]
async fn beyond_a_threshold_a_stored_record_is_still_a_duplicate() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_MINUTE, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for call_id in ["held", "released"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    key.delete("/enforcement/reservations/released").await.is(200);
    for call_id in ["a", "b"] {
        usage(&key, &id, call_id).await.is(201);
        batch(&key, &id, &[&format!("{call_id}-1")]).await.is(200);
    }
    usage(&key, &id, "new").await.refused(429, "RATE_LIMITED");
    // The response was lost, and the client repeats its record.
    for (call_id, status) in [("held", 201), ("held", 200), ("released", 201), ("a", 200)] {
        let answer = usage(&key, &id, call_id).await;
        let word = if status == 201 { "accepted" } else { "duplicate" };
        assert_eq!(answer.is(status).text("/data/status"), word, "{call_id}");
    }
    let changed = with(record(&id, "a"), json!({ "model": "other" }));
    let answer = key.post("/telemetry/llm-usage").json(&changed).await;
    answer.refused(409, "CALL_ID_CONFLICT");
    let records = json!({ "records": [record(&id, "b"), record(&id, "new"), changed] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&records).await;
    let status = |at: usize| answer.text(&format!("/data/results/{at}/status"));
    assert_eq!([status(0), status(1), status(2)], ["duplicate", "error", "conflict"]);
    assert_eq!(answer.is(200).text("/data/results/1/error/code"), "RATE_LIMITED");
    // A batch without a stored record is refused as a whole with `Retry-After`.
    let full = ("rate", [60_000, 3, 2]);
    check_refused(&batch(&key, &id, &["new", "newer"]).await, 429, "RATE_LIMITED", full);
    assert_eq!(total_calls(&tenant).await, 1 + 4 + 2);
}

#[tokio::test]
async fn beyond_a_threshold_an_invalid_record_of_a_batch_still_gets_its_error() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_SECOND, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(1);
    reserve(&key, &id, "held").await.is(201);
    let wrong = with(record(&id, "wrong"), json!({ "tokens_in": -1 }));
    let records = json!({ "records": [wrong, record(&id, "held"), record(&id, "new")] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&records).await;
    let code = |at: usize| answer.at(&format!("/data/results/{at}/error/code")).clone();
    assert_eq!(
        [code(0), code(1), code(2)],
        [json!("INVALID_FIELD"), Value::Null, "THROTTLED".into()]
    );
    assert_eq!(answer.is(200).data()["accepted"], 1);
    let only_wrong = json!({ "records": [wrong] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&only_wrong).await;
    answer.refused(503, "THROTTLED");
}

#[tokio::test]
async fn a_release_counts_and_is_never_refused() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_MINUTE, "2"), (TRAFFIC_PER_SECOND, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for call_id in ["a", "b"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    for call_id in ["a", "b", "a"] {
        key.delete(&format!("/enforcement/reservations/{call_id}")).await.is(200);
    }
    check_refused(&check(&key, &id).await, 503, "THROTTLED", ("burst", [1_000, 5, 2]));
}

#[tokio::test]
async fn thresholds_apply_to_a_suspended_tenant() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (TRAFFIC_PER_MINUTE, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.founder().post(&format!("/tenants/{}/suspend", tenant.id)).await.is(200);
    usage(&key, &id, "a").await.is(201);
    usage(&key, &id, "b").await.refused(429, "RATE_LIMITED");
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
}

#[tokio::test]
async fn an_override_applies_at_once_until_it_expires() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["integrations:read"]).await;
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    let made = app.founder().root_post("/fdr/abuse/override", &overriding(&tenant, json!({})));
    insta::assert_json_snapshot!(made.await.is(201).redacted(), @r#"
    {
      "data": {
        "allowed_value": 5,
        "created_at": "2026-03-14T09:26:53Z",
        "created_by": "operator",
        "dimension": "rate",
        "expires_at": "2026-03-14T09:40:00Z",
        "reason": "a launch that we agreed on",
        "tenant_id": "[id 1]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    for _ in 1..5 {
        key.get("/integrations").await.is(200);
    }
    let full = ("rate", [60_000, 5, 5]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    // A later override replaces it; 0 is unlimited.
    let unlimited = overriding(&tenant, json!({ "allowed_value": 0 }));
    app.founder().root_post("/fdr/abuse/override", &unlimited).await.is(201);
    for _ in 0..10 {
        key.get("/integrations").await.is(200);
    }
    let shown = signals(&app, &tenant).await;
    assert_eq!(shown.is(200).at("/data/overrides/0/allowed_value"), 0);
    assert_eq!(shown.at("/data/overrides/1"), &Value::Null);
    app.clock.set((2026, 3, 14), 9 * 3_600 + 40 * 60);
    key.get("/integrations").await.is(200);
    let full = ("rate", [60_000, 1, 1]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    assert_eq!(signals(&app, &tenant).await.at("/data/overrides/0"), &Value::Null);
}

#[tokio::test]
async fn an_override_sets_the_threshold_of_its_dimension() {
    let app = TestApp::new();
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    let put = async |dimension: &str, allowed_value: u32| {
        let changes = json!({ "dimension": dimension, "allowed_value": allowed_value });
        let made = app.founder().root_post("/fdr/abuse/override", &overriding(&tenant, changes));
        made.await.is(201);
    };
    put("burst", 1).await;
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(503, "THROTTLED");
    usage(&key, &id, "a").await.is(201);
    usage(&key, &id, "b").await.refused(503, "THROTTLED");
    put("burst", 0).await;
    put("cost", 1).await;
    app.clock.advance(1);
    check(&key, &id).await.refused(429, "COST_LIMIT_EXCEEDED");
    put("cost", 1_000).await;
    check(&key, &id).await.is(200);
    put("anomaly", 1).await;
    for _ in 0..20 {
        key.get("/integrations").await.is(200);
    }
    let shown = signals(&app, &tenant).await;
    let dimensions = |answer: &ApiResponse| -> Vec<String> {
        let rows = answer.data()["signals"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["dimension"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(dimensions(&shown), ["anomaly", "cost", "burst", "burst"], "{}", shown.body);
}

#[tokio::test]
async fn an_override_that_raises_management_does_not_lower_traffic() {
    let settings = [(PER_MINUTE, "2"), (TRAFFIC_PER_MINUTE, "4")];
    let app = TestApp::with_settings(&settings);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    let put = async |allowed_value: u32| {
        let changes = json!({ "allowed_value": allowed_value });
        let made = app.founder().root_post("/fdr/abuse/override", &overriding(&tenant, changes));
        made.await.is(201);
        app.clock.advance(60);
    };
    let check_both = async |round: &str, management: i64, traffic: i64| {
        for _ in 0..management {
            key.get("/integrations").await.is(200);
        }
        let full = ("rate", [60_000, management, management]);
        check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
        for number in 0..traffic {
            usage(&key, &id, &format!("{round}-{number}")).await.is(201);
        }
        let full = ("rate", [60_000, traffic, traffic]);
        check_refused(&usage(&key, &id, "more").await, 429, "RATE_LIMITED", full);
    };
    put(3).await;
    check_both("raised", 3, 4).await;
    put(5).await;
    check_both("above both", 5, 5).await;
    put(1).await;
    check_both("slowed down", 1, 1).await;
}

#[tokio::test]
async fn an_invalid_override_is_refused_by_field() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let post = async |body: &Value| app.founder().root_post("/fdr/abuse/override", body).await;
    for (field, value) in [
        ("dimension", json!("speed")),
        ("allowed_value", json!(1_000_000_001)),
        ("allowed_value", json!(-1)),
        ("allowed_value", json!("5")),
        ("expires_at", json!("2026-03-14T09:26:53Z")),
        ("expires_at", json!("2026-06-12T09:26:53.000001Z")),
        ("expires_at", json!("tomorrow")),
        ("reason", json!("")),
        ("reason", json!("r".repeat(501))),
    ] {
        let answer = post(&overriding(&tenant, json!({ field: value }))).await;
        answer.refused(422, "INVALID_FIELD").on(field);
    }
    let unknown = overriding(&tenant, json!({ "limit": 5 }));
    post(&unknown).await.refused(422, "UNKNOWN_FIELD").on("limit");
    let mut without = overriding(&tenant, json!({}));
    without.as_object_mut().unwrap().remove("reason");
    post(&without).await.refused(422, "INVALID_FIELD").on("reason");
    for tenant_id in ["00000000-0000-8000-8000-000000000000", "nonsense"] {
        let foreign = overriding(&tenant, json!({ "tenant_id": tenant_id }));
        post(&foreign).await.refused(404, "TENANT_NOT_FOUND");
        let path = format!("/fdr/abuse/signals/{tenant_id}");
        app.founder().root(&path).await.refused(404, "TENANT_NOT_FOUND");
    }
    // The latest expiry and the longest reason are accepted.
    let changes = json!({ "expires_at": "2026-06-12T09:26:53Z", "reason": "r".repeat(500) });
    post(&overriding(&tenant, changes)).await.is(201);
}

#[tokio::test]
async fn signals_and_metrics_show_what_protection_refused() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (TRAFFIC_PER_SECOND, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for status in [200, 429, 429, 429] {
        key.get(&format!("/integrations/{id}")).await.is(status);
    }
    usage(&key, &id, "a").await.is(201);
    usage(&key, &id, "b").await.refused(503, "THROTTLED");
    let shown = signals(&app, &tenant).await;
    insta::assert_json_snapshot!(shown.is(200).redacted(), @r#"
    {
      "data": {
        "overrides": [],
        "signals": [
          {
            "action": "throttle",
            "allowed_value": 1,
            "count": 1,
            "current_value": 1,
            "dimension": "burst",
            "endpoint": "/api/v1/telemetry/llm-usage",
            "first_at": "2026-03-14T09:27:53Z",
            "id": "[id 1]",
            "last_at": "2026-03-14T09:27:53Z",
            "operation": "POST",
            "retry_after_ms": 1000
          },
          {
            "action": "reject",
            "allowed_value": 1,
            "count": 3,
            "current_value": 1,
            "dimension": "rate",
            "endpoint": "/api/v1/integrations/{id}",
            "first_at": "2026-03-14T09:27:53Z",
            "id": "[id 2]",
            "last_at": "2026-03-14T09:27:53Z",
            "operation": "GET",
            "retry_after_ms": 60000
          }
        ],
        "tenant_id": "[id 3]"
      },
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 100,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": null
      },
      "success": true
    }
    "#);
    let path = format!("/fdr/abuse/signals/{}?limit=1", tenant.id);
    let newest = app.founder().root(&path).await;
    assert_eq!(newest.is(200).data()["signals"].as_array().map(Vec::len), Some(1));
    app.founder().root(&format!("{path}001")).await.refused(422, "INVALID_FIELD").on("limit");
    let other = app.tenant("other").await;
    assert_eq!(signals(&app, &other).await.at("/data/signals"), &json!([]));
    let metrics = app.founder().root("/metrics").await.body;
    for row in
        ["{action=\"reject\",dimension=\"rate\"} 3", "{action=\"throttle\",dimension=\"burst\"} 1"]
    {
        let row = format!("bursar_protection_decisions_total{row}");
        assert!(metrics.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn management_by_the_operator_is_exempt_from_a_tenants_thresholds() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "2"), (TRAFFIC_PER_MINUTE, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    for _ in 0..2 {
        key.get("/integrations").await.is(200);
    }
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    let founder = tenant.founder();
    founder.get("/integrations").await.is(200);
    founder.get("/session/context").await.is(200);
    founder.post(&format!("/integrations/{id}/disable")).await.is(200);
    founder.post(&format!("/integrations/{id}/enable")).await.is(200);
    // The cost limit applies to the operator too.
    for _ in 0..2 {
        check(&founder, &id).await.is(200);
    }
    check(&founder, &id).await.refused(429, "RATE_LIMITED");
}
