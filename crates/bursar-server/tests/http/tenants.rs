//! Tenants, for the operator.

use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn a_new_tenant_is_active_and_leads_back() {
    let app = TestApp::new();
    let made = app.founder().post("/tenants").json(&json!({ "name": "Acme" })).await;
    insta::assert_json_snapshot!(made.is(201).shown(), @r#"
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
    insta::assert_json_snapshot!(page.is(200).shown(), @r#"
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
