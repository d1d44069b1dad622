//! Single usage records.

use serde_json::{Value, json};

use crate::support::{TestApp, record, reservation, with};

/// A record with every field.
fn full(integration_id: &str) -> Value {
    json!({
        "integration_id": integration_id,
        "call_id": "call-1",
        "session_id": "session-1",
        "agent_id": "agent-1",
        "provider": "openai",
        "model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "region": "eu-central-1",
        "provider_request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
        "service_tier": "priority",
        "tokens_in": 1200,
        "tokens_out": 340,
        "tokens_cache_read": 1000,
        "tokens_cache_write": 100,
        "tokens_cache_write_long": 60,
        "tokens_audio_in": 50,
        "tokens_image_in": 50,
        "tokens_reasoning": 40,
        "tokens_audio_out": 20,
        "tokens_image_out": 10,
        "usage_status": "partial",
        "units": { "web_search": 2, "seconds": "12.50" },
        "tags": { "team": " search ", "feature": "größe" },
        "cost_cents": 0.0125,
        "latency_ms": 830,
        "policy_result": "warned",
        "error_code": "rate_limited",
        "error_message": "Too many requests.",
        "metadata": { "trace": "4bf92f35", "tags": ["a", { "b": null }] },
        "occurred_at": "2026-03-14T10:00:00.5+01:00",
    })
}

#[tokio::test]
async fn a_record_is_accepted_once_and_the_history_shows_every_field() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.key(&["telemetry:write"]).await;
    let accepted = key.post("/telemetry/llm-usage").json(&full(&id)).await;
    insta::assert_json_snapshot!(accepted.is(201).redacted(), @r#"
    {
      "data": {
        "call_id": "call-1",
        "cost_source": "reported",
        "id": "[id 1]",
        "ignored_fields": [],
        "status": "accepted"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let duplicate = key.post("/telemetry/llm-usage").json(&full(&id)).await;
    insta::assert_json_snapshot!(duplicate.is(200).redacted(), @r#"
    {
      "data": {
        "call_id": "call-1",
        "cost_source": "reported",
        "id": "[id 1]",
        "ignored_fields": [],
        "status": "duplicate"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    assert_eq!(duplicate.at("/data/id"), accepted.at("/data/id"));
    let history = tenant.founder().get("/telemetry/usage-history").await;
    insta::assert_json_snapshot!(history.is(200).redacted(), @r#"
    {
      "data": [
        {
          "agent_id": "agent-1",
          "call_id": "call-1",
          "computed_cost_usd": null,
          "cost_cents": 0,
          "cost_source": "reported",
          "cost_usd": "0.000125",
          "created_at": "2026-03-14T09:26:53Z",
          "error_code": "rate_limited",
          "error_message": "Too many requests.",
          "id": "[id 1]",
          "integration_id": "[id 2]",
          "key_id": "[id 3]",
          "kind": "usage",
          "latency_ms": 830,
          "metadata": {
            "tags": [
              "a",
              {
                "b": null
              }
            ],
            "trace": "4bf92f35"
          },
          "model": "gpt-4o",
          "occurred_at": "2026-03-14T09:00:00.500000Z",
          "policy_result": "warned",
          "provider": "openai",
          "provider_request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
          "region": "eu-central-1",
          "reported_cost_usd": "0.000125",
          "response_model": "gpt-4o-2024-08-06",
          "service_tier": "priority",
          "session_id": "session-1",
          "source": "api",
          "tags": {
            "feature": "größe",
            "team": "search"
          },
          "tokens_audio_in": 50,
          "tokens_audio_out": 20,
          "tokens_cache_read": 1000,
          "tokens_cache_write": 100,
          "tokens_cache_write_long": 60,
          "tokens_image_in": 50,
          "tokens_image_out": 10,
          "tokens_in": 1200,
          "tokens_out": 340,
          "tokens_reasoning": 40,
          "total_tokens": 1540,
          "units": {
            "seconds": 12.5,
            "web_search": 2
          },
          "usage_status": "partial"
        }
      ],
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 50,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": 1
      },
      "success": true
    }
    "#);
}

#[tokio::test]
async fn a_record_needs_few_fields() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let short = json!({
        "integration_id": id, "call_id": "c", "provider": "p", "model": "m",
        "tokens_in": 0,
    });
    tenant.founder().post("/telemetry/llm-usage").json(&short).await.is(201);
    let history = tenant.founder().get("/telemetry/usage-history").await;
    insta::assert_json_snapshot!(history.is(200).data(), @r#"
    [
      {
        "agent_id": null,
        "call_id": "c",
        "computed_cost_usd": null,
        "cost_cents": 0,
        "cost_source": "unknown",
        "cost_usd": "0",
        "created_at": "2026-03-14T09:26:53Z",
        "error_code": null,
        "error_message": null,
        "id": "0064cf89-6087-8145-8271-2dd8f0043c9e",
        "integration_id": "0064cf89-6087-8142-94f0-37cc41ded2f5",
        "key_id": null,
        "kind": "usage",
        "latency_ms": null,
        "metadata": {},
        "model": "m",
        "occurred_at": "2026-03-14T09:26:53Z",
        "policy_result": "allowed",
        "provider": "p",
        "provider_request_id": null,
        "region": null,
        "reported_cost_usd": null,
        "response_model": null,
        "service_tier": null,
        "session_id": null,
        "source": "api",
        "tags": {},
        "tokens_audio_in": 0,
        "tokens_audio_out": 0,
        "tokens_cache_read": 0,
        "tokens_cache_write": 0,
        "tokens_cache_write_long": 0,
        "tokens_image_in": 0,
        "tokens_image_out": 0,
        "tokens_in": 0,
        "tokens_out": 0,
        "tokens_reasoning": 0,
        "total_tokens": 0,
        "units": {},
        "usage_status": "final"
      }
    ]
    "#);
}

#[tokio::test]
async fn an_explicit_null_is_an_absent_field() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let nulls = json!({
        "session_id": null, "agent_id": null, "tokens_cache_read": null,
        "tokens_cache_write": null, "tokens_reasoning": null, "cost_cents": null,
        "latency_ms": null, "policy_result": null, "error_code": null, "error_message": null,
        "metadata": null, "occurred_at": null,
    });
    let sent = with(record(&id, "c"), nulls);
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.text("/data/0/cost_source"), "unknown");
    assert_eq!(history.text("/data/0/policy_result"), "allowed");
    assert_eq!(*history.at("/data/0/metadata"), json!({}));
}

#[tokio::test]
async fn a_call_id_with_other_content_conflicts_and_changes_nothing() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let other = tenant.integration("other", json!({})).await;
    let post = async |body: Value| tenant.founder().post("/telemetry/llm-usage").json(&body).await;
    post(full(&id)).await.is(201);
    for difference in [
        json!({ "integration_id": other }),
        json!({ "session_id": "session-2" }),
        json!({ "session_id": null }),
        json!({ "agent_id": "agent-2" }),
        json!({ "provider": "azure" }),
        json!({ "model": "gpt-4o-mini" }),
        json!({ "tokens_in": 1201 }),
        json!({ "tokens_out": 341 }),
        json!({ "cost_cents": 0.0126 }),
        json!({ "cost_cents": null }),
        json!({ "policy_result": "allowed" }),
        json!({ "error_code": null }),
        json!({ "occurred_at": "2026-03-14T09:00:00.6Z" }),
    ] {
        let conflict = post(with(full(&id), difference)).await;
        conflict.refused(409, "CALL_ID_CONFLICT").on("call_id");
    }
    for agreement in [
        json!({ "occurred_at": null }),
        json!({ "occurred_at": "2026-03-14T09:00:00.500Z" }),
        json!({ "cost_cents": 0.01250 }),
        json!({ "response_model": "other" }),
        json!({ "region": null }),
        json!({ "latency_ms": 1 }),
        json!({ "metadata": {} }),
        json!({ "error_message": "other words" }),
        json!({ "tokens_cache_read": 0 }),
        json!({ "provider_request_id": "other", "service_tier": null }),
        json!({ "tokens_audio_in": 0, "tokens_image_out": 1 }),
        json!({ "usage_status": "estimated", "units": { "pages": 1 }, "tags": {} }),
    ] {
        let duplicate = post(with(full(&id), agreement)).await;
        assert_eq!(duplicate.is(200).text("/data/status"), "duplicate");
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 1);
    assert_eq!(summary.text("/data/total_cost_usd"), "0.000125");
}

#[tokio::test]
async fn a_call_id_belongs_to_its_tenant() {
    let app = TestApp::new();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    for tenant in [&a, &b] {
        let id = tenant.integration("i", json!({})).await;
        let sent = tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "same")).await;
        assert_eq!(sent.is(201).text("/data/status"), "accepted");
    }
}

#[tokio::test]
async fn an_unknown_field_of_a_record_is_ignored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let sent = with(record(&id, "c"), json!({ "tokens_imagined": 5, "nested": { "x": [1] } }));
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    let batch = json!({ "records": [with(sent, json!({ "call_id": "d" }))], "sender": "new" });
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 1);
}

#[tokio::test]
async fn a_record_from_the_future_is_refused_and_from_the_past_accepted() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for (occurred_at, accepted) in [
        ("2026-03-14T09:31:53Z", true),
        ("2026-03-14T09:31:53.000001Z", false),
        ("9999-12-31T23:59:59Z", false),
        ("2025-01-01T00:00:00Z", true),
        ("1970-01-01T00:00:00Z", true),
    ] {
        let sent = with(record(&id, occurred_at), json!({ "occurred_at": occurred_at }));
        let answer = tenant.founder().post("/telemetry/llm-usage").json(&sent).await;
        if accepted {
            answer.is(201);
        } else {
            answer.refused(422, "INVALID_FIELD").on("occurred_at");
        }
    }
    let history = tenant.founder().get("/telemetry/usage-history").await;
    let instants = ["2026-03-14T09:31:53Z", "2025-01-01T00:00:00Z", "1970-01-01T00:00:00Z"];
    assert_eq!(history.column("/occurred_at"), instants);
}

#[tokio::test]
async fn a_record_without_occurred_at_takes_the_time_of_its_reservation() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let reserve = reservation(&id, "reserved");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    app.clock.advance(60);
    for call_id in ["reserved", "plain"] {
        tenant.founder().post("/telemetry/llm-usage").json(&record(&id, call_id)).await.is(201);
    }
    let history = tenant.founder().get("/telemetry/usage-history").await;
    let instants = ["2026-03-14T09:27:53Z", "2026-03-14T09:26:53Z"];
    assert_eq!(history.column("/occurred_at"), instants);
    assert_eq!(history.column("/created_at"), ["2026-03-14T09:27:53Z"; 2]);
}

#[tokio::test]
async fn a_record_of_an_unknown_integration_is_not_found() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let unknown = "00000000-0000-8000-8000-000000000000";
    let sent = tenant.founder().post("/telemetry/llm-usage").json(&record(unknown, "c")).await;
    sent.refused(404, "INTEGRATION_NOT_FOUND").on("integration_id");
}
