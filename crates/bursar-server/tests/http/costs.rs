//! Money: exact internally, rounded once in responses, and never zero because it is unknown.

use serde_json::{Value, json};

use crate::support::{Tenant, TestApp, record, reservation, with};

async fn spend(tenant: &Tenant, integration_id: &str, call_id: &str, cost_cents: Value) {
    let sent = with(record(integration_id, call_id), json!({ "cost_cents": cost_cents }));
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
}

#[tokio::test]
async fn a_decimal_of_cents_is_kept_exactly() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let costs = [
        ("0", "0", 0),
        ("0.0000001", "0.000000001", 0),
        ("0.0125", "0.000125", 0),
        ("0.4999999", "0.004999999", 0),
        ("0.5", "0.005", 1),
        ("1.5", "0.015", 2),
        ("1e-05", "0.0000001", 0),
        ("1.25E+2", "1.25", 125),
        ("7.0000000000", "0.07", 7),
        ("99999999.9999999", "999999.999999999", 100_000_000),
        ("100000000", "1000000", 100_000_000),
    ];
    for (at, (cents, _, _)) in costs.iter().enumerate() {
        // A float cannot represent these numbers exactly.
        let sent = record(&id, &at.to_string()).to_string();
        let sent = sent.replace("\"cost_cents\":1.25", &format!("\"cost_cents\":{cents}"));
        tenant.founder().post("/telemetry/llm-usage").body(sent).await.is(201);
        app.clock.advance(1);
    }
    let history = tenant.founder().get("/telemetry/usage-history").await;
    let rows = history.is(200).data().as_array().unwrap();
    for (row, (cents, dollars, whole)) in rows.iter().rev().zip(costs) {
        assert_eq!(row["cost_usd"], dollars, "{cents}");
        assert_eq!(row["cost_cents"], whole, "{cents}");
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.text("/data/total_cost_usd"), "2000001.345125099");
}

#[tokio::test]
async fn a_sum_is_rounded_once_at_the_end() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for call_id in ["a", "b", "c"] {
        spend(&tenant, &id, call_id, json!(0.5)).await;
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_cost_cents"), 2);
    assert_eq!(summary.text("/data/total_cost_usd"), "0.015");
    assert_eq!(summary.at("/data/by_integration/0/total_cost_cents"), 2);
    let days = tenant.founder().get("/telemetry/daily-aggregates").await;
    assert_eq!(days.at("/data/0/total_cost_cents"), 2);
    let limits = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_used_cents"), 2);
    assert_eq!(limits.text("/data/budget_used_usd"), "0.015");
    let status = tenant.founder().get(&format!("/enforcement/status?integration_id={id}")).await;
    assert_eq!(status.at("/data/budget/used_cents"), 2);
}

#[tokio::test]
async fn fractions_of_a_cent_add_up_over_integrations() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for name in ["a", "b", "c"] {
        let id = tenant.integration(name, json!({})).await;
        spend(&tenant, &id, name, json!(0.4)).await;
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_cost_cents"), 1);
    for at in 0..3 {
        let part = format!("/data/by_integration/{at}/total_cost_cents");
        assert_eq!(summary.at(&part), 0);
    }
}

#[tokio::test]
async fn a_budget_is_exact_to_the_nano_dollar() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 1 })).await;
    spend(&tenant, &id, "c", json!(0.9999998)).await;
    for (estimate, result) in [(0.000_000_2, "warned"), (0.000_000_3, "blocked")] {
        let check = json!({ "integration_id": id, "estimated_cost_cents": estimate });
        let decision = tenant.founder().post("/enforcement/check").json(&check).await;
        assert_eq!(decision.is(200).text("/data/result"), result);
    }
    // The rounded figure shows the budget as used up too early; the exact figure is beside it.
    let limits = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_used_cents"), 1);
    assert_eq!(limits.text("/data/budget_used_usd"), "0.009999998");
}

#[tokio::test]
async fn a_record_without_a_cost_is_unpriced() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    spend(&tenant, &id, "unknown", json!(null)).await;
    app.clock.advance(1);
    spend(&tenant, &id, "free", json!(0)).await;
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.column("/cost_source"), ["reported", "unknown"]);
    assert_eq!(history.column("/reported_cost_usd"), ["0"]);
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/unpriced_count"), 1);
}

#[tokio::test]
async fn a_reservation_settled_without_a_cost_counts_what_it_held() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let reserve = reservation(&id, "c");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    spend(&tenant, &id, "c", json!(null)).await;
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.text("/data/0/cost_source"), "held");
    assert_eq!(history.text("/data/0/cost_usd"), "0.1");
    assert!(history.at("/data/0/reported_cost_usd").is_null());
    let limits = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_used_cents"), 10);
    assert_eq!(limits.at("/data/budget_held_cents"), 0);
}

#[tokio::test]
async fn a_hold_without_a_cost_estimate_leaves_the_cost_unknown() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let reserve = json!({ "integration_id": id, "call_id": "c", "estimated_tokens": 5 });
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    spend(&tenant, &id, "c", json!(null)).await;
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.text("/data/0/cost_source"), "unknown");
}

#[tokio::test]
async fn a_reported_cost_does_not_count_on_a_computed_basis() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "cost_basis": "computed" })).await;
    let reserve = reservation(&id, "held");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    spend(&tenant, &id, "held", json!(0.01)).await;
    app.clock.advance(1);
    spend(&tenant, &id, "unknown", json!(0.02)).await;
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.column("/cost_source"), ["unknown", "held"]);
    assert_eq!(history.column("/cost_usd"), ["0", "0.1"]);
    // The reported cost is stored beside the one that counts.
    assert_eq!(history.column("/reported_cost_usd"), ["0.0002", "0.0001"]);
    let limits = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_used_cents"), 10);
}
