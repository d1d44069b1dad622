//! Integrations: created, read, listed, enabled, disabled and deleted.

use serde_json::json;

use crate::support::{TestApp, record, reservation, with};

#[tokio::test]
async fn a_new_integration_has_an_unknown_health() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({
        "name": "Production",
        "provider_type": "azure_openai",
        "credential_ref": "vault://secret/tenants/a/openai#token",
        "config": { "base_url": "https://a.openai.azure.com/v1?x=1", "api_version": "2024-06-01" },
        "default_model": "gpt-4o",
        "budget_limit_cents": 100_000,
        "token_limit_month": 5_000_000,
        "rate_limit_rpm": 600,
        "cost_basis": "computed",
    });
    let made = tenant.founder().post("/integrations").json(&create).await;
    insta::assert_json_snapshot!(made.is(201).redacted(), @r#"
    {
      "data": {
        "base_url_origin": "https://a.openai.azure.com:443",
        "budget_limit_cents": 100000,
        "cost_basis": "computed",
        "created_at": "2026-03-14T09:26:53Z",
        "created_by": "operator",
        "credential_scheme": "vault",
        "default_model": "gpt-4o",
        "health_checked_at": null,
        "health_message": null,
        "health_state": "unknown",
        "id": "[id 1]",
        "name": "Production",
        "provider_type": "azure_openai",
        "rate_limit_rpm": 600,
        "status": "created",
        "tenant_id": "[id 2]",
        "token_limit_month": 5000000,
        "updated_at": "2026-03-14T09:26:53Z"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let found = tenant.founder().get(&format!("/integrations/{}", made.text("/data/id"))).await;
    assert_eq!(found.is(200).data(), made.data());
}

#[tokio::test]
async fn an_integration_needs_only_a_name_and_a_provider() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for provider_type in ["openai", "anthropic", "azure_openai", "bedrock", "custom"] {
        let create = json!({ "name": provider_type, "provider_type": provider_type });
        let made = tenant.founder().post("/integrations").json(&create).await;
        assert_eq!(made.is(201).text("/data/provider_type"), provider_type);
        assert_eq!(made.text("/data/cost_basis"), "reported");
        for limit in ["budget_limit_cents", "token_limit_month", "rate_limit_rpm"] {
            assert_eq!(made.data()[limit], 0);
        }
    }
}

#[tokio::test]
async fn an_integration_shows_who_created_it() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let made = tenant.new_key(&["integrations:*"]).await;
    let key = tenant.with_key(made.text("/data/secret"));
    let create = json!({ "name": "i", "provider_type": "custom" });
    let integration = key.post("/integrations").json(&create).await;
    assert_eq!(integration.is(201).text("/data/created_by"), made.text("/data/id"));
}

#[tokio::test]
async fn a_list_shows_summaries_oldest_first() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    tenant.integration("first", json!({ "default_model": "gpt-4o" })).await;
    app.clock.advance(1);
    tenant.integration("second", json!({ "credential_ref": "encrypted://1" })).await;
    let listed = tenant.founder().get("/integrations").await;
    insta::assert_json_snapshot!(listed.is(200).redacted(), @r#"
    {
      "data": [
        {
          "created_at": "2026-03-14T09:26:53Z",
          "default_model": "gpt-4o",
          "health_state": "unknown",
          "id": "[id 1]",
          "name": "first",
          "provider_type": "openai",
          "status": "enabled"
        },
        {
          "created_at": "2026-03-14T09:26:54Z",
          "default_model": null,
          "health_state": "unknown",
          "id": "[id 2]",
          "name": "second",
          "provider_type": "openai",
          "status": "enabled"
        }
      ],
      "meta": {
        "has_more": false,
        "page": 1,
        "page_size": 20,
        "request_id": "[request id]",
        "timestamp": "[now]",
        "total": 2
      },
      "success": true
    }
    "#);
}

#[tokio::test]
async fn a_list_is_filtered_and_paged_with_its_total() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (name, provider_type) in
        [("a", "openai"), ("b", "bedrock"), ("c", "openai"), ("d", "openai"), ("e", "custom")]
    {
        tenant.integration(name, json!({ "provider_type": provider_type })).await;
    }
    let create = json!({ "name": "f", "provider_type": "openai" });
    tenant.founder().post("/integrations").json(&create).await.is(201);
    for (query, names, total, page, has_more) in [
        ("", &["a", "b", "c", "d", "e", "f"][..], 6, 1, false),
        ("?limit=4", &["a", "b", "c", "d"], 6, 1, true),
        ("?limit=4&offset=4", &["e", "f"], 6, 2, false),
        ("?offset=6", &[], 6, 1, false),
        ("?status=created", &["f"], 1, 1, false),
        ("?provider_type=openai", &["a", "c", "d", "f"], 4, 1, false),
        ("?provider_type=openai&status=enabled&limit=2", &["a", "c"], 3, 1, true),
        ("?provider_type=openai&status=enabled&limit=2&offset=2", &["d"], 3, 2, false),
        ("?status=error", &[], 0, 1, false),
        ("?status=", &["a", "b", "c", "d", "e", "f"], 6, 1, false),
    ] {
        let listed = tenant.founder().get(&format!("/integrations{query}")).await;
        assert_eq!(listed.is(200).column("/name"), names, "{query}");
        assert_eq!(listed.at("/meta/total"), total, "{query}");
        assert_eq!(listed.at("/meta/page"), page, "{query}");
        assert_eq!(listed.at("/meta/has_more"), has_more, "{query}");
    }
}

#[tokio::test]
async fn a_name_is_unique_within_a_tenant() {
    let app = TestApp::new();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    a.integration("same", json!({})).await;
    b.integration("same", json!({})).await;
    let create = json!({ "name": "same", "provider_type": "custom" });
    let refused = a.founder().post("/integrations").json(&create).await;
    refused.refused(409, "NAME_TAKEN").on("name");
    assert_eq!(a.founder().get("/integrations").await.at("/meta/total"), 1);
}

#[tokio::test]
async fn deleting_hides_the_integration_frees_its_name_and_keeps_its_usage() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let path = format!("/integrations/{id}");
    let key = tenant.integration_key(&id).await;
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "before")).await.is(201);
    let deleted = tenant.founder().delete(&path).await;
    insta::assert_json_snapshot!(deleted.is(200).redacted(), @r#"
    {
      "data": {
        "deleted_at": "2026-03-14T09:26:53Z",
        "id": "[id 1]",
        "name": "i"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    tenant.founder().get(&path).await.refused(404, "INTEGRATION_NOT_FOUND");
    tenant.founder().delete(&path).await.refused(404, "INTEGRATION_NOT_FOUND");
    key.get(&format!("{path}/limits")).await.refused(401, "UNAUTHENTICATED");
    assert_eq!(tenant.founder().get("/integrations").await.at("/meta/total"), 0);
    let again = tenant.integration("i", json!({})).await;
    assert_ne!(again, id);
    // A late record is still accepted.
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "after")).await.is(201);
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/by_integration/0/total_calls"), 2);
    assert_eq!(summary.at("/data/by_integration/0/integration_id"), id.as_str());
}

#[tokio::test]
async fn a_reservation_settles_after_its_integration_is_deleted() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let reserve = reservation(&id, "call");
    tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
    tenant.founder().delete(&format!("/integrations/{id}")).await.is(200);
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "call")).await.is(201);
    let released = tenant.founder().delete("/enforcement/reservations/call").await;
    released.refused(409, "RESERVATION_ENDED");
    let check = json!({ "integration_id": id });
    let decision = tenant.founder().post("/enforcement/check").json(&check).await;
    assert_eq!(decision.is(200).text("/data/reasons/0/code"), "integration_not_found");
}

#[tokio::test]
async fn enabling_and_disabling_return_the_full_view() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({ "name": "i", "provider_type": "openai" });
    let made = tenant.founder().post("/integrations").json(&create).await;
    let path = format!("/integrations/{}", made.is(201).text("/data/id"));
    app.clock.advance(7);
    let enabled = tenant.founder().post(&format!("{path}/enable")).await;
    insta::assert_json_snapshot!(enabled.is(200).redacted(), @r#"
    {
      "data": {
        "base_url_origin": null,
        "budget_limit_cents": 0,
        "cost_basis": "reported",
        "created_at": "2026-03-14T09:26:53Z",
        "created_by": "operator",
        "credential_scheme": null,
        "default_model": null,
        "health_checked_at": null,
        "health_message": null,
        "health_state": "unknown",
        "id": "[id 1]",
        "name": "i",
        "provider_type": "openai",
        "rate_limit_rpm": 0,
        "status": "enabled",
        "tenant_id": "[id 2]",
        "token_limit_month": 0,
        "updated_at": "2026-03-14T09:27:00Z"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let disabled = tenant.founder().post(&format!("{path}/disable")).await;
    let status = json!({ "status": "disabled" });
    assert_eq!(*disabled.is(200).data(), with(enabled.data().clone(), status));
}

#[tokio::test]
async fn an_integration_can_be_enabled_and_disabled() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({ "name": "i", "provider_type": "openai" });
    let made = tenant.founder().post("/integrations").json(&create).await;
    let id = made.is(201).text("/data/id").to_owned();
    let check = json!({ "integration_id": id });
    // Each step is sent twice, because it is idempotent.
    for (step, status, code) in [
        ("", "created", "integration_not_enabled"),
        ("/enable", "enabled", "all_checks_passed"),
        ("/enable", "enabled", "all_checks_passed"),
        ("/disable", "disabled", "integration_disabled"),
        ("/disable", "disabled", "integration_disabled"),
        ("/enable", "enabled", "all_checks_passed"),
    ] {
        if !step.is_empty() {
            let changed = tenant.founder().post(&format!("/integrations/{id}{step}")).await;
            assert_eq!(changed.is(200).text("/data/status"), status);
        }
        let found = tenant.founder().get(&format!("/integrations/{id}")).await;
        assert_eq!(found.is(200).text("/data/status"), status);
        let decision = tenant.founder().post("/enforcement/check").json(&check).await;
        assert_eq!(decision.is(200).text("/data/reasons/0/code"), code);
    }
}

#[tokio::test]
async fn a_new_integration_can_be_disabled_before_it_was_enabled() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({ "name": "i", "provider_type": "openai" });
    let made = tenant.founder().post("/integrations").json(&create).await;
    let path = format!("/integrations/{}/disable", made.is(201).text("/data/id"));
    assert_eq!(tenant.founder().post(&path).await.is(200).text("/data/status"), "disabled");
}

#[tokio::test]
async fn telemetry_of_a_disabled_integration_is_accepted() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.integration_key(&id).await;
    tenant.founder().post(&format!("/integrations/{id}/disable")).await.is(200);
    key.post("/telemetry/llm-usage").json(&record(&id, "a")).await.is(201);
    tenant.founder().post("/telemetry/llm-usage").json(&record(&id, "b")).await.is(201);
}

#[tokio::test]
async fn the_health_of_an_integration_that_was_never_checked_is_unknown() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let health = tenant.founder().get(&format!("/integrations/{id}/health")).await;
    insta::assert_json_snapshot!(health.is(200).redacted(), @r#"
    {
      "data": {
        "checked_at": null,
        "health_state": "unknown",
        "integration_id": "[id 1]",
        "latency_ms": null,
        "message": null
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
async fn the_limit_on_integrations_of_a_tenant_applies() {
    let app = TestApp::with_settings(&[("BURSAR_TENANT_INTEGRATIONS_MAX", "2")]);
    let (tenant, other) = (app.tenant("a").await, app.tenant("b").await);
    let first = tenant.integration("one", json!({})).await;
    tenant.integration("two", json!({})).await;
    let third = json!({ "name": "three", "provider_type": "openai" });
    let refused = tenant.founder().post("/integrations").json(&third).await;
    refused.refused(409, "TOO_MANY_INTEGRATIONS");
    assert!(refused.text("/error/message").contains("has 2 integrations, the maximum"));
    other.integration("three", json!({})).await;
    tenant.founder().delete(&format!("/integrations/{first}")).await.is(200);
    tenant.integration("three", json!({})).await;
}
