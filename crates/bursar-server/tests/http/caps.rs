//! Limits on what a tenant may store, and the errors at these limits.

use serde_json::json;

use crate::support::{METRICS_TOKEN, TestApp, record, reservation, with};

#[tokio::test]
async fn a_reservation_beyond_a_limit_is_refused_with_the_limit() {
    let app = TestApp::with_settings(&[
        ("BURSAR_LIMITS_RESERVATIONS_PER_INTEGRATION", "2"),
        ("BURSAR_LIMITS_RESERVATIONS_PER_TENANT", "3"),
    ]);
    let tenant = app.tenant("a").await;
    let (one, other) =
        (tenant.integration("i", json!({})).await, tenant.integration("j", json!({})).await);
    let key = tenant.key(&["enforcement:check"]).await;
    let reserve = async |id: &str, call: &str| {
        key.post("/enforcement/reservations").json(&reservation(id, call)).await
    };
    for (id, call) in [(&one, "a"), (&one, "b"), (&other, "c")] {
        reserve(id, call).await.is(201);
    }
    let full = reserve(&one, "d").await;
    let message = full.refused(409, "TOO_MANY_RESERVATIONS").text("/error/message");
    assert!(message.starts_with("The integration has 2 open reservations"), "{message}");
    let full = reserve(&other, "d").await;
    let message = full.refused(409, "TOO_MANY_RESERVATIONS").text("/error/message");
    assert!(message.starts_with("The tenant has 3 open reservations"), "{message}");
    reserve(&one, "a").await.is(201);
    key.delete("/enforcement/reservations/a").await.is(200);
    reserve(&other, "d").await.is(201);
}

#[tokio::test]
async fn a_record_beyond_the_bytes_of_a_day_is_refused_until_midnight() {
    let app = TestApp::with_settings(&[("BURSAR_LIMITS_STORED_BYTES_PER_DAY", "1300")]);
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.key(&["telemetry:write", "enforcement:check"]).await;
    key.post("/enforcement/reservations").json(&reservation(&id, "held")).await.is(201);
    let large =
        |call: &str| with(record(&id, call), json!({ "metadata": { "text": "x".repeat(600) } }));
    let write = async |body: &serde_json::Value| key.post("/telemetry/llm-usage").json(body).await;
    write(&large("a")).await.is(201);
    let refused = write(&large("b")).await;
    refused.refused(429, "STORED_BYTES_EXCEEDED");
    assert_eq!(refused.headers["retry-after"], "60");
    write(&large("a")).await.is(200);
    write(&large("held")).await.is(201);
    let batch = json!({ "records": [record(&id, "b"), large("a")] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&batch).await;
    let code = answer.is(200).text("/data/results/0/error/code");
    assert_eq!(code, "STORED_BYTES_EXCEEDED");
    assert_eq!(answer.text("/data/results/1/status"), "duplicate");
    app.clock.set((2026, 3, 15), 0);
    write(&large("b")).await.is(201);

    let metrics = app.anonymous().with("authorization", &format!("Bearer {METRICS_TOKEN}"));
    let metrics = metrics.root("/metrics").await;
    let line = format!("bursar_stored_bytes_total{{tenant_id=\"{}\"}} ", tenant.id);
    assert!(metrics.body.contains(&line), "{line}");
}
