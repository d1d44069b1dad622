//! Signals and metrics of protection.

use serde_json::json;

use crate::protection::{FLOOR, PER_MINUTE, TRAFFIC_PER_SECOND, onboarded, signals, usage};
use crate::support::TestApp;

#[tokio::test]
async fn ten_times_the_usual_traffic_is_one_anomaly_signal_and_refuses_nothing() {
    let app = TestApp::with_settings(&[(FLOOR, "2")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["integrations:read"]).await;
    for _ in 0..30 {
        key.get("/integrations").await.is(200);
    }
    let shown = signals(&app, &tenant).await;
    let found = &shown.is(200).data()["signals"];
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found[0]["dimension"], "anomaly");
    assert_eq!(found[0]["action"], "warn");
    // The operator's request that created the key counts for the tenant.
    assert_eq!([&found[0]["current_value"], &found[0]["allowed_value"]], [20, 20]);
    assert_eq!([&found[0]["count"], &found[0]["retry_after_ms"]], [1, 0]);
}

#[tokio::test]
async fn signals_have_a_row_per_minute_while_the_clock_stands() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    for _ in 0..2 {
        key.get("/integrations").await.is(200);
        key.get("/integrations").await.refused(429, "RATE_LIMITED");
        app.tick().await;
        app.clock.advance_monotonic(60);
    }
    let shown = signals(&app, &tenant).await;
    assert_eq!(shown.is(200).data()["signals"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn signals_and_metrics_show_what_protection_refused() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (TRAFFIC_PER_SECOND, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for status in [200, 429, 429, 429] {
        key.get(&format!("/integrations/{id}")).await.is(status);
    }
    usage(&key, &id, "a").await.is(201);
    usage(&key, &id, "b").await.refused(503, "THROTTLED");
    let shown = signals(&app, &tenant).await;
    insta::assert_json_snapshot!(shown.is(200).redacted(), @r#"
    {
      "data": {
        "overrides": [],
        "signals": [
          {
            "action": "throttle",
            "allowed_value": 1,
            "count": 1,
            "current_value": 1,
            "dimension": "burst",
            "endpoint": "/api/v1/telemetry/llm-usage",
            "first_at": "2026-03-14T09:27:53Z",
            "id": "[id 1]",
            "last_at": "2026-03-14T09:27:53Z",
            "operation": "POST",
            "retry_after_ms": 1000
          },
          {
            "action": "reject",
            "allowed_value": 1,
            "count": 3,
            "current_value": 1,
            "dimension": "rate",
            "endpoint": "/api/v1/integrations/{id}",
            "first_at": "2026-03-14T09:27:53Z",
            "id": "[id 2]",
            "last_at": "2026-03-14T09:27:53Z",
            "operation": "GET",
            "retry_after_ms": 60000
          }
        ],
        "tenant_id": "[id 3]"
      },
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 100,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": null
      },
      "success": true
    }
    "#);
    let path = format!("/fdr/abuse/signals/{}?limit=1", tenant.id);
    let newest = app.founder().root(&path).await;
    assert_eq!(newest.is(200).data()["signals"].as_array().map(Vec::len), Some(1));
    app.founder().root(&format!("{path}001")).await.refused(422, "INVALID_FIELD").on("limit");
    let other = app.tenant("other").await;
    assert_eq!(signals(&app, &other).await.at("/data/signals"), &json!([]));
    let metrics = app.founder().root("/metrics").await.body;
    for row in
        ["{action=\"reject\",dimension=\"rate\"} 3", "{action=\"throttle\",dimension=\"burst\"} 1"]
    {
        let row = format!("bursar_protection_decisions_total{row}");
        assert!(metrics.contains(&row), "{row}");
    }
}
