//! Reservations: their responses, and how they end.

use serde_json::{Value, json};

use crate::support::{ApiResponse, Client, TestApp, record, reservation, with};

async fn reserve(client: &Client, body: &Value) -> ApiResponse {
    client.post("/enforcement/reservations").json(body).await
}

#[tokio::test]
async fn a_reservation_holds_what_was_estimated() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let key = tenant.key(&["enforcement:check"]).await;
    let body = with(
        reservation(&id, "c"),
        json!({ "estimated_cost_cents": 0.0125, "model": "gpt-4o", "ttl_seconds": 60 }),
    );
    let held = reserve(&key, &body).await;
    insta::assert_json_snapshot!(held.is(201).redacted(), @r#"
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
        "reservation": {
          "call_id": "c",
          "expires_at": "2026-03-14T09:27:53Z",
          "held_cost_cents": 0,
          "held_cost_usd": "0.000125",
          "held_tokens": 1000
        },
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
    let listed = key.get("/enforcement/reservations").await;
    insta::assert_json_snapshot!(listed.is(200).redacted(), @r#"
    {
      "data": [
        {
          "call_id": "c",
          "created_at": "2026-03-14T09:26:53Z",
          "ended_at": null,
          "expires_at": "2026-03-14T09:27:53Z",
          "held_cost_cents": 0,
          "held_cost_usd": "0.000125",
          "held_tokens": 1000,
          "integration_id": "[id 1]",
          "model": "gpt-4o",
          "status": "open",
          "ttl_seconds": 60
        }
      ],
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 20,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": 1
      },
      "success": true
    }
    "#);
}

#[tokio::test]
async fn a_refusal_holds_nothing_and_is_not_remembered() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({ "budget_limit_cents": 15 })).await;
    reserve(&founder, &reservation(&id, "first")).await.is(201);
    let refused = reserve(&founder, &reservation(&id, "second")).await;
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
            "current_value": 10,
            "current_value_usd": "0.1",
            "limit_type": "budget",
            "limit_value": 15,
            "limit_value_usd": "0.15",
            "message": "This call does not fit: $0.1 of the $0.15 budget is used or held.",
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
    let listed = founder.get("/enforcement/reservations").await;
    assert_eq!(listed.is(200).column("/call_id"), ["first"]);
    founder.delete("/enforcement/reservations/first").await.is(200);
    reserve(&founder, &reservation(&id, "second")).await.is(201);
}

#[tokio::test]
async fn every_refusal_is_a_decision() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    for (limits, then, result, code) in [
        (json!({ "budget_limit_cents": 9 }), "", "blocked", "budget_exceeded"),
        (json!({ "token_limit_month": 999 }), "", "blocked", "token_limit_exceeded"),
        (json!({}), "disable", "hard_blocked", "integration_disabled"),
        (json!({}), "delete", "hard_blocked", "integration_not_found"),
    ] {
        let id = tenant.integration(code, limits).await;
        let path = format!("/integrations/{id}");
        if then == "disable" {
            founder.post(&format!("{path}/disable")).await.is(200);
        }
        if then == "delete" {
            founder.delete(&path).await.is(200);
        }
        let refused = reserve(&founder, &reservation(&id, code)).await;
        assert_eq!(refused.is(200).text("/data/result"), result);
        assert_eq!(refused.text("/data/reasons/0/code"), code);
        assert!(refused.at("/data/reservation").is_null());
    }
    assert_eq!(founder.get("/enforcement/reservations").await.at("/meta/total"), 0);
}

#[tokio::test]
async fn the_same_request_again_replays_its_answer_and_holds_once() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({ "budget_limit_cents": 15 })).await;
    let first = reserve(&founder, &reservation(&id, "c")).await;
    app.clock.advance(10);
    let again = reserve(&founder, &reservation(&id, "c")).await;
    assert_eq!(again.is(201).data(), first.is(201).data());
    let limits = founder.get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_held_cents"), 10);
    assert_eq!(limits.at("/data/current_rpm"), 1);
}

#[tokio::test]
async fn a_replay_is_refused_after_its_tenant_or_integration_was_disabled() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let machine = tenant.key(&["*"]).await;
    for call_id in ["c", "other"] {
        reserve(&machine, &reservation(&id, call_id)).await.is(201);
    }
    let refused = async |code: &str| {
        let again = reserve(&machine, &reservation(&id, "c")).await;
        assert_eq!(again.is(200).text("/data/result"), "hard_blocked");
        assert_eq!(again.text("/data/reasons/0/code"), code);
        assert!(again.at("/data/reservation").is_null());
        let listed = machine.get("/enforcement/reservations").await;
        assert_eq!(listed.is(200).column("/call_id"), ["c", "other"], "the hold stays");
    };
    let lead = |to: &str| app.founder().post(&format!("/tenants/{}/{to}", tenant.id));
    lead("suspend").await.is(200);
    refused("tenant_suspended").await;
    let extended = machine.post("/enforcement/reservations/c/extend").await;
    extended.refused(403, "TENANT_SUSPENDED");
    lead("resume").await.is(200);
    reserve(&machine, &reservation(&id, "c")).await.is(201);

    founder.post(&format!("/integrations/{id}/disable")).await.is(200);
    refused("integration_disabled").await;
    machine.post("/enforcement/reservations/c/extend").await.is(200);
    founder.post(&format!("/integrations/{id}/enable")).await.is(200);
    reserve(&machine, &reservation(&id, "c")).await.is(201);

    founder.delete(&format!("/integrations/{id}")).await.is(200);
    let again = reserve(&machine, &reservation(&id, "c")).await;
    assert_eq!(again.is(200).text("/data/reasons/0/code"), "integration_not_found");
    machine.post("/telemetry/llm-usage").json(&record(&id, "c")).await.is(201);
    machine.delete("/enforcement/reservations/other").await.is(200);
}

#[tokio::test]
async fn a_call_id_with_other_content_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    let other = tenant.integration("other", json!({})).await;
    reserve(&founder, &reservation(&id, "c")).await.is(201);
    for difference in [
        json!({ "integration_id": other }),
        json!({ "estimated_cost_cents": 10.1 }),
        json!({ "estimated_tokens": 1001 }),
        json!({ "model": "gpt-4o" }),
        json!({ "ttl_seconds": 601 }),
    ] {
        let refused = reserve(&founder, &with(reservation(&id, "c"), difference)).await;
        refused.refused(409, "CALL_ID_CONFLICT").on("call_id");
    }
    let same = with(reservation(&id, "c"), json!({ "estimated_cost_cents": 10.0, "model": null }));
    reserve(&founder, &same).await.is(201);
    assert_eq!(founder.get("/enforcement/reservations").await.at("/meta/total"), 1);
}

#[tokio::test]
async fn an_ended_call_cannot_be_reserved_again() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    for call_id in ["settled", "released", "expired"] {
        reserve(&founder, &reservation(&id, call_id)).await.is(201);
    }
    for call_id in ["settled", "recorded"] {
        founder.post("/telemetry/llm-usage").json(&record(&id, call_id)).await.is(201);
    }
    founder.delete("/enforcement/reservations/released").await.is(200);
    app.clock.advance(600);
    for call_id in ["settled", "recorded", "released", "expired"] {
        let refused = reserve(&founder, &reservation(&id, call_id)).await;
        refused.refused(409, "RESERVATION_ENDED");
    }
    assert_eq!(founder.get("/enforcement/reservations").await.at("/meta/total"), 0);
}

#[tokio::test]
async fn under_a_limit_an_estimate_is_required() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let cost = tenant.integration("cost", json!({ "budget_limit_cents": 100 })).await;
    let tokens = tenant.integration("tokens", json!({ "token_limit_month": 100 })).await;
    let free = tenant.integration("free", json!({ "rate_limit_rpm": 100 })).await;
    for (id, field) in [(&cost, "estimated_cost_cents"), (&tokens, "estimated_tokens")] {
        for estimate in [json!({}), json!({ field: 0 }), json!({ field: null })] {
            let body = with(json!({ "integration_id": id, "call_id": "c" }), estimate);
            reserve(&founder, &body).await.refused(422, "ESTIMATE_REQUIRED").on(field);
        }
        let body = json!({ "integration_id": id, "call_id": field, field: 1 });
        reserve(&founder, &body).await.is(201);
    }
    reserve(&founder, &json!({ "integration_id": free, "call_id": "free" })).await.is(201);
}

#[tokio::test]
async fn releasing_twice_frees_the_hold_once() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({ "budget_limit_cents": 20 })).await;
    reserve(&founder, &reservation(&id, "c")).await.is(201);
    app.clock.advance(5);
    let released = founder.delete("/enforcement/reservations/c").await;
    insta::assert_json_snapshot!(released.is(200).redacted(), @r#"
    {
      "data": {
        "call_id": "c",
        "created_at": "2026-03-14T09:26:53Z",
        "ended_at": "2026-03-14T09:26:58Z",
        "expires_at": "2026-03-14T09:36:53Z",
        "held_cost_cents": 10,
        "held_cost_usd": "0.1",
        "held_tokens": 1000,
        "integration_id": "[id 1]",
        "model": null,
        "status": "released",
        "ttl_seconds": 600
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    app.clock.advance(5);
    let again = founder.delete("/enforcement/reservations/c").await;
    assert_eq!(again.is(200).data(), released.data());
    let limits = founder.get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_held_cents"), 0);
}

#[tokio::test]
async fn an_unknown_or_settled_reservation_cannot_be_released() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    founder.post("/telemetry/llm-usage").json(&record(&id, "recorded")).await.is(201);
    reserve(&founder, &reservation(&id, "settled")).await.is(201);
    founder.post("/telemetry/llm-usage").json(&record(&id, "settled")).await.is(201);
    for call_id in ["unknown", "recorded", &"x".repeat(101)] {
        let path = format!("/enforcement/reservations/{call_id}");
        founder.delete(&path).await.refused(404, "RESERVATION_NOT_FOUND");
        founder.post(&format!("{path}/extend")).await.refused(404, "RESERVATION_NOT_FOUND");
    }
    let refused = founder.delete("/enforcement/reservations/settled").await;
    refused.refused(409, "RESERVATION_ENDED");
}

#[tokio::test]
async fn releasing_an_expired_reservation_succeeds() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    reserve(&founder, &reservation(&id, "c")).await.is(201);
    app.clock.advance(600);
    let released = founder.delete("/enforcement/reservations/c").await;
    assert_eq!(released.is(200).text("/data/status"), "expired");
    assert_eq!(released.text("/data/ended_at"), "2026-03-14T09:36:53Z");
}

#[tokio::test]
async fn a_hold_counts_until_it_expires_and_a_late_record_counts_in_full() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({ "budget_limit_cents": 15 })).await;
    reserve(&founder, &reservation(&id, "first")).await.is(201);
    app.clock.advance(599);
    let refused = reserve(&founder, &reservation(&id, "second")).await;
    assert_eq!(refused.is(200).text("/data/reasons/0/code"), "budget_exceeded");
    app.clock.advance(1);
    reserve(&founder, &reservation(&id, "second")).await.is(201);
    let late = with(record(&id, "first"), json!({ "cost_cents": 4 }));
    founder.post("/telemetry/llm-usage").json(&late).await.is(201);
    let limits = founder.get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/budget_used_cents"), 4);
    assert_eq!(limits.at("/data/budget_held_cents"), 10);
}

#[tokio::test]
async fn an_open_reservation_can_be_extended_and_an_ended_one_cannot() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    reserve(&founder, &reservation(&id, "c")).await.is(201);
    app.clock.advance(300);
    let path = "/enforcement/reservations/c/extend";
    let extended = founder.post(path).json(&json!({ "ttl_seconds": 1_200 })).await;
    insta::assert_json_snapshot!(extended.is(200).redacted(), @r#"
    {
      "data": {
        "call_id": "c",
        "created_at": "2026-03-14T09:26:53Z",
        "ended_at": null,
        "expires_at": "2026-03-14T09:51:53Z",
        "held_cost_cents": 10,
        "held_cost_usd": "0.1",
        "held_tokens": 1000,
        "integration_id": "[id 1]",
        "model": null,
        "status": "open",
        "ttl_seconds": 600
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    // Without a body it is extended by its original duration, and never shortened.
    let again = founder.post(path).await;
    assert_eq!(again.is(200).text("/data/expires_at"), "2026-03-14T09:51:53Z");
    app.clock.advance(1_000);
    let again = founder.post(path).json(&json!({})).await;
    assert_eq!(again.is(200).text("/data/expires_at"), "2026-03-14T09:58:33Z");
    for wrong in [0, -1, 86_401] {
        let refused = founder.post(path).json(&json!({ "ttl_seconds": wrong })).await;
        refused.refused(422, "INVALID_FIELD").on("ttl_seconds");
    }
    app.clock.advance(600);
    founder.post(path).await.refused(409, "RESERVATION_ENDED");
}

#[tokio::test]
async fn open_reservations_are_listed_by_expiry() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let first = tenant.integration("first", json!({})).await;
    let second = tenant.integration("second", json!({})).await;
    for (id, call_id, ttl_seconds) in
        [(&first, "last", 900), (&second, "first", 60), (&first, "middle", 300)]
    {
        let body = with(reservation(id, call_id), json!({ "ttl_seconds": ttl_seconds }));
        reserve(&founder, &body).await.is(201);
    }
    for (query, call_ids, total) in [
        (String::new(), &["first", "middle", "last"][..], 3),
        ("?limit=1&offset=1".to_owned(), &["middle"], 3),
        (format!("?integration_id={first}"), &["middle", "last"], 2),
    ] {
        let listed = founder.get(&format!("/enforcement/reservations{query}")).await;
        assert_eq!(listed.is(200).column("/call_id"), call_ids);
        assert_eq!(listed.at("/meta/total"), total);
    }
    app.clock.advance(60);
    let listed = founder.get("/enforcement/reservations").await;
    assert_eq!(listed.is(200).column("/call_id"), ["middle", "last"]);
}

#[tokio::test]
async fn a_call_id_may_have_any_characters() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    for (call_id, path) in [("a/b", "a%2Fb"), ("ü ?#%", "%C3%BC%20%3F%23%25"), ("..", "%2E%2E")] {
        reserve(&founder, &reservation(&id, call_id)).await.is(201);
        let released = founder.delete(&format!("/enforcement/reservations/{path}")).await;
        assert_eq!(released.is(200).text("/data/call_id"), call_id);
    }
}

#[tokio::test]
async fn an_invalid_reservation_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let id = tenant.integration("i", json!({})).await;
    let long = "x".repeat(257);
    for (changes, code, field) in [
        (json!({ "call_id": "" }), "INVALID_FIELD", "call_id"),
        (json!({ "call_id": long }), "INVALID_FIELD", "call_id"),
        (json!({ "call_id": "a\u{0}b" }), "INVALID_FIELD", "call_id"),
        (json!({ "call_id": 1 }), "INVALID_FIELD", "call_id"),
        (json!({ "call_id": null }), "INVALID_FIELD", "call_id"),
        (json!({ "integration_id": "x" }), "INVALID_FIELD", "integration_id"),
        (json!({ "estimated_cost_cents": -0.5 }), "INVALID_FIELD", "estimated_cost_cents"),
        (json!({ "estimated_cost_cents": "one" }), "INVALID_FIELD", "estimated_cost_cents"),
        (json!({ "estimated_tokens": -1 }), "INVALID_FIELD", "estimated_tokens"),
        (json!({ "estimated_tokens": 1.5 }), "INVALID_FIELD", "estimated_tokens"),
        (json!({ "model": long }), "INVALID_FIELD", "model"),
        (json!({ "ttl_seconds": 0 }), "INVALID_FIELD", "ttl_seconds"),
        (json!({ "ttl_seconds": 86_401 }), "INVALID_FIELD", "ttl_seconds"),
        (json!({ "ttl_seconds": "600" }), "INVALID_FIELD", "ttl_seconds"),
        (json!({ "ttl": 600 }), "UNKNOWN_FIELD", "ttl"),
    ] {
        reserve(&founder, &with(reservation(&id, "c"), changes)).await.refused(422, code).on(field);
    }
    assert_eq!(founder.get("/enforcement/reservations").await.at("/meta/total"), 0);
}
