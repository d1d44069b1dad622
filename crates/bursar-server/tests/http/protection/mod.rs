//! Protection over HTTP: each threshold at its limit, what is never refused, and the operator's
//! overrides and signals. The limit on a tenant's daily cost is here too: its setting and its override
//! are those of protection.

mod daily_cost;
mod exemptions;
mod overrides;
mod rule;
mod signals;
mod thresholds;

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
