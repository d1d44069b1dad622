//! Integration keys.

use serde_json::json;

use crate::support::{TestApp, record};

#[tokio::test]
async fn a_new_integration_key_shows_its_secret_once() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let path = format!("/integrations/{id}/keys");
    let made = tenant.founder().post(&path).json(&json!({ "name": "worker" })).await;
    insta::assert_json_snapshot!(made.is(201).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "expires_at": null,
        "id": "[id 1]",
        "integration_id": "[id 2]",
        "last_used_at": null,
        "name": "worker",
        "prefix": "[id 3]:[id 2]:[id 1]",
        "replaced_by": null,
        "revoked_at": null,
        "secret": "[secret]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let secret = made.text("/data/secret");
    assert!(secret.starts_with(&format!("{}:{id}:", tenant.id)));
    assert!(secret.starts_with(made.text("/data/prefix")));
    let listed = tenant.founder().get(&path).await;
    insta::assert_json_snapshot!(listed.is(200).redacted(), @r#"
    {
      "data": [
        {
          "created_at": "2026-03-14T09:26:53Z",
          "expires_at": null,
          "id": "[id 1]",
          "integration_id": "[id 2]",
          "last_used_at": null,
          "name": "worker",
          "prefix": "[id 3]:[id 2]:[id 1]",
          "replaced_by": null,
          "revoked_at": null
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
async fn an_integration_key_needs_no_name() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let path = format!("/integrations/{id}/keys");
    for body in ["", " ", "{}", r#"{"name":null}"#] {
        let made = tenant.founder().post(&path).body(body).await;
        assert!(made.is(201).at("/data/name").is_null());
    }
    let listed = tenant.founder().get(&format!("{path}?limit=3&offset=3")).await;
    assert_eq!(listed.is(200).at("/meta/total"), 4);
    assert_eq!(listed.column("/id").len(), 1);
}

#[tokio::test]
async fn a_revoked_integration_key_is_refused_at_once() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.integration_key(&id).await;
    let limits = format!("/integrations/{id}/limits");
    key.get(&limits).await.is(200);
    let listed = tenant.founder().get(&format!("/integrations/{id}/keys")).await;
    let path = format!("/integrations/{id}/keys/{}", listed.text("/data/0/id"));
    let revoked = tenant.founder().delete(&path).await;
    insta::assert_json_snapshot!(revoked.is(200).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "expires_at": null,
        "id": "[id 1]",
        "integration_id": "[id 2]",
        "last_used_at": null,
        "name": null,
        "prefix": "[id 3]:[id 2]:[id 1]",
        "replaced_by": null,
        "revoked_at": "2026-03-14T09:26:53Z"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    key.get(&limits).await.refused(401, "UNAUTHENTICATED");
    app.clock.advance(7);
    assert_eq!(tenant.founder().delete(&path).await.is(200).data(), revoked.data());
}

#[tokio::test]
async fn an_integration_key_is_found_only_under_its_integration() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let (one, other) =
        (tenant.integration("one", json!({})).await, tenant.integration("other", json!({})).await);
    let key = tenant.integration_key(&one).await;
    let listed = tenant.founder().get(&format!("/integrations/{one}/keys")).await;
    let path = format!("/integrations/{other}/keys/{}", listed.text("/data/0/id"));
    tenant.founder().delete(&path).await.refused(404, "KEY_NOT_FOUND");
    assert_eq!(
        tenant.founder().get(&format!("/integrations/{other}/keys")).await.at("/meta/total"),
        0
    );
    key.get(&format!("/integrations/{one}/limits")).await.is(200);
}

#[tokio::test]
async fn an_integration_key_determines_the_integration_of_its_records() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let other = tenant.integration("other", json!({})).await;
    let key = tenant.integration_key(&id).await;
    let mut unnamed = record(&id, "unnamed");
    unnamed.as_object_mut().unwrap().remove("integration_id");
    key.post("/telemetry/llm-usage").json(&unnamed).await.is(201);
    key.post("/telemetry/llm-usage").json(&record(&id, "named")).await.is(201);
    let foreign = key.post("/telemetry/llm-usage").json(&record(&other, "other")).await;
    foreign.refused(422, "INVALID_FIELD").on("integration_id");
    let limits = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.at("/data/tokens_used_month"), 2_000);
    let limits = tenant.founder().get(&format!("/integrations/{other}/limits")).await;
    assert_eq!(limits.at("/data/tokens_used_month"), 0);
}

#[tokio::test]
async fn an_integration_key_determines_the_integration_of_its_checks() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    tenant.integration("other", json!({})).await;
    let key = tenant.integration_key(&id).await;
    let decision = key.post("/enforcement/check").json(&json!({})).await;
    assert_eq!(decision.is(200).text("/data/integration_id"), id);
    let status = key.get("/enforcement/status").await;
    assert_eq!(status.is(200).text("/data/integration_id"), id);
    let reserve = json!({ "call_id": "c", "estimated_cost_cents": 1 });
    let held = key.post("/enforcement/reservations").json(&reserve).await;
    assert_eq!(held.is(201).text("/data/integration_id"), id);
    assert_eq!(key.get("/enforcement/reservations").await.is(200).at("/meta/total"), 1);
    key.post("/enforcement/reservations/c/extend").await.is(200);
    key.delete("/enforcement/reservations/c").await.is(200);
}

#[tokio::test]
async fn a_rotated_integration_key_stays_valid_for_the_overlap() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let (keys, limits) = (format!("/integrations/{id}/keys"), format!("/integrations/{id}/limits"));
    let made = tenant.founder().post(&keys).json(&json!({ "name": "worker" })).await;
    let holder = |secret: &str| app.anonymous().with("x-cus-integration-key", secret);
    let old = holder(made.is(201).text("/data/secret"));
    old.get(&limits).await.is(200);
    let rotate = format!("{keys}/{}/rotate", made.text("/data/id"));
    tenant.key(&["keys:write"]).await.post(&rotate).await.refused(403, "FORBIDDEN");
    let rotated = tenant.founder().post(&rotate).await;
    insta::assert_json_snapshot!(rotated.is(201).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "expires_at": null,
        "id": "[id 1]",
        "integration_id": "[id 2]",
        "last_used_at": null,
        "name": "worker",
        "prefix": "[id 3]:[id 2]:[id 1]",
        "replaced_by": null,
        "revoked_at": null,
        "secret": "[secret]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let new = holder(rotated.text("/data/secret"));
    new.get(&limits).await.is(200);
    tenant.founder().post(&rotate).await.refused(409, "INVALID_STATE");
    let listed = tenant.founder().get(&keys).await;
    assert_eq!(listed.text("/data/0/expires_at"), "2026-03-14T10:26:53Z");
    assert_eq!(listed.text("/data/0/replaced_by"), rotated.text("/data/id"));
    app.clock.advance(3_599);
    old.get(&limits).await.is(200);
    app.clock.advance(1);
    old.get(&limits).await.refused(401, "UNAUTHENTICATED");
    let rotate = format!("{keys}/{}/rotate", rotated.text("/data/id"));
    tenant.founder().post(&rotate).json(&json!({ "overlap_seconds": 0 })).await.is(201);
    new.get(&limits).await.refused(401, "UNAUTHENTICATED");
}
