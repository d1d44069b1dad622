//! Overrides of thresholds by the operator.

use serde_json::{Value, json};

use crate::protection::{
    PER_MINUTE, TRAFFIC_PER_MINUTE, check_refused, onboarded, overriding, signals, usage,
};
use crate::support::{ApiResponse, TestApp};

#[tokio::test]
async fn an_override_applies_at_once_until_it_expires() {
    let app = TestApp::with_settings(&[(PER_MINUTE, "1")]);
    let (tenant, _) = onboarded(&app).await;
    let key = tenant.key(&["integrations:read"]).await;
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(429, "RATE_LIMITED");
    let made = app.founder().root_post("/fdr/abuse/override", &overriding(&tenant, json!({})));
    insta::assert_json_snapshot!(made.await.is(201).redacted(), @r#"
    {
      "data": {
        "allowed_value": 5,
        "created_at": "2026-03-14T09:26:53Z",
        "created_by": "operator",
        "dimension": "rate",
        "expires_at": "2026-03-14T09:40:00Z",
        "reason": "a launch that we agreed on",
        "tenant_id": "[id 1]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    for _ in 1..5 {
        key.get("/integrations").await.is(200);
    }
    let full = ("rate", [60_000, 5, 5]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    // A later override replaces it; 0 is unlimited.
    let unlimited = overriding(&tenant, json!({ "allowed_value": 0 }));
    app.founder().root_post("/fdr/abuse/override", &unlimited).await.is(201);
    for _ in 0..10 {
        key.get("/integrations").await.is(200);
    }
    let shown = signals(&app, &tenant).await;
    assert_eq!(shown.is(200).at("/data/overrides/0/allowed_value"), 0);
    assert_eq!(shown.at("/data/overrides/1"), &Value::Null);
    app.clock.set((2026, 3, 14), 9 * 3_600 + 40 * 60);
    key.get("/integrations").await.is(200);
    let full = ("rate", [60_000, 1, 1]);
    check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
    assert_eq!(signals(&app, &tenant).await.at("/data/overrides/0"), &Value::Null);
}

#[tokio::test]
async fn an_override_sets_the_threshold_of_its_dimension() {
    let app = TestApp::new();
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    let put = async |dimension: &str, allowed_value: u32| {
        let changes = json!({ "dimension": dimension, "allowed_value": allowed_value });
        let made = app.founder().root_post("/fdr/abuse/override", &overriding(&tenant, changes));
        made.await.is(201);
    };
    put("burst", 1).await;
    key.get("/integrations").await.is(200);
    key.get("/integrations").await.refused(503, "THROTTLED");
    usage(&key, &id, "a").await.is(201);
    usage(&key, &id, "b").await.refused(503, "THROTTLED");
    put("burst", 0).await;
    app.clock.advance(1);
    put("anomaly", 1).await;
    for _ in 0..20 {
        key.get("/integrations").await.is(200);
    }
    let shown = signals(&app, &tenant).await;
    let dimensions = |answer: &ApiResponse| -> Vec<String> {
        let rows = answer.data()["signals"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["dimension"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(dimensions(&shown), ["anomaly", "burst", "burst"], "{}", shown.body);
}

#[tokio::test]
async fn an_override_that_raises_management_does_not_lower_traffic() {
    let settings = [(PER_MINUTE, "2"), (TRAFFIC_PER_MINUTE, "4")];
    let app = TestApp::with_settings(&settings);
    let (tenant, id) = onboarded(&app).await;
    let key = tenant.key(&["*"]).await;
    app.clock.advance(60);
    let put = async |allowed_value: u32| {
        let changes = json!({ "allowed_value": allowed_value });
        let made = app.founder().root_post("/fdr/abuse/override", &overriding(&tenant, changes));
        made.await.is(201);
        app.clock.advance(60);
    };
    let check_both = async |round: &str, management: i64, traffic: i64| {
        for _ in 0..management {
            key.get("/integrations").await.is(200);
        }
        let full = ("rate", [60_000, management, management]);
        check_refused(&key.get("/integrations").await, 429, "RATE_LIMITED", full);
        for number in 0..traffic {
            usage(&key, &id, &format!("{round}-{number}")).await.is(201);
        }
        let full = ("rate", [60_000, traffic, traffic]);
        check_refused(&usage(&key, &id, "more").await, 429, "RATE_LIMITED", full);
    };
    put(3).await;
    check_both("raised", 3, 4).await;
    put(5).await;
    check_both("above both", 5, 5).await;
    put(1).await;
    check_both("slowed down", 1, 1).await;
}

#[tokio::test]
async fn an_invalid_override_is_refused_by_field() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let post = async |body: &Value| app.founder().root_post("/fdr/abuse/override", body).await;
    for (field, value) in [
        ("dimension", json!("speed")),
        ("allowed_value", json!(1_000_000_001)),
        ("allowed_value", json!(-1)),
        ("allowed_value", json!("5")),
        ("expires_at", json!("2026-03-14T09:26:53Z")),
        ("expires_at", json!("2026-06-12T09:26:53.000001Z")),
        ("expires_at", json!("tomorrow")),
        ("reason", json!("")),
        ("reason", json!("r".repeat(501))),
    ] {
        let answer = post(&overriding(&tenant, json!({ field: value }))).await;
        answer.refused(422, "INVALID_FIELD").on(field);
    }
    let unknown = overriding(&tenant, json!({ "limit": 5 }));
    post(&unknown).await.refused(422, "UNKNOWN_FIELD").on("limit");
    let mut without = overriding(&tenant, json!({}));
    without.as_object_mut().unwrap().remove("reason");
    post(&without).await.refused(422, "INVALID_FIELD").on("reason");
    for tenant_id in ["00000000-0000-8000-8000-000000000000", "nonsense"] {
        let foreign = overriding(&tenant, json!({ "tenant_id": tenant_id }));
        post(&foreign).await.refused(404, "TENANT_NOT_FOUND");
        let path = format!("/fdr/abuse/signals/{tenant_id}");
        app.founder().root(&path).await.refused(404, "TENANT_NOT_FOUND");
    }
    // The latest expiry and the longest reason are accepted.
    let changes = json!({ "expires_at": "2026-06-12T09:26:53Z", "reason": "r".repeat(500) });
    post(&overriding(&tenant, changes)).await.is(201);
}
