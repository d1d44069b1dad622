//! What is accepted beyond a threshold: settling records, repetitions, releases and emergency
//! measures.

use serde_json::{Value, json};

use crate::protection::{
    PER_MINUTE, PER_SECOND, TRAFFIC_PER_MINUTE, TRAFFIC_PER_SECOND, batch, check, check_refused,
    onboarded, reserve, total_calls, usage,
};
use crate::support::{TestApp, record, with};

#[tokio::test]
async fn a_tenant_over_its_thresholds_can_still_revoke_keys_and_disable_integrations() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1"), (PER_SECOND, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let other = tenant.integration("other", json!({})).await;
    let made = tenant.founder().post(&format!("/integrations/{id}/keys")).await;
    let key_id = made.is(201).text("/data/id").to_owned();
    let known = tenant.founder().post("/keys").json(&json!({ "name": "n", "scopes": ["*"] })).await;
    let api_key_id = known.is(201).text("/data/id").to_owned();
    let key = tenant.key(&["*"]).await;
    app.clock.advance_monotonic(60);
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    key.get("/keys").await.refused(503, "THROTTLED");
    for _ in 0..3 {
        key.delete(&format!("/integrations/{id}/keys/{key_id}")).await.is(200);
        key.post(&format!("/integrations/{id}/disable")).await.is(200);
        key.delete(&format!("/keys/{api_key_id}")).await.is(200);
    }
    for integration in [&id, &other] {
        key.delete(&format!("/integrations/{integration}")).await.is(200);
    }
    key.post(&format!("/integrations/{id}/enable")).await.refused(503, "THROTTLED");
}

#[tokio::test]
async fn a_throttled_client_that_retries_loses_nothing() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_MINUTE, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for call_id in ["held-1", "held-2"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    for call_id in ["a", "b"] {
        usage(&key, &id, call_id).await.is(201);
        batch(&key, &id, &[&format!("{call_id}-1"), &format!("{call_id}-2")]).await.is(200);
    }
    // Beyond the threshold only settling records and repetitions are accepted.
    let full = |current| ("rate", [60_000, current, 2]);
    check_refused(&usage(&key, &id, "c").await, 429, "RATE_LIMITED", full(2));
    usage(&key, &id, "held-1").await.is(201);
    check_refused(&usage(&key, &id, "c").await, 429, "RATE_LIMITED", full(3));
    check_refused(&batch(&key, &id, &["d", "e"]).await, 429, "RATE_LIMITED", full(2));
    let mixed = ["d", "held-2", "e"];
    let answer = batch(&key, &id, &mixed).await;
    let counts = ["accepted", "errors", "total"].map(|name| answer.is(200).data()[name].clone());
    assert_eq!(counts, [1, 2, 3], "{}", answer.body);
    let statuses: Vec<&str> =
        (0..3).map(|at| answer.text(&format!("/data/results/{at}/status"))).collect();
    assert_eq!(statuses, ["error", "accepted", "error"]);
    assert_eq!(answer.text("/data/results/0/error/code"), "RATE_LIMITED");
    assert_eq!(answer.text("/data/results/2/error/details/dimension"), "rate");
    assert_eq!(total_calls(&tenant).await, 1 + 6 + 2);
    // The client repeats everything with the same call ids.
    app.clock.advance(60);
    usage(&key, &id, "c").await.is(201);
    usage(&key, &id, "held-1").await.is(200);
    let answer = batch(&key, &id, &mixed).await;
    let counts =
        ["accepted", "duplicates", "errors"].map(|name| answer.is(200).data()[name].clone());
    assert_eq!(counts, [2, 1, 0], "{}", answer.body);
    assert_eq!(total_calls(&tenant).await, 1 + 6 + 2 + 3);
    let open = key.get("/enforcement/reservations").await;
    assert_eq!(open.is(200).at("/meta/total"), 0);
}

#[tokio::test]
async fn beyond_a_threshold_a_stored_record_is_still_a_duplicate() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_MINUTE, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for call_id in ["held", "released"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    key.delete("/enforcement/reservations/released").await.is(200);
    for call_id in ["a", "b"] {
        usage(&key, &id, call_id).await.is(201);
        batch(&key, &id, &[&format!("{call_id}-1")]).await.is(200);
    }
    usage(&key, &id, "new").await.refused(429, "RATE_LIMITED");
    // The response was lost, and the client repeats its record.
    for (call_id, status) in [("held", 201), ("held", 200), ("released", 201), ("a", 200)] {
        let answer = usage(&key, &id, call_id).await;
        let word = if status == 201 { "accepted" } else { "duplicate" };
        assert_eq!(answer.is(status).text("/data/status"), word, "{call_id}");
    }
    let changed = with(record(&id, "a"), json!({ "model": "other" }));
    let answer = key.post("/telemetry/llm-usage").json(&changed).await;
    answer.refused(409, "CALL_ID_CONFLICT");
    let records = json!({ "records": [record(&id, "b"), record(&id, "new"), changed] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&records).await;
    let status = |at: usize| answer.text(&format!("/data/results/{at}/status"));
    assert_eq!([status(0), status(1), status(2)], ["duplicate", "error", "conflict"]);
    assert_eq!(answer.is(200).text("/data/results/1/error/code"), "RATE_LIMITED");
    // A batch without a stored record is refused as a whole with `Retry-After`.
    let full = ("rate", [60_000, 3, 2]);
    check_refused(&batch(&key, &id, &["new", "newer"]).await, 429, "RATE_LIMITED", full);
    assert_eq!(total_calls(&tenant).await, 1 + 4 + 2);
}

#[tokio::test]
async fn beyond_a_threshold_an_invalid_record_of_a_batch_still_gets_its_error() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_SECOND, "1")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(1);
    reserve(&key, &id, "held").await.is(201);
    let wrong = with(record(&id, "wrong"), json!({ "tokens_in": -1 }));
    let records = json!({ "records": [wrong, record(&id, "held"), record(&id, "new")] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&records).await;
    let code = |at: usize| answer.at(&format!("/data/results/{at}/error/code")).clone();
    assert_eq!(
        [code(0), code(1), code(2)],
        [json!("INVALID_FIELD"), Value::Null, "THROTTLED".into()]
    );
    assert_eq!(answer.is(200).data()["accepted"], 1);
    let only_wrong = json!({ "records": [wrong] });
    let answer = key.post("/telemetry/llm-usage/batch").json(&only_wrong).await;
    answer.refused(503, "THROTTLED");
}

#[tokio::test]
async fn a_release_counts_and_is_never_refused() {
    let app = TestApp::with_settings(&[(TRAFFIC_PER_MINUTE, "2"), (TRAFFIC_PER_SECOND, "2")]);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    for call_id in ["a", "b"] {
        reserve(&key, &id, call_id).await.is(201);
    }
    for call_id in ["a", "b", "a"] {
        key.delete(&format!("/enforcement/reservations/{call_id}")).await.is(200);
    }
    check_refused(&check(&key, &id).await, 503, "THROTTLED", ("burst", [1_000, 5, 2]));
}
