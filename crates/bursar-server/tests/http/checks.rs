//! Checks, which decide without changing anything, and the status of an integration.

use serde_json::{Value, json};

use crate::support::{TestApp, record, reservation, with};

#[tokio::test]
async fn a_call_within_all_limits_is_allowed() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let key = tenant.key(&["enforcement:check"]).await;
    let question =
        json!({ "integration_id": id, "estimated_cost_cents": 0.5, "estimated_tokens": 10 });
    let decision = key.post("/enforcement/check").json(&question).await;
    insta::assert_json_snapshot!(decision.is(200).redacted(), @r#"
    {
      "data": {
        "degraded": false,
        "evaluated_at": "2026-03-14T09:26:53Z",
        "integration_id": "[id 1]",
        "metadata": {},
        "reasons": [
          {
            "code": "all_checks_passed",
            "current_value": null,
            "limit_type": null,
            "limit_value": null,
            "message": "All checks passed.",
            "retry_after_seconds": null,
            "threshold_percent": null
          }
        ],
        "result": "allowed",
        "tenant_id": "[id 2]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    // A check changes nothing.
    let again = key.post("/enforcement/check").json(&question).await;
    assert_eq!(again.data(), decision.data());
}

#[tokio::test]
async fn a_call_over_the_budget_is_blocked() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 2 })).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "c")).await.is(201);
    let question = json!({ "integration_id": id, "estimated_cost_cents": 0.7500001 });
    let decision = tenant.founder().post("/enforcement/check").json(&question).await;
    insta::assert_json_snapshot!(decision.is(200).redacted(), @r#"
    {
      "data": {
        "degraded": false,
        "evaluated_at": "2026-03-14T09:26:53Z",
        "integration_id": "[id 1]",
        "metadata": {},
        "reasons": [
          {
            "code": "budget_exceeded",
            "current_value": 1,
            "current_value_usd": "0.0125",
            "limit_type": "budget",
            "limit_value": 2,
            "limit_value_usd": "0.02",
            "message": "This call does not fit: $0.0125 of the $0.02 budget is used or held.",
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
    let fitting = with(question, json!({ "estimated_cost_cents": 0.75 }));
    let decision = tenant.founder().post("/enforcement/check").json(&fitting).await;
    assert_eq!(decision.is(200).text("/data/result"), "warned");
}

#[tokio::test]
async fn all_warnings_are_listed() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let limits = json!({ "budget_limit_cents": 100, "token_limit_month": 10_000 });
    let id = tenant.integration("i", limits).await;
    let question =
        json!({ "integration_id": id, "estimated_cost_cents": 80, "estimated_tokens": 8_000 });
    let decision = tenant.founder().post("/enforcement/check").json(&question).await;
    insta::assert_json_snapshot!(decision.is(200).data()["reasons"], @r#"
    [
      {
        "code": "budget_warning",
        "current_value": 0,
        "current_value_usd": "0",
        "limit_type": "budget",
        "limit_value": 100,
        "limit_value_usd": "1",
        "message": "With this call, at least 80 % of the budget is used or held.",
        "retry_after_seconds": null,
        "threshold_percent": 80
      },
      {
        "code": "token_warning",
        "current_value": 0,
        "limit_type": "tokens",
        "limit_value": 10000,
        "message": "With this call, at least 80 % of the tokens are used or held.",
        "retry_after_seconds": null,
        "threshold_percent": 80
      }
    ]
    "#);
    assert_eq!(decision.text("/data/result"), "warned");
    for (cost, tokens, codes) in [
        (79.9999999, 8_000, &["token_warning"][..]),
        (80.0, 7_999, &["budget_warning"]),
        (79.9999999, 7_999, &["all_checks_passed"]),
        (100.0000001, 10_001, &["budget_exceeded"]),
        (100.0, 10_001, &["token_limit_exceeded"]),
    ] {
        let estimate = json!({ "estimated_cost_cents": cost, "estimated_tokens": tokens });
        let question = with(json!({ "integration_id": id }), estimate);
        let decision = tenant.founder().post("/enforcement/check").json(&question).await;
        let reasons = decision.is(200).at("/data/reasons").as_array().unwrap();
        let found: Vec<&Value> = reasons.iter().map(|reason| &reason["code"]).collect();
        assert_eq!(found, codes, "{cost} {tokens}");
    }
}

#[tokio::test]
async fn a_call_over_the_rate_is_throttled_with_retry_after() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "rate_limit_rpm": 2 })).await;
    let question = json!({ "integration_id": id });
    for call_id in ["first", "second"] {
        let reserve = reservation(&id, call_id);
        tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
        app.clock.advance(20);
    }
    let decision = tenant.founder().post("/enforcement/check").json(&question).await;
    insta::assert_json_snapshot!(decision.is(200).redacted(), @r#"
    {
      "data": {
        "degraded": false,
        "evaluated_at": "2026-03-14T09:27:33Z",
        "integration_id": "[id 1]",
        "metadata": {},
        "reasons": [
          {
            "code": "rate_limit_exceeded",
            "current_value": 2,
            "limit_type": "rate",
            "limit_value": 2,
            "message": "2 of 2 calls a minute were made in the last 60 seconds.",
            "retry_after_seconds": 20,
            "threshold_percent": 100
          }
        ],
        "result": "throttled",
        "tenant_id": "[id 2]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    assert_eq!(decision.headers["retry-after"], "20");
    assert_eq!(decision.headers["ratelimit-policy"], "\"rate\";q=2;w=60");
    assert_eq!(decision.headers["ratelimit"], "\"rate\";r=0;t=20");
    let refused = reservation(&id, "third");
    let refused = tenant.founder().post("/enforcement/reservations").json(&refused).await;
    assert_eq!(refused.is(200).text("/data/result"), "throttled");
    assert_eq!(refused.headers["retry-after"], "20");
    app.clock.advance(19);
    let decision = tenant.founder().post("/enforcement/check").json(&question).await;
    assert_eq!(decision.at("/data/reasons/0/retry_after_seconds"), 1);
    app.clock.advance(1);
    let decision = tenant.founder().post("/enforcement/check").json(&question).await;
    assert_eq!(decision.is(200).text("/data/result"), "allowed");
    assert!(!decision.headers.contains_key("retry-after"));
    assert_eq!(decision.headers["ratelimit"], "\"rate\";r=1;t=60");
}

#[tokio::test]
async fn a_call_counts_once_in_the_rate_and_a_blocked_or_old_one_never() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "rate_limit_rpm": 10 })).await;
    let reserve = reservation(&id, "reserved");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    for (call_id, more) in [
        ("reserved", json!({})),
        ("recorded", json!({})),
        ("blocked", json!({ "policy_result": "blocked" })),
        ("old", json!({ "occurred_at": "2026-03-14T09:25:53Z" })),
        ("recent", json!({ "occurred_at": "2026-03-14T09:25:54Z" })),
    ] {
        let sent = with(record(&id, call_id), more);
        tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    }
    let status = tenant.founder().get(&format!("/enforcement/status?integration_id={id}")).await;
    assert_eq!(status.is(200).at("/data/rate/current_rpm"), 3);
}

#[tokio::test]
async fn rate_limit_headers_list_every_limit() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let limits =
        json!({ "budget_limit_cents": 500, "token_limit_month": 9_000, "rate_limit_rpm": 60 });
    let limited = tenant.integration("limited", limits).await;
    let free = tenant.integration("free", json!({})).await;
    let reserve = with(reservation(&limited, "c"), json!({ "estimated_cost_cents": 10.5 }));
    let held = tenant.founder().post("/enforcement/reservations").json(&reserve).await;
    let month = 31 * 86_400;
    let left = month - (13 * 86_400 + 9 * 3_600 + 26 * 60 + 53);
    let policy =
        format!(r#""budget";q=500;w={month}, "tokens";q=9000;w={month}, "rate";q=60;w=60"#);
    let state = format!(r#""budget";r=489;t={left}, "tokens";r=8000;t={left}, "rate";r=59;t=60"#);
    let question = json!({ "integration_id": limited });
    let checked = tenant.founder().post("/enforcement/check").json(&question).await;
    for answer in [held.is(201), checked.is(200)] {
        assert_eq!(answer.headers["ratelimit-policy"], policy.as_str());
        assert_eq!(answer.headers["ratelimit"], state.as_str());
    }
    let question = json!({ "integration_id": free });
    let checked = tenant.founder().post("/enforcement/check").json(&question).await;
    assert!(!checked.headers.contains_key("ratelimit"));
    assert!(!checked.headers.contains_key("ratelimit-policy"));
}

#[tokio::test]
async fn a_batch_of_checks_is_answered_in_order() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let unknown = "00000000-0000-8000-8000-000000000000";
    let batch = json!({ "requests": [
        { "integration_id": id, "estimated_cost_cents": 101 },
        { "integration_id": unknown },
        { "integration_id": id, "estimated_cost_cents": 1 },
    ] });
    let answer = tenant.founder().post("/enforcement/batch").json(&batch).await;
    insta::assert_json_snapshot!(answer.is(200).redacted(), @r#"
    {
      "data": [
        {
          "degraded": false,
          "evaluated_at": "2026-03-14T09:26:53Z",
          "integration_id": "[id 1]",
          "metadata": {},
          "reasons": [
            {
              "code": "budget_exceeded",
              "current_value": 0,
              "current_value_usd": "0",
              "limit_type": "budget",
              "limit_value": 100,
              "limit_value_usd": "1",
              "message": "This call does not fit: $0 of the $1 budget is used or held.",
              "retry_after_seconds": null,
              "threshold_percent": 100
            }
          ],
          "result": "blocked",
          "tenant_id": "[id 2]"
        },
        {
          "degraded": false,
          "evaluated_at": "2026-03-14T09:26:53Z",
          "integration_id": "[id 3]",
          "metadata": {},
          "reasons": [
            {
              "code": "integration_not_found",
              "current_value": null,
              "limit_type": null,
              "limit_value": null,
              "message": "The tenant has no integration with this id.",
              "retry_after_seconds": null,
              "threshold_percent": null
            }
          ],
          "result": "hard_blocked",
          "tenant_id": "[id 2]"
        },
        {
          "degraded": false,
          "evaluated_at": "2026-03-14T09:26:53Z",
          "integration_id": "[id 1]",
          "metadata": {},
          "reasons": [
            {
              "code": "all_checks_passed",
              "current_value": null,
              "limit_type": null,
              "limit_value": null,
              "message": "All checks passed.",
              "retry_after_seconds": null,
              "threshold_percent": null
            }
          ],
          "result": "allowed",
          "tenant_id": "[id 2]"
        }
      ],
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let hundred = vec![json!({ "integration_id": id }); 100];
    let answer = tenant.founder().post("/enforcement/batch").json(&json!({ "requests": hundred }));
    assert_eq!(answer.await.is(200).column("/result"), ["allowed"; 100]);
}

#[tokio::test]
async fn the_status_shows_what_is_used_held_and_left() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let limits =
        json!({ "budget_limit_cents": 500, "token_limit_month": 9_000, "rate_limit_rpm": 60 });
    let id = tenant.integration("i", limits).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "used")).await.is(201);
    let reserve = reservation(&id, "held");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    let status = tenant.founder().get(&format!("/enforcement/status?integration_id={id}")).await;
    insta::assert_json_snapshot!(status.is(200).redacted(), @r#"
    {
      "data": {
        "budget": {
          "has_limit": true,
          "held_cents": 10,
          "held_usd": "0.1",
          "limit_cents": 500,
          "percent_used": 0.25,
          "remaining_cents": 489,
          "remaining_usd": "4.8875",
          "used_cents": 1,
          "used_usd": "0.0125"
        },
        "evaluated_at": "2026-03-14T09:26:53Z",
        "health_state": "unknown",
        "integration_id": "[id 1]",
        "integration_status": "enabled",
        "period_start": "2026-03-01T00:00:00Z",
        "rate": {
          "current_rpm": 2,
          "has_limit": true,
          "limit_rpm": 60,
          "percent_used": 3.33
        },
        "tokens": {
          "has_limit": true,
          "held": 1000,
          "limit": 9000,
          "percent_used": 11.11,
          "remaining": 7000,
          "used": 1000
        }
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
async fn without_limits_the_status_shows_no_remainder() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let status = tenant.founder().get(&format!("/enforcement/status?integration_id={id}")).await;
    for part in ["budget", "tokens", "rate"] {
        assert_eq!(status.is(200).data()[part]["has_limit"], false);
        assert_eq!(status.data()[part]["percent_used"], 0.0);
    }
    assert!(status.at("/data/budget/remaining_cents").is_null());
    assert!(status.at("/data/tokens/remaining").is_null());
}

#[tokio::test]
async fn an_invalid_check_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let post = async |body: Value| tenant.founder().post("/enforcement/check").json(&body).await;
    let check = |changes: Value| post(with(json!({ "integration_id": id }), changes));
    post(json!({})).await.refused(422, "INVALID_FIELD").on("integration_id");
    post(json!({ "integration_id": "x" })).await.refused(422, "INVALID_FIELD").on("integration_id");
    post(json!({ "integration_id": 1 })).await.refused(422, "INVALID_FIELD").on("integration_id");
    for wrong in [json!(-1), json!("one"), json!("-1"), json!(100_000_000.5), json!([1])] {
        let answer = check(json!({ "estimated_cost_cents": wrong })).await;
        answer.refused(422, "INVALID_FIELD").on("estimated_cost_cents");
    }
    for wrong in [json!(-1), json!("one"), json!(0.5), json!(1_000_000_001), json!(u64::MAX)] {
        let answer = check(json!({ "estimated_tokens": wrong })).await;
        answer.refused(422, "INVALID_FIELD").on("estimated_tokens");
    }
    check(json!({ "estimated_cost": 1 })).await.refused(422, "UNKNOWN_FIELD").on("estimated_cost");
    let batch = async |body: Value| tenant.founder().post("/enforcement/batch").json(&body).await;
    batch(json!({ "requests": [] })).await.refused(422, "INVALID_FIELD").on("requests");
    let many = vec![json!({ "integration_id": id }); 101];
    batch(json!({ "requests": many })).await.refused(422, "INVALID_FIELD").on("requests");
    batch(json!({})).await.refused(422, "INVALID_FIELD").on("requests");
    let unknown = json!({ "requests": [{ "integration_id": id, "tokens": 1 }] });
    batch(unknown).await.refused(422, "UNKNOWN_FIELD").on("requests[0].tokens");
    tenant
        .founder()
        .get("/enforcement/status")
        .await
        .refused(422, "INVALID_FIELD")
        .on("integration_id");
    let unknown = tenant.founder().get(&format!("/enforcement/status?integration_id={id}&x=1"));
    unknown.await.refused(422, "UNKNOWN_FIELD").on("x");
}
