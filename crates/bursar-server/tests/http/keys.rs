//! API keys of a tenant.

use serde_json::{Value, json};

use crate::support::{ApiResponse, Client, Tenant, TestApp, with};

#[tokio::test]
async fn a_new_key_shows_its_secret_once() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({
        "name": "ingest",
        "scopes": ["telemetry:write", "enforcement:check"],
        "expires_at": "2026-04-01T00:00:00Z",
    });
    let made = tenant.founder().post("/keys").json(&create).await;
    insta::assert_json_snapshot!(made.is(201).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "expires_at": "2026-04-01T00:00:00Z",
        "id": "[id 1]",
        "last_used_at": null,
        "name": "ingest",
        "prefix": "bur_[id 2]_[id 1]",
        "replaced_by": null,
        "revoked_at": null,
        "scopes": [
          "telemetry:write",
          "enforcement:check"
        ],
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
    assert!(secret.starts_with("bur_") && secret.starts_with(made.text("/data/prefix")));
    let listed = tenant.founder().get("/keys").await;
    insta::assert_json_snapshot!(listed.is(200).redacted(), @r#"
    {
      "data": [
        {
          "created_at": "2026-03-14T09:26:53Z",
          "expires_at": "2026-04-01T00:00:00Z",
          "id": "[id 1]",
          "last_used_at": null,
          "name": "ingest",
          "prefix": "bur_[id 2]_[id 1]",
          "replaced_by": null,
          "revoked_at": null,
          "scopes": [
            "telemetry:write",
            "enforcement:check"
          ]
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
async fn keys_are_listed_oldest_first_page_by_page() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for name in ["a", "b", "c"] {
        let create = json!({ "name": name, "scopes": ["*"] });
        tenant.founder().post("/keys").json(&create).await.is(201);
    }
    let page = tenant.founder().get("/keys?limit=2&offset=2").await;
    assert_eq!(page.is(200).column("/name"), ["c"]);
    assert_eq!(page.at("/meta/total"), 3);
    assert_eq!(page.at("/meta/page"), 2);
    assert_eq!(page.at("/meta/has_more"), false);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_stays_in_the_list() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let made = tenant.new_key(&["integrations:read"]).await;
    let key = tenant.with_key(made.text("/data/secret"));
    key.get("/integrations").await.is(200);
    app.clock.advance(7);
    let path = format!("/keys/{}", made.text("/data/id"));
    let revoked = tenant.founder().delete(&path).await;
    insta::assert_json_snapshot!(revoked.is(200).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "expires_at": null,
        "id": "[id 1]",
        "last_used_at": null,
        "name": "key",
        "prefix": "bur_[id 2]_[id 1]",
        "replaced_by": null,
        "revoked_at": "2026-03-14T09:27:00Z",
        "scopes": [
          "integrations:read"
        ]
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    key.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    app.clock.advance(7);
    assert_eq!(tenant.founder().delete(&path).await.is(200).data(), revoked.data());
    let listed = tenant.founder().get("/keys").await;
    assert_eq!(listed.text("/data/0/revoked_at"), "2026-03-14T09:27:00Z");
}

#[tokio::test]
async fn a_key_expires_on_time_whether_or_not_it_is_cached() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let create = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T10:00:00+00:00" });
    let made = tenant.founder().post("/keys").json(&create).await;
    let cached = tenant.with_key(made.is(201).text("/data/secret"));
    let made = tenant.founder().post("/keys").json(&create).await;
    let uncached = tenant.with_key(made.is(201).text("/data/secret"));
    app.clock.set((2026, 3, 14), 10 * 3_600 - 1);
    cached.get("/integrations").await.is(200);
    app.clock.advance(1);
    for key in [cached, uncached] {
        key.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn a_rotated_key_stays_valid_for_the_overlap_beside_its_successor() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let made = tenant.new_key(&["integrations:read", "keys:write"]).await;
    let old = tenant.with_key(made.is(201).text("/data/secret"));
    old.get("/integrations").await.is(200);
    let path = format!("/keys/{}/rotate", made.text("/data/id"));
    let rotated = old.post(&path).json(&json!({ "overlap_seconds": 60 })).await;
    insta::assert_json_snapshot!(rotated.is(201).redacted(), @r#"
    {
      "data": {
        "created_at": "2026-03-14T09:26:53Z",
        "expires_at": null,
        "id": "[id 1]",
        "last_used_at": null,
        "name": "key",
        "prefix": "bur_[id 2]_[id 1]",
        "replaced_by": null,
        "revoked_at": null,
        "scopes": [
          "integrations:read",
          "keys:write"
        ],
        "secret": "[secret]"
      },
      "meta": {
        "request_id": "[request id]",
        "timestamp": "[now]"
      },
      "success": true
    }
    "#);
    let new = tenant.with_key(rotated.text("/data/secret"));
    new.get("/integrations").await.is(200);
    app.clock.advance(59);
    old.get("/integrations").await.is(200);
    let listed = new.get("/keys").await;
    assert_eq!(listed.is(200).text("/data/0/expires_at"), "2026-03-14T09:27:53Z");
    assert_eq!(listed.text("/data/0/replaced_by"), rotated.text("/data/id"));
    app.clock.advance(1);
    old.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    new.get("/integrations").await.is(200);
}

#[tokio::test]
async fn a_key_can_be_rotated_once_and_only_while_it_is_valid() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let (founder, made) = (tenant.founder(), tenant.new_key(&["*"]).await);
    let rotate = |answer: &ApiResponse| format!("/keys/{}/rotate", answer.text("/data/id"));
    let old = tenant.with_key(made.is(201).text("/data/secret"));
    let at_once = json!({ "overlap_seconds": 0 });
    let second = founder.post(&rotate(&made)).json(&at_once).await;
    old.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    founder.post(&rotate(&made)).await.refused(409, "INVALID_STATE");
    let third = founder.post(&rotate(second.is(201))).await;
    founder.post(&rotate(&second)).await.refused(409, "INVALID_STATE");
    founder.delete(&format!("/keys/{}", third.is(201).text("/data/id"))).await.is(200);
    founder.post(&rotate(&third)).await.refused(409, "INVALID_STATE");
    let create = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T10:00:00Z" });
    let short = founder.post("/keys").json(&create).await;
    let new =
        founder.post(&rotate(short.is(201))).json(&json!({ "overlap_seconds": 604_800 })).await;
    assert_eq!(new.is(201).text("/data/expires_at"), "2026-03-14T10:00:00Z");
    let listed = founder.get("/keys?limit=1&offset=3").await;
    assert_eq!(listed.text("/data/0/expires_at"), "2026-03-14T10:00:00Z", "not beyond its own end");
    app.clock.set((2026, 3, 14), 10 * 3_600);
    founder.post(&rotate(&new)).await.refused(409, "INVALID_STATE");
}

#[tokio::test]
async fn a_key_cannot_rotate_a_key_with_more_scopes() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let made = tenant.new_key(&["telemetry:read", "keys:write"]).await;
    let path = format!("/keys/{}/rotate", made.is(201).text("/data/id"));
    tenant.key(&["keys:write"]).await.post(&path).await.refused(403, "FORBIDDEN");
    for (overlap, field) in [
        (json!({ "overlap_seconds": -1 }), "overlap_seconds"),
        (json!({ "overlap_seconds": 604_801 }), "overlap_seconds"),
        (json!({ "overlap_seconds": "1" }), "overlap_seconds"),
    ] {
        tenant.founder().post(&path).json(&overlap).await.refused(422, "INVALID_FIELD").on(field);
    }
    let unknown = json!({ "overlap": 1 });
    tenant.founder().post(&path).json(&unknown).await.refused(422, "UNKNOWN_FIELD").on("overlap");
    let key = tenant.key(&["keys:*", "telemetry:*"]).await;
    assert_eq!(key.post(&path).body("").await.is(201).text("/data/name"), "key");
}

#[tokio::test]
async fn keys_show_when_they_were_used_last() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.key(&["integrations:read"]).await;
    let of_integration = tenant.integration_key(&id).await;
    tenant.key(&["*"]).await;
    key.get("/integrations").await.is(200);
    key.get("/telemetry/usage-history").await.refused(403, "MISSING_SCOPE");
    of_integration.get(&format!("/integrations/{id}/limits")).await.is(200);
    app.clock.advance(30);
    app.write_key_uses().await;
    let listed = tenant.founder().get("/keys").await;
    assert_eq!(listed.text("/data/0/last_used_at"), "2026-03-14T09:26:53Z");
    assert!(listed.at("/data/1/last_used_at").is_null(), "it was never used");
    let listed = tenant.founder().get(&format!("/integrations/{id}/keys")).await;
    assert_eq!(listed.text("/data/0/last_used_at"), "2026-03-14T09:26:53Z");
}

#[tokio::test]
async fn a_key_cannot_grant_a_scope_that_it_lacks() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let key = tenant.key(&["keys:write", "telemetry:*"]).await;
    for (scopes, status) in [
        (json!(["telemetry:read"]), 201),
        (json!(["telemetry:*", "keys:write"]), 201),
        (json!(["telemetry:read", "integrations:read"]), 403),
        (json!(["*"]), 403),
        (json!(["keys:*"]), 403),
    ] {
        let made = key.post("/keys").json(&json!({ "name": "k", "scopes": scopes })).await;
        made.is(status);
    }
    let listed = tenant.founder().get("/keys").await;
    assert_eq!(listed.at("/meta/total"), 3);
}

#[tokio::test]
async fn an_invalid_key_is_not_created() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let post = async |body| tenant.founder().post("/keys").json(&body).await;
    post(json!({ "scopes": ["*"] })).await.refused(422, "INVALID_FIELD").on("name");
    post(json!({ "name": "", "scopes": ["*"] })).await.refused(422, "INVALID_FIELD").on("name");
    post(json!({ "name": "k" })).await.refused(422, "INVALID_FIELD").on("scopes");
    post(json!({ "name": "k", "scopes": [] })).await.refused(422, "INVALID_FIELD").on("scopes");
    post(json!({ "name": "k", "scopes": "*" })).await.refused(422, "INVALID_FIELD").on("scopes");
    post(json!({ "name": "k", "scopes": ["read"] }))
        .await
        .refused(422, "INVALID_FIELD")
        .on("scopes");
    post(json!({ "name": "k", "scopes": ["nothing:*"] }))
        .await
        .refused(422, "INVALID_FIELD")
        .on("scopes");
    post(json!({ "name": "k", "scopes": ["telemetry:read keys:write"] }))
        .await
        .refused(422, "INVALID_FIELD")
        .on("scopes");
    for expires_at in ["2026-03-14T09:26:53Z", "2026-04-01", "soon", ""] {
        let body = json!({ "name": "k", "scopes": ["*"], "expires_at": expires_at });
        post(body).await.refused(422, "INVALID_FIELD").on("expires_at");
    }
    assert_eq!(tenant.founder().get("/keys").await.at("/meta/total"), 0);
}

#[tokio::test]
async fn a_scope_that_comes_twice_counts_once() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let made = tenant.new_key(&["keys:write", "telemetry:*", "keys:write", "telemetry:*"]).await;
    assert_eq!(made.is(201).at("/data/scopes"), &json!(["keys:write", "telemetry:*"]));
    let key = tenant.with_key(made.text("/data/secret"));
    let context = key.get("/session/context").await;
    assert_eq!(context.is(200).at("/data/capabilities"), &json!(["telemetry:*", "keys:write"]));
}

/// Lists and memory of a node hold every scope of a key: 65,000 of them take four megabytes.
#[tokio::test]
async fn a_key_of_65_000_scopes_is_refused_and_lists_stay_small() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let founder = tenant.founder();
    for count in [65, 65_000] {
        let scopes = vec!["*"; count];
        let body = json!({ "name": "k", "scopes": scopes });
        let refused = founder.post("/keys").json(&body).await;
        refused.refused(422, "INVALID_FIELD").on("scopes");
        assert!(refused.body.len() < 1_000, "{} bytes", refused.body.len());
    }
    let mut last = String::new();
    for _ in 0..300 {
        let made = tenant.new_key(&["telemetry:read"; 64]).await;
        made.is(201).text("/data/id").clone_into(&mut last);
    }
    let listed = founder.get("/keys?limit=100").await;
    assert_eq!(listed.is(200).at("/meta/total"), 300);
    assert!(listed.body.len() < 64 * 1_024, "{} bytes", listed.body.len());
    founder.delete(&format!("/keys/{last}")).await.is(200);
}

#[tokio::test]
async fn the_limit_on_keys_of_a_tenant_applies() {
    let app = TestApp::with_settings(&[
        ("BURSAR_TENANT_API_KEYS_MAX", "2"),
        ("BURSAR_TENANT_INTEGRATION_KEYS_MAX", "1"),
    ]);
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    let first = tenant.new_key(&["*"]).await;
    tenant.key(&["*"]).await;
    let refused = tenant.new_key(&["*"]).await;
    refused.refused(409, "TOO_MANY_KEYS");
    assert!(refused.text("/error/message").contains("tenant.api_keys_max"), "{}", refused.body);
    tenant.integration_key(&id).await;
    let keys = format!("/integrations/{id}/keys");
    founder.post(&keys).await.refused(409, "TOO_MANY_KEYS");
    founder.delete(&format!("/keys/{}", first.is(201).text("/data/id"))).await.is(200);
    tenant.key(&["*"]).await;
    // Revoked keys stay in the list until they are deleted.
    assert_eq!(founder.get("/keys").await.at("/meta/total"), 3);
}

/// A key that may create keys and expires in a minute, at 09:27:53.
async fn short_lived(tenant: &Tenant) -> Client {
    let create = json!({
        "name": "short",
        "scopes": ["*"],
        "expires_at": "2026-03-14T09:27:53Z",
    });
    let made = tenant.founder().post("/keys").json(&create).await;
    tenant.with_key(made.is(201).text("/data/secret"))
}

#[tokio::test]
async fn a_key_cannot_create_a_key_that_expires_later() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let key = short_lived(&tenant).await;
    let create = json!({ "name": "b", "scopes": ["telemetry:read"] });
    let end = |end: Value| with(create.clone(), json!({ "expires_at": end }));
    for later in [json!(null), json!("2026-03-14T09:27:53.000001Z"), json!("9999-01-01T00:00:00Z")]
    {
        let refused = key.post("/keys").json(&end(later)).await;
        refused.refused(422, "INVALID_FIELD").on("expires_at");
        let message = refused.text("/error/message");
        assert!(message.contains("not be later than 2026-03-14T09:27:53Z"), "{message}");
    }
    for (body, expected) in [
        (create.clone(), "2026-03-14T09:27:53Z"),
        (end(json!("2026-03-14T09:27:53Z")), "2026-03-14T09:27:53Z"),
        (end(json!("2026-03-14T09:27:00Z")), "2026-03-14T09:27:00Z"),
    ] {
        let made = key.post("/keys").json(&body).await;
        assert_eq!(made.is(201).text("/data/expires_at"), expected);
    }
    let made = key.post("/keys").json(&create).await;
    let made = tenant.with_key(made.is(201).text("/data/secret"));
    made.get("/telemetry/usage-history").await.is(200);
    app.clock.advance(60);
    made.get("/telemetry/usage-history").await.refused(401, "UNAUTHENTICATED");
    // A key that does not expire may create either kind.
    let endless = tenant.key(&["*"]).await;
    for body in [create.clone(), end(json!(null))] {
        assert!(endless.post("/keys").json(&body).await.is(201).at("/data/expires_at").is_null());
    }
}

#[tokio::test]
async fn a_key_cannot_create_an_integration_key_that_expires_later() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = short_lived(&tenant).await;
    let path = format!("/integrations/{id}/keys");
    let made = key.post(&path).await;
    assert_eq!(made.is(201).text("/data/expires_at"), "2026-03-14T09:27:53Z");
    let rotate = format!("{path}/{}/rotate", made.text("/data/id"));
    let rotated = key.post(&rotate).await;
    assert_eq!(rotated.is(201).text("/data/expires_at"), "2026-03-14T09:27:53Z");
    let secret = rotated.text("/data/secret");
    let machine = app.anonymous().with("x-cus-integration-key", secret);
    let limits = format!("/integrations/{id}/limits");
    machine.get(&limits).await.is(200);

    let endless = tenant.founder().post(&path).await;
    assert!(endless.is(201).at("/data/expires_at").is_null());
    let rotate = format!("{path}/{}/rotate", endless.text("/data/id"));
    let refused = key.post(&rotate).await;
    refused.refused(403, "FORBIDDEN");
    let message = refused.text("/error/message");
    assert!(message.contains("expires at 2026-03-14T09:27:53Z"), "{message}");
    tenant.founder().post(&rotate).await.is(201);

    app.clock.advance(60);
    machine.get(&limits).await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_key_cannot_rotate_a_key_that_expires_later() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let endless = tenant.new_key(&["telemetry:read"]).await;
    let rotate = |id: &str| format!("/keys/{id}/rotate");
    let key = short_lived(&tenant).await;
    let path = rotate(endless.text("/data/id"));
    key.post(&path).await.refused(403, "FORBIDDEN");
    tenant.founder().post(&path).await.is(201);

    // It stays valid until its own expiry.
    let listed = tenant.founder().get("/keys").await;
    let names = listed.column("/name");
    let own = names.iter().position(|name| *name == "short").unwrap();
    let path = rotate(listed.text(&format!("/data/{own}/id")));
    let rotated = key.post(&path).json(&json!({ "overlap_seconds": 5 })).await;
    assert_eq!(rotated.is(201).text("/data/expires_at"), "2026-03-14T09:27:53Z");
    // The old key ends with the overlap; its successor is valid for longer.
    let successor = rotate(rotated.text("/data/id"));
    key.post(&successor).await.refused(403, "FORBIDDEN");
    let made = key.post("/keys").json(&json!({ "name": "c", "scopes": ["*"] })).await;
    assert_eq!(made.is(201).text("/data/expires_at"), "2026-03-14T09:26:58Z");
}
