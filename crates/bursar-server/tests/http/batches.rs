//! Usage records, up to a thousand at a time.

use serde_json::{Value, json};

use crate::support::{TestApp, record, with};

#[tokio::test]
async fn each_record_of_a_batch_succeeds_or_fails_alone() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "known")).await.is(201);
    let batch = json!({ "records": [
        record(&id, "new"),
        record(&id, "known"),
        with(record(&id, "known"), json!({ "model": "other" })),
        with(record(&id, "bad"), json!({ "tokens_in": -1 })),
        record(&id, "new"),
        record("00000000-0000-8000-8000-000000000000", "foreign"),
        42,
        with(record(&id, "early"), json!({ "occurred_at": "2026-03-15T00:00:00Z" })),
        record(&id, "newer"),
    ] });
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
    let words = ".data.results[6].error.message";
    insta::assert_json_snapshot!(answer.is(200).redacted(), { words => "[words]" }, @r#"
    {
      "data": {
        "accepted": 2,
        "conflicts": 1,
        "duplicates": 2,
        "errors": 4,
        "results": [
          {
            "call_id": "new",
            "id": "[id 1]",
            "index": 0,
            "status": "accepted"
          },
          {
            "call_id": "known",
            "id": "[id 2]",
            "index": 1,
            "status": "duplicate"
          },
          {
            "call_id": "known",
            "error": {
              "code": "CALL_ID_CONFLICT",
              "field": "call_id",
              "message": "call_id is used by a record with other content"
            },
            "index": 2,
            "status": "conflict"
          },
          {
            "call_id": "bad",
            "error": {
              "code": "INVALID_FIELD",
              "field": "tokens_in",
              "message": "tokens_in must not be negative"
            },
            "index": 3,
            "status": "error"
          },
          {
            "call_id": "new",
            "id": "[id 1]",
            "index": 4,
            "status": "duplicate"
          },
          {
            "call_id": "foreign",
            "error": {
              "code": "INTEGRATION_NOT_FOUND",
              "field": "integration_id",
              "message": "integration_id names no integration of this tenant"
            },
            "index": 5,
            "status": "error"
          },
          {
            "call_id": null,
            "error": {
              "code": "INVALID_FIELD",
              "message": "[words]"
            },
            "index": 6,
            "status": "error"
          },
          {
            "call_id": "early",
            "error": {
              "code": "INVALID_FIELD",
              "field": "occurred_at",
              "message": "occurred_at must not lie more than 5 minutes in the future"
            },
            "index": 7,
            "status": "error"
          },
          {
            "call_id": "newer",
            "id": "[id 3]",
            "index": 8,
            "status": "accepted"
          }
        ],
        "total": 9
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 3);
}

#[tokio::test]
async fn a_batch_sent_twice_changes_nothing_the_second_time() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let records: Vec<Value> = (0..1_000).map(|call| record(&id, &format!("call-{call}"))).collect();
    let batch = json!({ "records": records });
    for (status, count) in [("accepted", "accepted"), ("duplicate", "duplicates")] {
        let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
        assert_eq!(answer.is(200).at("/data/total"), 1_000);
        assert_eq!(answer.data()[count], 1_000);
        let results = answer.at("/data/results").as_array().unwrap();
        assert!(results.iter().all(|result| result["status"] == status));
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 1_000);
    assert_eq!(summary.at("/data/total_tokens_in"), 800_000);
    assert_eq!(summary.at("/data/total_cost_cents"), 1_250);
}

#[tokio::test]
async fn a_batch_of_bad_records_only_is_answered_record_by_record() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").body(r#"{"records":[{},[]]}"#);
    let answer = answer.await;
    assert_eq!(answer.is(200).at("/data/errors"), 2);
    assert!(answer.at("/data/results/0/call_id").is_null());
}

#[tokio::test]
async fn only_a_malformed_envelope_refuses_the_whole_batch() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let records = |count: usize| vec![record(&id, "c"); count];
    for (body, status, field) in [
        (json!({ "records": [] }), 422, Some("records")),
        (json!({ "records": records(1_001) }), 422, Some("records")),
        (json!({ "records": "none" }), 422, Some("records")),
        (json!({ "records": null }), 422, Some("records")),
        (json!({ "record": records(1) }), 422, Some("records")),
        (json!({}), 422, Some("records")),
        (json!(records(1)), 422, None),
        (json!("records"), 422, None),
    ] {
        let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&body).await;
        answer.refused(status, "INVALID_FIELD");
        if let Some(field) = field {
            answer.on(field);
        }
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 0);
}

#[tokio::test]
async fn an_integration_key_sends_batches_for_its_integration_only() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let other = tenant.integration("other", json!({})).await;
    let key = tenant.integration_key(&id).await;
    let mut unnamed = record(&id, "unnamed");
    unnamed.as_object_mut().unwrap().remove("integration_id");
    let batch = json!({ "records": [unnamed, record(&other, "foreign"), record(&id, "named")] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 2);
    assert_eq!(answer.text("/data/results/1/error/field"), "integration_id");
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 2);
}
