//! Limits and their use by month.

use serde_json::json;

use crate::support::{TestApp, record, reservation, with};

#[tokio::test]
async fn limits_show_what_is_used_and_held() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let limits =
        json!({ "budget_limit_cents": 50, "token_limit_month": 3_000, "rate_limit_rpm": 3 });
    let id = tenant.integration("Production", limits).await;
    let sent = with(record(&id, "used"), json!({ "cost_cents": 12.345 }));
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    let reserve = reservation(&id, "held");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    let shown = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    insta::assert_json_snapshot!(shown.is(200).redacted(), @r#"
    {
      "data": {
        "budget_held_cents": 10,
        "budget_held_usd": "0.1",
        "budget_limit_cents": 50,
        "budget_percent": 24.69,
        "budget_used_cents": 12,
        "budget_used_usd": "0.12345",
        "current_rpm": 2,
        "integration_id": "[id 1]",
        "integration_name": "Production",
        "period": "2026-03",
        "period_end": "2026-04-01T00:00:00Z",
        "period_start": "2026-03-01T00:00:00Z",
        "rate_limit_rpm": 3,
        "rate_percent": 66.66,
        "token_limit_month": 3000,
        "token_percent": 33.33,
        "tokens_held": 1000,
        "tokens_used_month": 1000
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
}

#[tokio::test]
async fn a_percentage_can_exceed_a_hundred_and_is_zero_when_unlimited() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let over = tenant.integration("over", json!({ "budget_limit_cents": 1 })).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&over, "c")).await.is(201);
    let shown = tenant.founder().get(&format!("/integrations/{over}/limits")).await;
    assert_eq!(shown.is(200).at("/data/budget_percent"), 125.0);
    assert_eq!(shown.at("/data/token_percent"), 0.0);
    assert_eq!(shown.at("/data/rate_percent"), 0.0);
    assert_eq!(shown.at("/data/tokens_used_month"), 1_000);
}

#[tokio::test]
async fn a_settled_reservation_counts_the_actual_usage() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 50 })).await;
    let reserve = reservation(&id, "c");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    let path = format!("/integrations/{id}/limits");
    for actual in ["accepted", "duplicate"] {
        let sent = with(record(&id, "c"), json!({ "cost_cents": 60 }));
        let answer = tenant.founder().post("/telemetry/llm-usage").json(&sent).await;
        assert_eq!(answer.text("/data/status"), actual);
        let shown = tenant.founder().get(&path).await;
        assert_eq!(shown.is(200).at("/data/budget_used_cents"), 60);
        assert_eq!(shown.at("/data/budget_held_cents"), 0);
        assert_eq!(shown.at("/data/tokens_held"), 0);
        assert_eq!(shown.at("/data/current_rpm"), 1);
    }
    let next = tenant.founder().post("/enforcement/check").json(&json!({ "integration_id": id }));
    assert_eq!(next.await.text("/data/reasons/0/code"), "budget_exceeded");
}

#[tokio::test]
async fn a_new_month_starts_with_no_usage() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    app.clock.set((2026, 3, 31), 86_399);
    let id = tenant.integration("i", json!({ "budget_limit_cents": 10 })).await;
    let sent = with(record(&id, "march"), json!({ "cost_cents": 10 }));
    founder.post("/telemetry/llm-usage").json(&sent).await.is(201);
    let check = json!({ "integration_id": id, "estimated_cost_cents": 1 });
    let decision = founder.post("/enforcement/check").json(&check).await;
    assert_eq!(decision.text("/data/result"), "blocked");
    app.clock.advance(1);
    let decision = founder.post("/enforcement/check").json(&check).await;
    assert_eq!(decision.is(200).text("/data/result"), "allowed");
    let path = format!("/integrations/{id}/limits");
    for (query, used, start, end) in [
        ("", 0, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("?period=2026-04", 0, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("?period=2026-03", 10, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
        ("?period=2026-02", 0, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
    ] {
        let shown = founder.get(&format!("{path}{query}")).await;
        assert_eq!(shown.is(200).at("/data/budget_used_cents"), used, "{query}");
        assert_eq!(shown.text("/data/period_start"), start, "{query}");
        assert_eq!(shown.text("/data/period_end"), end, "{query}");
    }
    // The rate is independent of months: the call of a second ago counts.
    assert_eq!(founder.get(&path).await.at("/data/current_rpm"), 1);
    assert_eq!(founder.get(&format!("{path}?period=2026-03")).await.at("/data/current_rpm"), 0);
}

#[tokio::test]
async fn a_call_across_months_counts_in_the_month_of_its_reservation() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    app.clock.set((2026, 3, 31), 86_390);
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    for call_id in ["unsaid", "said"] {
        let reserve = reservation(&id, call_id);
        founder.post("/enforcement/reservations").json(&reserve).await.is(201);
    }
    app.clock.advance(60);
    let figures = async |period: &str| {
        let path = format!("/integrations/{id}/limits?period={period}");
        let shown = founder.get(&path).await;
        let figure = |name: &str| shown.is(200).data()[name].as_i64();
        (figure("budget_used_cents"), figure("budget_held_cents"))
    };
    assert_eq!(figures("2026-03").await, (Some(0), Some(20)));
    assert_eq!(figures("2026-04").await, (Some(0), Some(0)));
    let sent = with(record(&id, "unsaid"), json!({ "cost_cents": 3 }));
    founder.post("/telemetry/llm-usage").json(&sent).await.is(201);
    assert_eq!(figures("2026-03").await, (Some(3), Some(10)));
    let occurred_at = json!({ "cost_cents": 4, "occurred_at": "2026-04-01T00:00:30Z" });
    let sent = with(record(&id, "said"), occurred_at);
    founder.post("/telemetry/llm-usage").json(&sent).await.is(201);
    assert_eq!(figures("2026-03").await, (Some(3), Some(0)));
    assert_eq!(figures("2026-04").await, (Some(4), Some(0)));
}

#[tokio::test]
async fn an_expired_hold_shows_in_no_month_swept_or_not() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    app.clock.set((2026, 3, 31), 86_390);
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    for (call_id, ttl_seconds) in [("short", 60), ("long", 600)] {
        let body = with(reservation(&id, call_id), json!({ "ttl_seconds": ttl_seconds }));
        founder.post("/enforcement/reservations").json(&body).await.is(201);
    }
    let held = async |period: &str| {
        let shown = founder.get(&format!("/integrations/{id}/limits{period}")).await;
        let figure = |name: &str| shown.is(200).data()[name].as_i64();
        (figure("budget_held_cents"), figure("tokens_held"))
    };
    assert_eq!(held("").await, (Some(20), Some(2_000)));
    app.clock.advance(59);
    assert_eq!(held("?period=2026-03").await, (Some(20), Some(2_000)));
    // No sweep has run.
    app.clock.advance(1);
    assert_eq!(held("?period=2026-03").await, (Some(10), Some(1_000)));
    assert_eq!(held("").await, (Some(0), Some(0)));
    app.clock.advance(540);
    assert_eq!(held("?period=2026-03").await, (Some(0), Some(0)));
}

#[tokio::test]
async fn a_late_record_counts_in_its_own_month() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let sent = with(record(&id, "c"), json!({ "occurred_at": "2026-02-28T23:59:59.999999Z" }));
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    for (period, tokens) in [("2026-02", 1_000), ("2026-03", 0)] {
        let path = format!("/integrations/{id}/limits?period={period}");
        let shown = tenant.founder().get(&path).await;
        assert_eq!(shown.is(200).at("/data/tokens_used_month"), tokens, "{period}");
    }
}

#[tokio::test]
async fn an_integration_key_reads_its_own_limits() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let other = tenant.integration("other", json!({})).await;
    let key = tenant.integration_key(&id).await;
    key.get(&format!("/integrations/{id}/limits")).await.is(200);
    let foreign = key.get(&format!("/integrations/{other}/limits")).await;
    foreign.refused(404, "INTEGRATION_NOT_FOUND");
}

#[tokio::test]
async fn a_period_is_a_month() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let get = async |query: &str| {
        tenant.founder().get(&format!("/integrations/{id}/limits?{query}")).await
    };
    for wrong in ["2026", "2026-13", "2026-00", "2026-3", "2026-03-01", "march", "20260-3"] {
        get(&format!("period={wrong}")).await.refused(422, "INVALID_FIELD").on("period");
    }
    get("month=2026-03").await.refused(422, "UNKNOWN_FIELD").on("month");
}
