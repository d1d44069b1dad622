//! The caches of a node, as the operator sees and clears them.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Tenant, TestApp, record};

const GUIDE: &str = include_str!("../../../../docs/operating.md");

/// The cache with this name.
async fn cache(app: &TestApp, name: &str) -> Value {
    let listed = app.founder().root("/fdr/caches").await;
    let caches = listed.is(200).data().as_array().unwrap().clone();
    caches.into_iter().find(|cache| cache["name"] == name).unwrap()
}

#[tokio::test]
async fn every_cache_shows_its_limits_and_its_fullest_tenants() {
    let app = TestApp::new();
    let (loud, quiet) = (app.tenant("loud").await, app.tenant("quiet").await);
    for _ in 0..3 {
        loud.key(&["*"]).await.get("/keys").await.is(200);
    }
    quiet.key(&["*"]).await.get("/keys").await.is(200);
    let listed = app.founder().root("/fdr/caches").await;
    let names = listed.is(200).column("/name");
    let expected = [
        "callers",
        "key-uses",
        "decisions",
        "onboarding-pauses",
        "failed-logins",
        "protection-windows",
        "protection-overrides",
        "protection-signals",
        "label-sets",
        "stored-bytes",
    ];
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
    for name in names {
        assert!(GUIDE.contains(&format!("`{name}`")), "operating.md does not name {name}");
    }
    for cache in listed.data().as_array().unwrap() {
        let figure = |name: &str| cache[name].as_u64().unwrap();
        assert!(figure("entries") <= figure("entries_max"), "{cache}");
        assert!((1..=figure("entries_max")).contains(&figure("tenant_entries_max")), "{cache}");
    }
    let uses = cache(&app, "key-uses").await;
    assert_eq!(uses["entries"], 4);
    assert_eq!(uses["fullest"][0], json!({ "tenant_id": loud.id, "entries": 3 }));
}

#[tokio::test]
async fn a_cache_can_be_cleared_for_one_tenant_or_for_all() {
    let app = TestApp::new();
    let (one, other) = (app.tenant("one").await, app.tenant("other").await);
    one.key(&["*"]).await.get("/keys").await.is(200);
    other.key(&["*"]).await.get("/keys").await.is(200);
    let clear = async |path: &str| app.founder().root(path).method(Method::DELETE).await;
    let cleared = clear(&format!("/fdr/caches/key-uses?tenant_id={}", one.id)).await;
    assert_eq!(cleared.is(200).data(), &json!({ "name": "key-uses", "cleared": 1 }));
    assert_eq!(cache(&app, "key-uses").await["fullest"][0]["tenant_id"], other.id);
    assert_eq!(clear("/fdr/caches/key-uses").await.is(200).at("/data/cleared"), 1);
    assert_eq!(cache(&app, "key-uses").await["entries"], 0);
    clear("/fdr/caches/nothing").await.refused(404, "CACHE_NOT_FOUND");
    clear("/fdr/caches/key-uses?tenant_id=x").await.refused(422, "INVALID_FIELD");
    clear("/fdr/caches/key-uses?tenant=x").await.refused(422, "UNKNOWN_FIELD");
}

/// Puts an entry of a tenant into each cache of protection, and stores a record.
async fn fill(tenant: &Tenant) {
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    founder.post("/telemetry/llm-usage").json(&record(&id, "a")).await.is(201);
    let question = json!({ "integration_id": id });
    founder.post("/enforcement/check").json(&question).await.is(200);
    let key = tenant.key(&["*"]).await;
    for _ in 0..3 {
        key.get("/keys").await.is(200);
    }
    key.get("/keys").await.refused(429, "RATE_LIMITED");
}

#[tokio::test]
async fn caches_of_protection_and_stored_bytes_are_shown_and_cleared() {
    let app = TestApp::with_settings(&[("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "3")]);
    let (one, other) = (app.tenant("one").await, app.tenant("other").await);
    fill(&one).await;
    fill(&other).await;
    let clear = async |path: &str| app.founder().root(path).method(Method::DELETE).await;
    for name in ["protection-windows", "protection-overrides", "protection-signals", "stored-bytes"]
    {
        let before = cache(&app, name).await;
        let [of_one, of_other] = [0, 1].map(|at| before["fullest"][at].clone());
        assert_eq!(
            (&of_one["tenant_id"], &of_other["tenant_id"]),
            (&json!(one.id), &json!(other.id))
        );
        let cleared = clear(&format!("/fdr/caches/{name}?tenant_id={}", one.id)).await;
        assert_eq!(*cleared.is(200).at("/data/cleared"), of_one["entries"], "{name}");
        let after = cache(&app, name).await;
        assert_eq!(after["fullest"], json!([of_other]), "{name}");
        let cleared = clear(&format!("/fdr/caches/{name}")).await;
        assert_eq!(*cleared.is(200).at("/data/cleared"), after["entries"], "{name}");
        assert_eq!(cache(&app, name).await["entries"], 0, "{name}");
    }
}

#[tokio::test]
async fn failed_logins_are_cleared_only_as_a_whole() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    app.anonymous().with("authorization", "Bearer wrong").get("/keys").await.is(401);
    let clear = async |path: &str| app.founder().root(path).method(Method::DELETE).await;
    let cleared = clear(&format!("/fdr/caches/failed-logins?tenant_id={}", tenant.id)).await;
    assert_eq!(cleared.is(200).at("/data/cleared"), 0);
    assert_eq!(cache(&app, "failed-logins").await["entries"], 1);
    assert_eq!(clear("/fdr/caches/failed-logins").await.is(200).at("/data/cleared"), 1);
    assert_eq!(cache(&app, "failed-logins").await["entries"], 0);
}

#[tokio::test]
async fn cleared_caches_are_reloaded_and_no_record_is_lost() {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 2 })).await;
    let founder = tenant.founder();
    founder.post("/telemetry/llm-usage").json(&record(&id, "a")).await.is(201);
    for name in ["callers", "key-uses", "decisions", "label-sets", "accounts"] {
        let path = format!("/fdr/caches/{name}");
        app.founder().root(&path).method(Method::DELETE).await.is(200);
    }
    founder.post("/telemetry/llm-usage").json(&record(&id, "b")).await.is(201);
    let question = json!({ "integration_id": id });
    let decided = founder.post("/enforcement/check").json(&question).await;
    assert_eq!(decided.is(200).text("/data/result"), "blocked");
    let limits = founder.get(&format!("/integrations/{id}/limits")).await;
    assert_eq!(limits.is(200).at("/data/budget_used_cents"), 3);
}
