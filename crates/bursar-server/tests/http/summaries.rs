//! Sums of usage: for a period and for each day.

use serde_json::{Value, json};

use crate::support::{ApiResponse, Client, Tenant, TestApp, record, with};

/// Records calls of two integrations on three days; returns the integrations.
async fn record_three_days(tenant: &Tenant) -> [String; 2] {
    let first = tenant.integration("first", json!({})).await;
    let second = tenant.integration("second", json!({ "provider_type": "custom" })).await;
    let calls = [
        (&first, "2026-03-12T00:00:00Z", json!({ "latency_ms": 100 })),
        (&first, "2026-03-12T23:59:59.999999Z", json!({ "latency_ms": 201 })),
        (&first, "2026-03-12T12:00:00Z", json!({ "error_code": "timeout" })),
        (&first, "2026-03-13T00:00:00Z", json!({ "policy_result": "blocked" })),
        (&second, "2026-03-13T08:00:00Z", json!({ "error_code": "x", "policy_result": "blocked" })),
        (&second, "2026-03-14T08:00:00Z", json!({ "cost_cents": null, "policy_result": "warned" })),
    ];
    let records: Vec<Value> = calls
        .into_iter()
        .enumerate()
        .map(|(at, (id, occurred_at, more))| {
            with(record(id, &at.to_string()), with(more, json!({ "occurred_at": occurred_at })))
        })
        .collect();
    let batch = json!({ "records": records });
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 6);
    [first, second]
}

#[tokio::test]
async fn a_summary_adds_everything_up() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_three_days(&tenant).await;
    let key = tenant.key(&["telemetry:read"]).await;
    let summary = key.get("/telemetry/usage-summary").await;
    insta::assert_json_snapshot!(summary.is(200).redacted(), @r#"
    {
      "data": {
        "avg_latency_ms": 150.5,
        "blocked_count": 2,
        "by_integration": [
          {
            "error_count": 1,
            "integration_id": "[id 1]",
            "integration_name": "first",
            "provider_type": "openai",
            "total_calls": 4,
            "total_cost_cents": 5,
            "total_cost_usd": "0.05",
            "total_tokens": 4000
          },
          {
            "error_count": 1,
            "integration_id": "[id 2]",
            "integration_name": "second",
            "provider_type": "custom",
            "total_calls": 2,
            "total_cost_cents": 1,
            "total_cost_usd": "0.0125",
            "total_tokens": 2000
          }
        ],
        "error_count": 2,
        "latency_p50_ms": 100,
        "latency_p95_ms": 300,
        "latency_p99_ms": 300,
        "period_end": "2026-03-14",
        "period_start": "2026-02-13",
        "tenant_id": "[id 3]",
        "total_calls": 6,
        "total_cost_cents": 6,
        "total_cost_usd": "0.0625",
        "total_tokens_in": 4800,
        "total_tokens_out": 1200,
        "unpriced_count": 1
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
async fn a_summary_of_one_integration_has_no_breakdown() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [_, second] = record_three_days(&tenant).await;
    let path = format!("/telemetry/usage-summary?integration_id={second}");
    let summary = tenant.founder().get(&path).await;
    assert!(summary.is(200).at("/data/by_integration").is_null());
    assert_eq!(summary.at("/data/total_calls"), 2);
    assert_eq!(summary.at("/data/error_count"), 1);
    assert_eq!(summary.at("/data/blocked_count"), 1);
    assert_eq!(summary.at("/data/unpriced_count"), 1);
    assert!(summary.at("/data/avg_latency_ms").is_null());
}

#[tokio::test]
async fn a_summary_includes_its_first_and_last_day() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_three_days(&tenant).await;
    for (query, start, end, calls) in [
        ("", "2026-02-13", "2026-03-14", 6),
        ("?start_date=2026-03-12&end_date=2026-03-12", "2026-03-12", "2026-03-12", 3),
        ("?start_date=2026-03-13", "2026-03-13", "2026-03-14", 3),
        ("?end_date=2026-03-13", "2026-02-12", "2026-03-13", 5),
        ("?start_date=2026-03-15&end_date=2026-03-20", "2026-03-15", "2026-03-20", 0),
        ("?start_date=2025-03-14&end_date=2026-03-14", "2025-03-14", "2026-03-14", 6),
    ] {
        let summary = tenant.founder().get(&format!("/telemetry/usage-summary{query}")).await;
        assert_eq!(summary.is(200).text("/data/period_start"), start, "{query}");
        assert_eq!(summary.text("/data/period_end"), end, "{query}");
        assert_eq!(summary.at("/data/total_calls"), calls, "{query}");
    }
}

#[tokio::test]
async fn daily_aggregates_have_one_row_per_day_and_integration() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [first, second] = record_three_days(&tenant).await;
    let days = tenant.founder().get("/telemetry/daily-aggregates").await;
    insta::assert_json_snapshot!(days.is(200).redacted(), @r#"
    {
      "data": [
        {
          "avg_latency_ms": 150.5,
          "blocked_count": 0,
          "date": "2026-03-12",
          "error_count": 1,
          "integration_id": "[id 1]",
          "success_rate": 0.6666,
          "total_calls": 3,
          "total_cost_cents": 4,
          "total_cost_usd": "0.0375",
          "total_tokens": 3000,
          "total_tokens_in": 2400,
          "total_tokens_out": 600
        },
        {
          "avg_latency_ms": null,
          "blocked_count": 1,
          "date": "2026-03-13",
          "error_count": 0,
          "integration_id": "[id 1]",
          "success_rate": 0.0,
          "total_calls": 1,
          "total_cost_cents": 1,
          "total_cost_usd": "0.0125",
          "total_tokens": 1000,
          "total_tokens_in": 800,
          "total_tokens_out": 200
        },
        {
          "avg_latency_ms": null,
          "blocked_count": 1,
          "date": "2026-03-13",
          "error_count": 1,
          "integration_id": "[id 2]",
          "success_rate": 0.0,
          "total_calls": 1,
          "total_cost_cents": 1,
          "total_cost_usd": "0.0125",
          "total_tokens": 1000,
          "total_tokens_in": 800,
          "total_tokens_out": 200
        },
        {
          "avg_latency_ms": null,
          "blocked_count": 0,
          "date": "2026-03-14",
          "error_count": 0,
          "integration_id": "[id 2]",
          "success_rate": 1.0,
          "total_calls": 1,
          "total_cost_cents": 0,
          "total_cost_usd": "0",
          "total_tokens": 1000,
          "total_tokens_in": 800,
          "total_tokens_out": 200
        }
      ],
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 10000,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": 4
      },
      "success": true
    }
    "#);
    for (integration, dates) in
        [(first, ["2026-03-12", "2026-03-13"]), (second, ["2026-03-13", "2026-03-14"])]
    {
        let path = format!("/telemetry/daily-aggregates?integration_id={integration}");
        let mut found: Vec<String> =
            tenant.founder().get(&path).await.column("/date").into_iter().map(Into::into).collect();
        found.sort();
        assert_eq!(found, dates);
    }
}

#[tokio::test]
async fn a_late_record_counts_on_its_own_day() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [first, _] = record_three_days(&tenant).await;
    let late = with(record(&first, "late"), json!({ "occurred_at": "2026-03-12T05:00:00Z" }));
    tenant.founder().post("/telemetry/llm-usage").json(&late).await.is(201);
    let path = "/telemetry/daily-aggregates?start_date=2026-03-12&end_date=2026-03-12";
    let days = tenant.founder().get(path).await;
    assert_eq!(days.is(200).at("/data/0/total_calls"), 4);
    assert_eq!(days.at("/data/0/success_rate"), 0.75);
}

#[tokio::test]
async fn without_usage_the_summary_is_zero_and_there_are_no_days() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    tenant.integration("i", json!({})).await;
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.is(200).at("/data/total_calls"), 0);
    assert_eq!(summary.text("/data/total_cost_usd"), "0");
    assert!(summary.at("/data/avg_latency_ms").is_null());
    assert_eq!(*summary.at("/data/by_integration"), json!([]));
    let days = tenant.founder().get("/telemetry/daily-aggregates").await;
    assert_eq!(*days.is(200).data(), json!([]));
}

async fn get(client: &Client, path: &str, query: &str) -> ApiResponse {
    client.get(&format!("/telemetry/{path}?{query}")).await
}

#[tokio::test]
async fn an_invalid_period_is_refused() {
    let app = TestApp::new();
    let founder = app.tenant("a").await.founder();
    for path in ["usage-summary", "daily-aggregates"] {
        for wrong in ["2026-02-30", "2026-13-01", "2026-3-1", "2026-03-01T00:00:00Z", "today", "0"]
        {
            get(&founder, path, &format!("start_date={wrong}"))
                .await
                .refused(422, "INVALID_FIELD")
                .on("start_date");
            get(&founder, path, &format!("end_date={wrong}"))
                .await
                .refused(422, "INVALID_FIELD")
                .on("end_date");
        }
        for wrong in [
            "start_date=2026-03-15",
            "start_date=2026-03-02&end_date=2026-03-01",
            "start_date=2025-03-13&end_date=2026-03-14",
        ] {
            get(&founder, path, wrong).await.refused(422, "INVALID_FIELD").on("start_date");
        }
        get(&founder, path, "integration_id=1")
            .await
            .refused(422, "INVALID_FIELD")
            .on("integration_id");
        get(&founder, path, "start=2026-03-01").await.refused(422, "UNKNOWN_FIELD").on("start");
        get(&founder, path, "end_date=2026-03-01&end_date=2026-03-02")
            .await
            .refused(422, "INVALID_FIELD")
            .on("end_date");
    }
}
