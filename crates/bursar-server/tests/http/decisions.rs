//! The log of decisions: why calls were refused.

use serde_json::{Value, json};

use crate::support::{Client, Tenant, TestApp, record, reservation, with};

/// An integration that has used 90 cents of a budget of a dollar.
async fn nearly_spent(tenant: &Tenant) -> String {
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let used = with(record(&id, "used"), json!({ "cost_cents": 90 }));
    tenant.founder().post("/telemetry/llm-usage").json(&used).await.is(201);
    id
}

async fn reserve(client: &Client, id: &str, call_id: &str, cents: u32, status: u16) {
    let wanted = with(reservation(id, call_id), json!({ "estimated_cost_cents": cents }));
    client.post("/enforcement/reservations").json(&wanted).await.is(status);
}

#[tokio::test]
async fn a_refused_call_is_listed_with_its_reasons() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = nearly_spent(&tenant).await;
    let key = tenant.key(&["enforcement:check"]).await;
    reserve(&key, &id, "too-much", 20, 200).await;
    app.tick().await;
    let answer = key.get("/enforcement/decisions?call_id=too-much").await;
    insta::assert_json_snapshot!(answer.is(200).redacted(), @r#"
    {
      "data": [
        {
          "call_id": "too-much",
          "count": 1,
          "estimated_cost_cents": 20,
          "estimated_cost_usd": "0.2",
          "estimated_tokens": 1000,
          "first_at": "2026-03-14T09:26:53Z",
          "id": "[id 1]",
          "integration_id": "[id 2]",
          "kind": "reservation",
          "last_at": "2026-03-14T09:26:53Z",
          "reasons": [
            {
              "code": "budget_exceeded",
              "current_value": 90,
              "current_value_usd": "0.9",
              "limit_type": "budget",
              "limit_value": 100,
              "limit_value_usd": "1",
              "message": "This call does not fit: $0.9 of the $1 budget is used or held.",
              "retry_after_seconds": null,
              "threshold_percent": 100
            }
          ],
          "result": "blocked"
        }
      ],
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 20,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": null
      },
      "success": true
    }
    "#);
}

#[tokio::test]
async fn allowed_and_replayed_decisions_are_not_stored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
    let founder = tenant.founder();
    let check = json!({ "integration_id": id, "estimated_cost_cents": 1 });
    founder.post("/enforcement/check").json(&check).await.is(200);
    reserve(&founder, &id, "a", 10, 201).await;
    reserve(&founder, &id, "b", 75, 201).await;
    reserve(&founder, &id, "b", 75, 201).await;
    app.tick().await;
    let answer = founder.get("/enforcement/decisions").await;
    assert_eq!(answer.is(200).column("/call_id"), ["b"]);
    assert_eq!(answer.column("/result"), ["warned"]);
    assert_eq!(answer.at("/data/0/count"), 1);
}

#[tokio::test]
async fn equal_refusals_within_a_minute_share_a_row() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = nearly_spent(&tenant).await;
    let founder = tenant.founder();
    let check = json!({ "integration_id": id, "estimated_cost_cents": 11 });
    for seconds in [0, 1, 30, 40] {
        app.clock.advance(seconds);
        founder.post("/enforcement/check").json(&check).await.is(200);
        app.tick().await;
    }
    let answer = founder.get("/enforcement/decisions").await;
    let counts: Vec<&Value> =
        (0..2).map(|at| answer.at(["/data/0/count", "/data/1/count"][at])).collect();
    assert_eq!(counts, [1, 3]);
    assert_eq!(answer.is(200).column("/kind"), ["check", "check"]);
    assert_eq!(answer.at("/data/1/first_at"), "2026-03-14T09:26:53Z");
    assert_eq!(answer.at("/data/1/last_at"), "2026-03-14T09:27:24Z");
}

#[tokio::test]
async fn refusals_for_an_unknown_integration_are_listed() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    let unknown = "00000000-0000-8000-8000-000000000001";
    founder.post("/enforcement/check").json(&json!({ "integration_id": unknown })).await.is(200);
    reserve(&founder, unknown, "lost", 1, 200).await;
    app.tick().await;
    let answer = founder.get("/enforcement/decisions?reason=integration_not_found").await;
    assert_eq!(answer.is(200).data().as_array().unwrap().len(), 2);
    assert!(answer.at("/data/0/integration_id").is_null());
    assert_eq!(answer.at("/data/0/result"), "hard_blocked");
}

#[tokio::test]
async fn filters_and_pages_leave_nothing_out() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = nearly_spent(&tenant).await;
    let other = tenant.integration("other", json!({})).await;
    let founder = tenant.founder();
    founder.post(&format!("/integrations/{other}/disable")).await.is(200);
    for number in 0..5 {
        reserve(&founder, &id, &format!("blocked-{number}"), 20, 200).await;
        reserve(&founder, &other, &format!("disabled-{number}"), 20, 200).await;
        app.clock.advance(1);
    }
    app.tick().await;
    let count = async |query: &str| {
        let answer = founder.get(&format!("/enforcement/decisions?{query}")).await;
        answer.is(200).data().as_array().unwrap().len()
    };
    assert_eq!(count("").await, 10);
    assert_eq!(count(&format!("integration_id={id}")).await, 5);
    assert_eq!(count("result=blocked").await, 5);
    assert_eq!(count("result=hard_blocked&reason=integration_disabled").await, 5);
    assert_eq!(count("result=warned").await, 0);
    assert_eq!(count("call_id=disabled-3").await, 1);
    assert_eq!(count("start=2026-03-14T09:26:55Z").await, 6);
    assert_eq!(count("end=2026-03-14T09:26:55Z").await, 4);
    let mut walked = Vec::new();
    let mut query = "limit=3".to_owned();
    loop {
        let answer = founder.get(&format!("/enforcement/decisions?{query}")).await;
        walked.extend(answer.is(200).column("/call_id").into_iter().map(str::to_owned));
        if answer.at("/meta/has_more") != true {
            break;
        }
        query = format!("limit=3&cursor={}", answer.text("/meta/next_cursor"));
    }
    let newest_first: Vec<String> = (0..5)
        .rev()
        .flat_map(|number| [format!("disabled-{number}"), format!("blocked-{number}")])
        .collect();
    assert_eq!(walked, newest_first);
}

#[tokio::test]
async fn an_integration_key_sees_only_its_own_decisions() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let (id, other) = (nearly_spent(&tenant).await, tenant.integration("o", json!({})).await);
    let founder = tenant.founder();
    founder.post(&format!("/integrations/{other}/disable")).await.is(200);
    reserve(&founder, &id, "mine", 20, 200).await;
    reserve(&founder, &other, "not-mine", 20, 200).await;
    app.tick().await;
    let key = tenant.integration_key(&id).await;
    let answer = key.get("/enforcement/decisions").await;
    assert_eq!(answer.is(200).column("/call_id"), ["mine"]);
    let path = format!("/enforcement/decisions?integration_id={other}");
    key.get(&path).await.refused(404, "INTEGRATION_NOT_FOUND");
}

#[tokio::test]
async fn an_invalid_filter_of_decisions_is_refused_by_field() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (query, field) in [
        ("result=allowed", "result"),
        ("reason=because", "reason"),
        ("limit=101", "limit"),
        ("cursor=x", "cursor"),
        ("start=soon", "start"),
        ("integration_id=x", "integration_id"),
    ] {
        let path = format!("/enforcement/decisions?{query}");
        tenant.founder().get(&path).await.refused(422, "INVALID_FIELD").on(field);
    }
}
