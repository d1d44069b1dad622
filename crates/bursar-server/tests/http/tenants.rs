//! Tenants.

use serde_json::{Value, json};

use crate::support::{ApiResponse, TestApp, record, reservation};

#[tokio::test]
async fn a_new_tenant_is_active_and_can_be_read() {
    let app = TestApp::new();
    let made = app.founder().post("/tenants").json(&json!({ "name": "Acme" })).await;
    insta::assert_json_snapshot!(made.is(201).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "id": "[id 1]",
        "lifecycle_state": "ACTIVE",
        "name": "Acme",
        "onboarding_state": "CREATED",
        "updated_at": "2026-03-14T09:26:53Z"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let found = app.founder().get(&format!("/tenants/{}", made.text("/data/id"))).await;
    assert_eq!(found.is(200).data(), made.data());
}

#[tokio::test]
async fn tenants_are_listed_oldest_first_page_by_page() {
    let app = TestApp::new();
    for name in ["a", "b", "c"] {
        app.tenant(name).await;
        app.clock.advance(60);
    }
    let page = app.founder().get("/tenants?offset=1&limit=1").await;
    insta::assert_json_snapshot!(page.is(200).redacted(), @r#"
    {
      "data": [
        {
          "created_at": "2026-03-14T09:27:53Z",
          "id": "[id 1]",
          "lifecycle_state": "ACTIVE",
          "name": "b",
          "onboarding_state": "CREATED",
          "updated_at": "2026-03-14T09:27:53Z"
        }
      ],
      "meta": {
        "has_more": true,
        "page": 2,
        "page_size": 1,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": 3
      },
      "success": true
    }
    "#);
    let all = app.founder().get("/tenants").await;
    assert_eq!(all.is(200).column("/name"), ["a", "b", "c"]);
    assert_eq!(all.at("/meta/has_more"), false);
    assert_eq!(all.at("/meta/page_size"), 20);
}

#[tokio::test]
async fn two_tenants_may_have_the_same_name() {
    let app = TestApp::new();
    let (a, b) = (app.tenant("same").await, app.tenant("same").await);
    assert_ne!(a.id, b.id);
}

#[tokio::test]
async fn a_tenant_that_does_not_exist_is_not_found() {
    let app = TestApp::new();
    let integration_id = app.tenant("a").await.integration("i", json!({})).await;
    for id in [integration_id.as_str(), "00000000-0000-8000-8000-000000000000", "nothing", "1"] {
        let answer = app.founder().get(&format!("/tenants/{id}")).await;
        answer.refused(404, "TENANT_NOT_FOUND");
        let answer = app.founder().get("/integrations").header("x-tenant-id", id).await;
        answer.refused(404, "TENANT_NOT_FOUND");
    }
}

/// The actor and the tenant in the session context.
fn context(answer: &ApiResponse) -> [Value; 4] {
    let fields = ["actor_type", "tenant_id", "lifecycle_state", "onboarding_state"];
    fields.map(|field| answer.is(200).at(&format!("/data/{field}")).clone())
}

#[tokio::test]
async fn the_session_context_describes_every_actor() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = json!(tenant.id);
    let founder = app.founder().get("/session/context").await;
    assert_eq!(context(&founder), [json!("founder"), Value::Null, Value::Null, Value::Null]);
    assert_eq!(founder.at("/data/capabilities"), &json!([]));
    let named = tenant.founder().get("/session/context").await;
    assert_eq!(context(&named), [json!("founder"), id.clone(), json!("ACTIVE"), json!("CREATED")]);
    let integration = tenant.integration("i", json!({})).await;
    let key = tenant.key(&["telemetry:*", "keys:write"]).await.get("/session/context").await;
    let connected = [json!("machine"), id, json!("ACTIVE"), json!("SDK_CONNECTED")];
    assert_eq!(context(&key), connected);
    assert_eq!(key.at("/data/capabilities"), &json!(["telemetry:*", "keys:write"]));
    let key = tenant.integration_key(&integration).await.get("/session/context").await;
    assert_eq!(context(&key), connected);
    let capabilities = json!(["telemetry:write", "enforcement:check", "integrations:read"]);
    assert_eq!(key.at("/data/capabilities"), &capabilities);
    app.anonymous().get("/session/context").await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn onboarding_follows_what_the_tenant_does() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let state = async || {
        let tenant = app.founder().get(&format!("/tenants/{}", tenant.id)).await;
        tenant.is(200).text("/data/onboarding_state").to_owned()
    };
    assert_eq!(state().await, "CREATED");
    let integration = tenant.integration("i", json!({})).await;
    assert_eq!(state().await, "CREATED");
    let refused = tenant.founder().post("/onboarding/finalize").await;
    refused.refused(409, "INVALID_STATE");
    let machine = tenant.key(&["*"]).await;
    assert_eq!(state().await, "API_KEY_CREATED");
    machine.get("/integrations").await.is(200);
    assert_eq!(state().await, "SDK_CONNECTED");
    // A refused record does not count.
    let refused = machine.post("/telemetry/llm-usage").json(&json!({ "call_id": "c" })).await;
    refused.refused(422, "INVALID_FIELD");
    let unknown = record("00000000-0000-8000-8000-000000000000", "c");
    let batch = json!({ "records": [unknown] });
    machine.post("/telemetry/llm-usage/batch").json(&batch).await.is(200);
    assert_eq!(state().await, "SDK_CONNECTED");
    machine.post("/telemetry/llm-usage").json(&record(&integration, "c")).await.is(201);
    assert_eq!(state().await, "COMPLETE");
    let finalized = tenant.founder().post("/onboarding/finalize").await;
    assert_eq!(finalized.is(200).text("/data/onboarding_state"), "COMPLETE");
}

#[tokio::test]
async fn an_admin_finalizes_onboarding_once_a_machine_has_called() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    tenant.key(&["telemetry:read"]).await.get("/telemetry/usage-history").await.is(200);
    let finalized = tenant.founder().post("/onboarding/finalize").await;
    assert_eq!(
        finalized.is(200).data(),
        &json!({
            "tenant_id": tenant.id,
            "onboarding_state": "COMPLETE",
        })
    );
}

#[tokio::test]
async fn a_tenant_allows_only_the_documented_state_changes() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let go = async |verb: &str| app.founder().post(&format!("/tenants/{}/{verb}", tenant.id)).await;
    for (verb, state) in [
        ("resume", None),
        ("archive", None),
        ("suspend", Some("SUSPENDED")),
        ("suspend", None),
        ("archive", None),
        ("resume", Some("ACTIVE")),
        ("suspend", Some("SUSPENDED")),
        ("terminate", Some("TERMINATED")),
        ("terminate", None),
        ("suspend", None),
        ("resume", None),
        ("archive", Some("ARCHIVED")),
        ("archive", None),
        ("resume", None),
        ("terminate", None),
    ] {
        let answer = go(verb).await;
        match state {
            Some(state) => assert_eq!(answer.is(200).text("/data/lifecycle_state"), state),
            None => {
                answer.refused(409, "INVALID_STATE");
            }
        }
    }
    let unknown = "/tenants/00000000-0000-8000-8000-000000000000/suspend";
    app.founder().post(unknown).await.refused(404, "TENANT_NOT_FOUND");
}

#[tokio::test]
async fn a_suspended_tenant_can_only_read_and_record() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let integration = tenant.integration("i", json!({})).await;
    let machine = tenant.key(&["*"]).await;
    let lost_key = tenant.new_key(&["telemetry:read"]).await;
    let reserve = machine.post("/enforcement/reservations").json(&reservation(&integration, "r"));
    reserve.await.is(201);
    let other = reservation(&integration, "released");
    machine.post("/enforcement/reservations").json(&other).await.is(201);
    app.founder().post(&format!("/tenants/{}/suspend", tenant.id)).await.is(200);

    machine.get("/integrations").await.is(200);
    machine.get("/telemetry/usage-history").await.is(200);
    let context = machine.get("/session/context").await;
    assert_eq!(context.is(200).text("/data/lifecycle_state"), "SUSPENDED");
    machine.post("/telemetry/llm-usage").json(&record(&integration, "r")).await.is(201);
    machine.delete("/enforcement/reservations/released").await.is(200);
    let question = json!({ "integration_id": integration, "estimated_cost_cents": 1 });
    for (path, body) in [
        ("/enforcement/check", question),
        ("/enforcement/reservations", reservation(&integration, "new")),
    ] {
        let answer = machine.post(path).json(&body).await;
        assert_eq!(answer.is(200).text("/data/result"), "hard_blocked");
        assert_eq!(answer.text("/data/reasons/0/code"), "tenant_suspended");
    }
    let name = json!({ "name": "n", "provider_type": "openai" });
    let key = json!({ "name": "k", "scopes": ["telemetry:read"] });
    let path = format!("/integrations/{integration}");
    for write in [
        machine.post("/integrations").json(&name),
        machine.patch(&path).json(&json!({ "name": "m" })),
        machine.delete(&path),
        machine.post(&format!("{path}/disable")),
        machine.post(&format!("{path}/keys")),
        machine.post("/keys").json(&key),
        machine.post("/enforcement/reservations/r/extend"),
        tenant.founder().post("/keys").json(&key),
        tenant.founder().post("/onboarding/finalize"),
    ] {
        write.await.refused(403, "TENANT_SUSPENDED");
    }
    // A lost key can be revoked at any time.
    let lost = lost_key.text("/data/id");
    machine.delete(&format!("/keys/{lost}")).await.is(200);
    app.founder().post(&format!("/tenants/{}/resume", tenant.id)).await.is(200);
    machine.patch(&path).json(&json!({ "name": "m" })).await.is(200);
}

#[tokio::test]
async fn only_the_operator_can_read_a_terminated_tenant() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let integration = tenant.integration("i", json!({})).await;
    let keys = [tenant.key(&["*"]).await, tenant.integration_key(&integration).await];
    keys[0].post("/telemetry/llm-usage").json(&record(&integration, "c")).await.is(201);
    for verb in ["terminate", "archive"] {
        app.founder().post(&format!("/tenants/{}/{verb}", tenant.id)).await.is(200);
        for key in &keys {
            key.get("/session/context").await.refused(403, "TENANT_TERMINATED");
            let record = record(&integration, "d");
            let refused = key.post("/telemetry/llm-usage").json(&record).await;
            refused.refused(403, "TENANT_TERMINATED");
        }
        let history = tenant.founder().get("/telemetry/usage-history").await;
        assert_eq!(history.is(200).column("/call_id"), ["c"]);
        let key = json!({ "name": "k", "scopes": ["*"] });
        tenant.founder().post("/keys").json(&key).await.refused(403, "TENANT_TERMINATED");
        let renamed = json!({ "name": "b" });
        let renamed = app.founder().patch(&format!("/tenants/{}", tenant.id)).json(&renamed).await;
        renamed.refused(403, "TENANT_TERMINATED");
    }
}

#[tokio::test]
async fn a_tenant_can_be_renamed() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let path = format!("/tenants/{}", tenant.id);
    app.clock.advance(5);
    let renamed = app.founder().patch(&path).json(&json!({ "name": "b" })).await;
    assert_eq!(renamed.is(200).text("/data/name"), "b");
    assert_eq!(renamed.text("/data/updated_at"), "2026-03-14T09:26:58Z");
    let empty = app.founder().patch(&path).json(&json!({})).await;
    empty.refused(400, "NOTHING_TO_CHANGE");
    let claimed = json!({ "onboarding_state": "COMPLETE" });
    let claimed = app.founder().patch(&path).json(&claimed).await;
    claimed.refused(422, "UNKNOWN_FIELD");
}
