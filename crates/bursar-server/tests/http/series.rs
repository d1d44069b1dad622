//! Breakdowns and series of usage.

use serde_json::{Value, json};

use crate::support::{ApiResponse, Tenant, TestApp, record, with};

/// Stores nine calls on two days with two models, providers, agents and sessions.
async fn record_nine(tenant: &Tenant) -> [String; 2] {
    let first = tenant.integration("first", json!({})).await;
    let second = tenant.integration("second", json!({ "provider_type": "anthropic" })).await;
    let records: Vec<Value> = (0..9)
        .map(|at: usize| {
            let (day, hour) = if at < 5 { (13, 23) } else { (14, at) };
            let (provider, model) = [("openai", "gpt-4o"), ("anthropic", "haiku")][at % 2];
            let agents = [Some("planner"), Some("writer"), None];
            let sessions = [Some("s1"), None, Some("s2")];
            let more = json!({
                "occurred_at": format!("2026-03-{day}T{hour:02}:{at:02}:00Z"),
                "provider": provider,
                "model": model,
                "agent_id": (agents[at % 3]),
                "session_id": (sessions[at % 3]),
                "cost_cents": at,
                "latency_ms": 100 * at,
                "error_code": if at == 8 { json!("timeout") } else { json!(null) },
            });
            with(record([&first, &second][at % 2], &format!("call-{at}")), more)
        })
        .collect();
    let batch = json!({ "records": records });
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 9);
    [first, second]
}

async fn get(tenant: &Tenant, query: &str) -> ApiResponse {
    tenant.key(&["telemetry:read"]).await.get(&format!("/telemetry/{query}")).await
}

#[tokio::test]
async fn a_breakdown_lists_the_groups_with_the_highest_cost() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_nine(&tenant).await;
    let answer = get(&tenant, "usage-breakdown?by=model&limit=1").await;
    insta::assert_json_snapshot!(answer.is(200).redacted(), @r#"
    {
      "data": {
        "by": "model",
        "groups": [
          {
            "avg_latency_ms": 400.0,
            "blocked_count": 0,
            "cost_percent": 55.55,
            "error_count": 1,
            "latency_p50_ms": 500,
            "latency_p95_ms": 1000,
            "latency_p99_ms": 1000,
            "model": "gpt-4o",
            "provider": "openai",
            "success_rate": 0.8,
            "total_calls": 5,
            "total_cost_cents": 20,
            "total_cost_usd": "0.2",
            "total_tokens": 5000,
            "total_tokens_in": 4000,
            "total_tokens_out": 1000,
            "unpriced_count": 0
          }
        ],
        "other": {
          "avg_latency_ms": 400.0,
          "blocked_count": 0,
          "error_count": 0,
          "latency_p50_ms": 300,
          "latency_p95_ms": 750,
          "latency_p99_ms": 750,
          "success_rate": 1.0,
          "total_calls": 4,
          "total_cost_cents": 16,
          "total_cost_usd": "0.16",
          "total_tokens": 4000,
          "total_tokens_in": 3200,
          "total_tokens_out": 800,
          "unpriced_count": 0
        },
        "period_end": "2026-03-14",
        "period_start": "2026-02-13",
        "total": {
          "avg_latency_ms": 400.0,
          "blocked_count": 0,
          "error_count": 1,
          "latency_p50_ms": 400,
          "latency_p95_ms": 1000,
          "latency_p99_ms": 1000,
          "success_rate": 0.8888,
          "total_calls": 9,
          "total_cost_cents": 36,
          "total_cost_usd": "0.36",
          "total_tokens": 9000,
          "total_tokens_in": 7200,
          "total_tokens_out": 1800,
          "unpriced_count": 0
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
async fn groups_and_the_others_add_up_to_the_total() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let [first, _] = record_nine(&tenant).await;
    // The name and calls of each group, and the calls of all others.
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, i64)], i64);
    let cases: [Case<'_>; 8] = [
        ("by=integration", "integration_name", &[("first", 5), ("second", 4)], 0),
        ("by=integration&limit=1", "integration_name", &[("first", 5)], 4),
        ("by=provider", "provider", &[("openai", 5), ("anthropic", 4)], 0),
        ("by=model", "model", &[("gpt-4o", 5), ("haiku", 4)], 0),
        ("by=agent", "agent_id", &[("writer", 3), ("planner", 3)], 3),
        ("by=session", "session_id", &[("s2", 3), ("s1", 3)], 3),
        ("by=agent&start_date=2026-03-14", "agent_id", &[("writer", 1), ("planner", 1)], 2),
        ("by=session&end_date=2026-03-13", "session_id", &[("s1", 2), ("s2", 1)], 2),
    ];
    for (query, name, groups, left) in cases {
        let answer = get(&tenant, &format!("usage-breakdown?{query}")).await;
        let found = answer.is(200).at("/data/groups").as_array().unwrap();
        let found: Vec<(&str, i64)> = found
            .iter()
            .map(|group| (group[name].as_str().unwrap(), group["total_calls"].as_i64().unwrap()))
            .collect();
        assert_eq!(found, groups, "{query}");
        assert_eq!(answer.at("/data/other/total_calls"), left, "{query}");
        let grouped: i64 = groups.iter().map(|(_, calls)| calls).sum();
        assert_eq!(answer.at("/data/total/total_calls"), grouped + left, "{query}");
    }
    let of_first = format!("usage-breakdown?by=model&integration_id={first}");
    let answer = get(&tenant, &of_first).await;
    assert_eq!(answer.is(200).at("/data/total/total_cost_cents"), 20);
    assert_eq!(answer.at("/data/groups/0/cost_percent"), 100.0);
}

#[tokio::test]
async fn a_series_has_a_point_for_each_step_with_calls() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_nine(&tenant).await;
    let answer = get(&tenant, "usage-series?start_date=2026-03-01").await;
    let starts = |pointer: &str| -> Vec<(String, i64)> {
        let points = answer.at(pointer).as_array().unwrap();
        let point = |point: &Value| {
            (point["start"].as_str().unwrap().to_owned(), point["total_calls"].as_i64().unwrap())
        };
        points.iter().map(point).collect()
    };
    let at = |text: &str, calls| (text.to_owned(), calls);
    let days = [at("2026-03-13T00:00:00Z", 5), at("2026-03-14T00:00:00Z", 4)];
    assert_eq!(starts("/data/total"), days);
    assert_eq!(answer.is(200).at("/data/groups"), &json!([]));
    assert_eq!(answer.at("/data/other"), &json!([]));
    assert_eq!(answer.at("/data/step"), "day");
    assert!(answer.at("/data/group_by").is_null());

    let answer = get(&tenant, "usage-series?step=hour&group_by=model&limit=1").await;
    let total = answer.is(200).at("/data/total").as_array().unwrap();
    assert_eq!(total.len(), 5);
    assert_eq!(total[0]["start"], "2026-03-13T23:00:00Z");
    assert_eq!(total[0]["total_calls"], 5);
    assert_eq!(answer.at("/data/groups/0/model"), "gpt-4o");
    assert_eq!(answer.at("/data/groups/0/provider"), "openai");
    let points = answer.at("/data/groups/0/points").as_array().unwrap();
    let calls: Vec<&Value> = points.iter().map(|point| &point["total_calls"]).collect();
    assert_eq!(calls, [3, 1, 1]);
    let others = answer.at("/data/other").as_array().unwrap();
    assert_eq!(others.len(), 3);
}

#[tokio::test]
async fn groups_step_by_step_add_up_to_the_total() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_nine(&tenant).await;
    for query in [
        "group_by=integration",
        "group_by=integration&step=hour",
        "group_by=provider&step=hour&limit=1",
        "group_by=model",
        "group_by=agent",
        "group_by=agent&limit=1",
    ] {
        let path = format!("usage-series?{query}&start_date=2026-03-13");
        let answer = get(&tenant, &path).await;
        let sum = |points: &Value| -> i64 {
            let points = points.as_array().unwrap();
            points.iter().map(|point| point["total_cost_cents"].as_i64().unwrap()).sum()
        };
        let groups = answer.is(200).at("/data/groups").as_array().unwrap();
        let grouped: i64 = groups.iter().map(|group| sum(&group["points"])).sum();
        let total = sum(answer.at("/data/total"));
        assert_eq!(total, 36, "{query}");
        assert_eq!(grouped + sum(answer.at("/data/other")), total, "{query}");
    }
}

#[tokio::test]
async fn latency_percentiles_come_from_the_histogram() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    record_nine(&tenant).await;
    let answer = get(&tenant, "usage-breakdown?by=provider").await;
    // Latencies of 0 to 800 ms; the percentiles are in the buckets 300–500 and 750–1000.
    assert_eq!(answer.is(200).at("/data/total/avg_latency_ms"), 400.0);
    assert_eq!(answer.at("/data/total/latency_p50_ms"), 400);
    assert_eq!(answer.at("/data/total/latency_p99_ms"), 1_000);
    let sessions = get(&tenant, "usage-breakdown?by=session").await;
    assert_eq!(sessions.is(200).at("/data/groups/0/latency_p50_ms"), 500);
    assert_eq!(sessions.at("/data/groups/0/avg_latency_ms"), 500.0);
}

#[tokio::test]
async fn an_invalid_or_too_large_series_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (query, field) in [
        ("usage-breakdown?by=weather", "by"),
        ("usage-breakdown?by=model&limit=0", "limit"),
        ("usage-breakdown?by=model&limit=101", "limit"),
        ("usage-breakdown?by=session&start_date=2026-03-01", "start_date"),
        ("usage-breakdown?by=model&start_date=2024-03-01", "start_date"),
        ("usage-breakdown?by=model&start_date=2026-03-15", "start_date"),
        ("usage-breakdown?by=model&integration_id=x", "integration_id"),
        ("usage-series?group_by=session", "group_by"),
        ("usage-series?step=minute", "step"),
        ("usage-series?group_by=agent&step=hour", "step"),
        ("usage-series?step=hour&start_date=2026-02-01", "start_date"),
        ("usage-series?group_by=model&step=hour&limit=100", "limit"),
    ] {
        get(&tenant, query).await.refused(422, "INVALID_FIELD").on(field);
    }
    get(&tenant, "usage-series?by=model").await.refused(422, "UNKNOWN_FIELD").on("by");
}
