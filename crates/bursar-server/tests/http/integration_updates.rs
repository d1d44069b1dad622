//! PUT and PATCH of an integration.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{TestApp, with};

/// Every changeable field with its initial value.
fn fields() -> Value {
    json!({
        "credential_ref": "vault://secret/a",
        "config": { "base_url": "https://api.example.com", "organization": "o" },
        "default_model": "gpt-4o",
        "budget_limit_cents": 100,
        "token_limit_month": 200,
        "rate_limit_rpm": 300,
        "cost_basis": "reported",
    })
}

#[tokio::test]
async fn an_update_changes_only_the_fields_that_it_has() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (at, (update, changes)) in [
        (json!({ "name": "new" }), json!({ "name": "new" })),
        (json!({ "credential_ref": "encrypted://2" }), json!({ "credential_scheme": "encrypted" })),
        (json!({ "credential_ref": null }), json!({ "credential_scheme": null })),
        (json!({ "config": { "base_url": "https://api.example.com:443/v2" } }), json!({})),
        (json!({ "default_model": "o3" }), json!({ "default_model": "o3" })),
        (json!({ "default_model": null }), json!({ "default_model": null })),
        (json!({ "budget_limit_cents": 0 }), json!({ "budget_limit_cents": 0 })),
        (json!({ "token_limit_month": 7 }), json!({ "token_limit_month": 7 })),
        (json!({ "rate_limit_rpm": 8 }), json!({ "rate_limit_rpm": 8 })),
        (json!({ "cost_basis": "computed" }), json!({ "cost_basis": "computed" })),
        (
            json!({ "budget_limit_cents": 1, "rate_limit_rpm": 2 }),
            json!({ "budget_limit_cents": 1, "rate_limit_rpm": 2 }),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for method in [Method::PUT, Method::PATCH] {
            let id = tenant.integration(&format!("{method} {at}"), fields()).await;
            let path = format!("/integrations/{id}");
            let before = tenant.founder().get(&path).await;
            app.clock.advance(5);
            let changed = tenant.founder().request(method, &path).json(&update).await;
            let expected = with(before.data().clone(), changes.clone());
            let updated_at = json!({ "updated_at": changed.is(200).text("/data/updated_at") });
            assert_eq!(*changed.data(), with(expected, updated_at), "{update}");
            assert_ne!(changed.at("/data/updated_at"), before.at("/data/updated_at"));
            assert_eq!(tenant.founder().get(&path).await.data(), changed.data());
            tenant.founder().delete(&path).await.is(200);
        }
    }
}

#[tokio::test]
async fn an_update_returns_the_full_view() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", fields()).await;
    app.clock.advance(7);
    let update = json!({ "name": "renamed", "budget_limit_cents": 250 });
    let changed = tenant.founder().patch(&format!("/integrations/{id}")).json(&update).await;
    insta::assert_json_snapshot!(changed.is(200).redacted(), @r#"
    {
      "data": {
        "base_url_origin": "https://api.example.com:443",
        "budget_limit_cents": 250,
        "cost_basis": "reported",
        "created_at": "2026-03-14T09:26:53Z",
        "created_by": "operator",
        "credential_scheme": "vault",
        "default_model": "gpt-4o",
        "health_checked_at": null,
        "health_message": null,
        "health_state": "unknown",
        "id": "[id 1]",
        "name": "renamed",
        "provider_type": "openai",
        "rate_limit_rpm": 300,
        "status": "enabled",
        "tenant_id": "[id 2]",
        "token_limit_month": 200,
        "updated_at": "2026-03-14T09:27:00Z"
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
async fn another_origin_drops_the_credential() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (origin, scheme) in [
        ("https://api.example.com/other", json!("vault")),
        ("https://api.example.com:8443", json!(null)),
    ] {
        let id = tenant.integration(origin, fields()).await;
        let update = json!({ "config": { "base_url": origin } });
        let changed = tenant.founder().patch(&format!("/integrations/{id}")).json(&update).await;
        assert_eq!(*changed.is(200).at("/data/credential_scheme"), scheme);
    }
}

#[tokio::test]
async fn an_update_cannot_take_the_name_of_another_integration() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("mine", json!({})).await;
    tenant.integration("taken", json!({})).await;
    let path = format!("/integrations/{id}");
    tenant.founder().patch(&path).json(&json!({ "name": "mine" })).await.is(200);
    let refused = tenant.founder().put(&path).json(&json!({ "name": "taken" })).await;
    refused.refused(409, "NAME_TAKEN").on("name");
    assert_eq!(tenant.founder().get(&path).await.text("/data/name"), "mine");
}

#[tokio::test]
async fn an_invalid_update_changes_nothing() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", fields()).await;
    let path = format!("/integrations/{id}");
    let before = tenant.founder().get(&path).await;
    let patch = async |body: Value| tenant.founder().patch(&path).json(&body).await;
    for field in [
        "name",
        "config",
        "budget_limit_cents",
        "token_limit_month",
        "rate_limit_rpm",
        "cost_basis",
        "provider_type",
    ] {
        patch(json!({ field: null })).await.refused(422, "INVALID_FIELD").on(field);
    }
    for provider_type in ["openai", "bedrock", "nothing"] {
        let body = json!({ "provider_type": provider_type });
        patch(body).await.refused(422, "INVALID_FIELD").on("provider_type");
    }
    for limit in ["budget_limit_cents", "token_limit_month", "rate_limit_rpm"] {
        for wrong in [json!(-1), json!(1.5), json!("1"), json!(9_223_372_036_854_775_808_u64)] {
            patch(json!({ limit: wrong })).await.refused(422, "INVALID_FIELD").on(limit);
        }
    }
    patch(json!({ "default_model": "" })).await.refused(422, "INVALID_FIELD").on("default_model");
    patch(json!({ "cost_basis": "guessed" })).await.refused(422, "INVALID_FIELD").on("cost_basis");
    patch(json!({ "budget_limit": 1 })).await.refused(422, "UNKNOWN_FIELD").on("budget_limit");
    patch(json!({ "status": "enabled" })).await.refused(422, "UNKNOWN_FIELD").on("status");
    // One invalid field refuses the whole update.
    let mixed = json!({ "name": "new", "rate_limit_rpm": -1 });
    patch(mixed).await.refused(422, "INVALID_FIELD").on("rate_limit_rpm");
    patch(json!({})).await.refused(400, "NOTHING_TO_CHANGE");
    tenant.founder().put(&path).json(&json!({})).await.refused(400, "NOTHING_TO_CHANGE");
    assert_eq!(tenant.founder().get(&path).await.data(), before.data());
}

#[tokio::test]
async fn a_limit_counts_from_the_moment_it_is_set() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let check = json!({ "integration_id": id, "estimated_cost_cents": 11 });
    for (budget_limit_cents, result) in [(10, "blocked"), (11, "warned"), (0, "allowed")] {
        let update = json!({ "budget_limit_cents": budget_limit_cents });
        tenant.founder().patch(&format!("/integrations/{id}")).json(&update).await.is(200);
        let decision = tenant.founder().post("/enforcement/check").json(&check).await;
        assert_eq!(decision.is(200).text("/data/result"), result);
    }
}
