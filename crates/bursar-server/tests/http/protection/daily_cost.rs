//! The operator's limit on what a tenant may spend on a UTC day.

use serde_json::{Value, json};

use crate::protection::{COST, check, onboarded, overriding, reserve, signals};
use crate::support::{ApiResponse, Client, Tenant, TestApp, record, reservation, with};

/// Sets an override of the cost until 9:40; the clock starts at 9:26:53.
async fn put_override(app: &TestApp, tenant: &Tenant, cents: u32) {
    let body = overriding(tenant, json!({ "dimension": "cost", "allowed_value": cents }));
    app.founder().root_post("/fdr/abuse/override", &body).await.is(201);
}

async fn spend(client: &Client, id: &str, call_id: &str, cents: f64) {
    let spent = with(record(id, call_id), json!({ "cost_cents": cents }));
    client.post("/telemetry/llm-usage").json(&spent).await.is(201);
}

async fn reserve_cents(client: &Client, id: &str, call_id: &str, cents: f64) -> ApiResponse {
    let body = with(reservation(id, call_id), json!({ "estimated_cost_cents": cents }));
    client.post("/enforcement/reservations").json(&body).await
}

#[track_caller]
fn check_blocked(answer: &ApiResponse) {
    assert_eq!(answer.is(200).text("/data/result"), "blocked", "{}", answer.body);
    assert_eq!(answer.text("/data/reasons/0/code"), "budget_exceeded");
}

#[track_caller]
fn check_allowed(answer: &ApiResponse) {
    assert_eq!(answer.is(200).text("/data/result"), "allowed", "{}", answer.body);
}

#[tokio::test]
async fn reservations_over_two_integrations_admit_exactly_the_amount() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, one) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let key = tenant.key(&["*"]).await;
    for number in 0..9 {
        let id = if number % 2 == 0 { &one } else { &other };
        reserve(&key, id, &format!("call {number}")).await.is(201);
    }
    reserve_cents(&key, &one, "most", 9.999_999_9).await.is(201);
    check_blocked(&reserve_cents(&key, &one, "more", 0.000_000_2).await);
    reserve_cents(&key, &other, "rest", 0.000_000_1).await.is(201);
    let refused = reserve(&key, &other, "beyond").await;
    insta::assert_json_snapshot!(refused.is(200).redacted(), @r#"
    {
      "data": {
        "degraded": false,
        "evaluated_at": "2026-03-14T09:26:53Z",
        "integration_id": "[id 1]",
        "metadata": {},
        "reasons": [
          {
            "code": "budget_exceeded",
            "current_value": 100,
            "current_value_usd": "1",
            "limit_type": "budget",
            "limit_value": 100,
            "limit_value_usd": "1",
            "message": "This call does not fit: $1 of the $1 budget is used or held.",
            "retry_after_seconds": null,
            "threshold_percent": 100
          }
        ],
        "result": "blocked",
        "tenant_id": "[id 2]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    assert_eq!(refused.headers.get("retry-after"), None);
    // A release frees its amount for any integration.
    key.delete("/enforcement/reservations/call%200").await.is(200);
    reserve(&key, &other, "again").await.is(201);
    check_blocked(&reserve(&key, &one, "over").await);
}

#[tokio::test]
async fn checks_of_every_caller_are_blocked_at_the_limit_and_other_tenants_are_unaffected() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, id) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let (key, integration_key) = (tenant.key(&["*"]).await, tenant.integration_key(&id).await);
    spend(&key, &other, "most", 99.999_999_9).await;
    check_allowed(&check(&key, &id).await);
    spend(&key, &other, "rest", 0.000_000_1).await;
    for client in [&key, &tenant.founder(), &integration_key] {
        check_blocked(&check(client, &id).await);
        let question = json!({ "requests": [{ "integration_id": id }] });
        let answer = client.post("/enforcement/batch").json(&question).await;
        assert_eq!(answer.is(200).text("/data/0/result"), "blocked");
        check_blocked(&reserve(client, &id, "more").await);
    }
    let (stranger, strangers_id) = onboarded(&app).await;
    let strangers_key = stranger.key(&["*"]).await;
    check_allowed(&check(&strangers_key, &strangers_id).await);
    reserve(&strangers_key, &strangers_id, "call").await.is(201);
}

#[tokio::test]
async fn records_are_always_accepted_and_one_above_the_limit_blocks_the_next_call() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    for call_id in ["kept", "held", "costly"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    spend(&key, &id, "costly", 120.0).await;
    check_blocked(&check(&key, &id).await);
    check_blocked(&reserve(&key, &id, "next").await);
    // Records, reads and open reservations are not affected.
    spend(&key, &id, "unreserved", 5.0).await;
    spend(&key, &id, "held", 1.0).await;
    key.get(&format!("/enforcement/status?integration_id={id}")).await.is(200);
    key.post("/enforcement/reservations/kept/extend").await.is(200);
    key.delete("/enforcement/reservations/kept").await.is(200);
}

#[tokio::test]
async fn the_next_utc_day_starts_anew() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.set((2026, 3, 14), 86_399);
    spend(&key, &id, "today", 60.0).await;
    reserve_cents(&key, &id, "held", 40.0).await.is(201);
    check_blocked(&check(&key, &id).await);
    app.clock.advance(1);
    check_allowed(&check(&key, &id).await);
    reserve_cents(&key, &id, "tomorrow", 100.0).await.is(201);
    check_blocked(&check(&key, &id).await);
}

#[tokio::test]
async fn an_override_of_the_cost_raises_and_lowers_the_limit_until_it_expires() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    spend(&key, &id, "spent", 100.0).await;
    check_blocked(&check(&key, &id).await);
    put_override(&app, &tenant, 120).await;
    check_allowed(&check(&key, &id).await);
    reserve_cents(&key, &id, "raised", 20.0).await.is(201);
    check_blocked(&reserve_cents(&key, &id, "over", 0.1).await);
    put_override(&app, &tenant, 1).await;
    check_blocked(&check(&key, &id).await);
    put_override(&app, &tenant, 0).await;
    check_allowed(&check(&key, &id).await);
    reserve_cents(&key, &id, "unlimited", 100_000.0).await.is(201);
    let shown = signals(&app, &tenant).await;
    let shown = shown.is(200).data();
    assert_eq!(shown["overrides"][0]["dimension"], "cost");
    assert_eq!(shown["overrides"][0]["allowed_value"], 0);
    assert_eq!(shown["signals"], json!([]));
    app.clock.set((2026, 3, 14), 9 * 3_600 + 40 * 60 - 1);
    check_allowed(&check(&key, &id).await);
    app.clock.advance(1);
    check_blocked(&check(&key, &id).await);
    let shown = signals(&app, &tenant).await;
    assert_eq!(shown.at("/data/overrides"), &json!([]));
}

#[tokio::test]
async fn a_setting_of_0_limits_only_tenants_with_an_override() {
    let app = TestApp::with_settings(&[(COST, "0")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    spend(&key, &id, "spent", 1_000_000.0).await;
    check_allowed(&check(&key, &id).await);
    reserve(&key, &id, "a").await.is(201);
    put_override(&app, &tenant, 100).await;
    check_blocked(&check(&key, &id).await);
    let (stranger, strangers_id) = onboarded(&app).await;
    check_allowed(&check(&stranger.founder(), &strangers_id).await);
    app.clock.set((2026, 3, 14), 9 * 3_600 + 40 * 60);
    check_allowed(&check(&key, &id).await);
}

#[tokio::test]
async fn a_reservation_needs_a_cost_estimate_only_while_the_cost_is_limited() {
    let app = TestApp::with_settings(&[(COST, "0")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    reserve_cents(&key, &id, "no limit", 0.0).await.is(201);
    put_override(&app, &tenant, 100).await;
    let refused = reserve_cents(&key, &id, "limited", 0.0).await;
    refused.refused(422, "ESTIMATE_REQUIRED").on("estimated_cost_cents");
    put_override(&app, &tenant, 0).await;
    reserve_cents(&key, &id, "unlimited", 0.0).await.is(201);
    put_override(&app, &tenant, 100).await;
    app.clock.set((2026, 3, 14), 9 * 3_600 + 40 * 60);
    reserve_cents(&key, &id, "expired", 0.0).await.is(201);
}

#[tokio::test]
async fn a_limit_that_is_switched_on_counts_the_calls_of_the_day() {
    let app = TestApp::new();
    let (tenant, id) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let key = tenant.founder();
    spend(&key, &id, "spent", 30.0).await;
    spend(&key, &other, "spent too", 20.0).await;
    reserve_cents(&key, &other, "open", 45.0).await.is(201);
    let tenant_id = tenant.id.clone();
    drop((tenant, key));
    let app = app.restarted_with(&[(COST, "100")]).await;
    let key = app.known_tenant(&tenant_id).founder();
    // The open reservation was made before; it counts when it is settled.
    check_blocked(&reserve_cents(&key, &id, "over", 50.000_000_1).await);
    reserve_cents(&key, &id, "fits", 50.0).await.is(201);
    check_blocked(&check(&key, &id).await);
    key.delete("/enforcement/reservations/fits").await.is(200);
    check_allowed(&check(&key, &id).await);
    spend(&key, &other, "open", 50.0).await;
    check_blocked(&check(&key, &id).await);
}

#[tokio::test]
async fn an_override_is_the_limits_after_a_restart_too() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, id) = onboarded(&app).await;
    spend(&tenant.founder(), &id, "spent", 110.0).await;
    put_override(&app, &tenant, 120).await;
    let tenant_id = tenant.id.clone();
    drop(tenant);
    let app = app.restarted_with(&[(COST, "50")]).await;
    let key = app.known_tenant(&tenant_id).founder();
    let question = json!({ "integration_id": id, "estimated_cost_cents": 10 });
    check_allowed(&key.post("/enforcement/check").json(&question).await);
    let beyond = with(question, json!({ "estimated_cost_cents": 11 }));
    let answer = key.post("/enforcement/check").json(&beyond).await;
    check_blocked(&answer);
    assert_eq!(answer.at("/data/reasons/0/limit_value"), &Value::from(120));
}

#[tokio::test]
async fn a_hold_of_the_day_before_ends_without_a_trace() {
    let app = TestApp::with_settings(&[(COST, "100")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    for call in ["recorded", "released"] {
        reserve(&key, &id, call).await.is(201);
    }
    app.clock.advance(86_400);
    // The holds are due, and of another day than the limit counts now.
    spend(&key, &id, "recorded", 30.0).await;
    key.delete("/enforcement/reservations/released").await.is(200);
    reserve_cents(&key, &id, "most", 100.0).await.is(201);
    check_blocked(&check(&key, &id).await);
}
