//! Unusual requests: they are refused, and in the envelope.

use serde_json::json;

use crate::support::{TestApp, record};

#[tokio::test]
async fn a_list_is_not_read_as_an_object() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let founder = tenant.founder();
    app.founder().post("/tenants").json(&json!(["b"])).await.refused(422, "INVALID_FIELD");
    let registered = json!(["x", "openai", null, null, null, 1, 2, 3, null]);
    founder.post("/integrations").json(&registered).await.refused(422, "INVALID_FIELD");
    let batch = json!({ "records": [["not", "an", "object"], record(&id, "good")] });
    let answer = founder.post("/telemetry/llm-usage/batch").json(&batch).await;
    assert_eq!(answer.is(200).at("/data/errors"), 1);
    assert_eq!(answer.at("/data/accepted"), 1);
    let checks = json!({ "requests": [{ "integration_id": id }, [id]] });
    let answer = founder.post("/enforcement/batch").json(&checks).await;
    answer.refused(422, "INVALID_FIELD").on("requests[1]");
}

#[tokio::test]
async fn a_repeated_header_must_have_the_same_value() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let key = tenant.new_key(&["*"]).await.text("/data/secret").to_owned();
    let other = tenant.new_key(&["*"]).await.text("/data/secret").to_owned();
    let twice = |second: &str| {
        let first = app.anonymous().get("/integrations").header("x-aos-key", &key);
        first.header("x-aos-key", second)
    };
    twice(&key).await.is(200);
    twice(&other).await.refused(400, "AMBIGUOUS_CREDENTIALS");
    let named = tenant.with_key(&key).get("/integrations").header("x-tenant-id", &tenant.id);
    named.header("x-tenant-id", "another").await.refused(400, "BAD_REQUEST");
}

#[tokio::test]
async fn the_operators_token_is_a_bearer_token_only() {
    let app = TestApp::new();
    let founder = app.founder();
    let token = founder.header("authorization").trim_start_matches("Bearer ").to_owned();
    let anonymous = app.anonymous();
    anonymous
        .clone()
        .with("x-aos-key", &token)
        .get("/tenants")
        .await
        .refused(401, "UNAUTHENTICATED");
    for name in ["x-aos-key", "x-cus-integration-key"] {
        anonymous.clone().with(name, "").get("/tenants").await.refused(401, "UNAUTHENTICATED");
    }
    anonymous
        .with("authorization", "Bearer ")
        .get("/tenants")
        .await
        .refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn an_api_key_is_refused_in_the_header_of_integration_keys() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let key = tenant.new_key(&["*"]).await.text("/data/secret").to_owned();
    // A cached valid key is still refused in the other header.
    tenant.with_key(&key).get("/integrations").await.is(200);
    let misplaced = app.anonymous().with("x-cus-integration-key", &key);
    misplaced.get("/integrations").await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_path_that_is_not_utf8_is_answered_in_the_envelope() {
    let app = TestApp::new();
    let founder = app.tenant("a").await.founder();
    founder.get("/integrations/%FF").await.refused(400, "BAD_REQUEST");
    founder.delete("/enforcement/reservations/%FF").await.refused(400, "BAD_REQUEST");
}

#[tokio::test]
async fn a_raw_key_as_a_name_is_not_echoed() {
    let app = TestApp::new();
    let founder = app.tenant("a").await.founder();
    let key = "sk-abcdefghijklmnopqrstuvwxyz";
    let hidden = format!("unknown field `{key}`");
    let body = json!({ "name": "i", "provider_type": "openai", "budget_limit_cents": hidden });
    let wrong = founder.post("/integrations").json(&body).await;
    assert!(!wrong.refused(422, "INVALID_FIELD").on("budget_limit_cents").body.contains(key));
    let body = json!({ "name": "i", "provider_type": "openai", key: 1 });
    let named = founder.post("/integrations").json(&body).await;
    assert!(!named.refused(422, "UNKNOWN_FIELD").body.contains(key));
    let listed = founder.get(&format!("/integrations?{key}=1")).await;
    assert!(!listed.refused(422, "UNKNOWN_FIELD").body.contains(key));
}
