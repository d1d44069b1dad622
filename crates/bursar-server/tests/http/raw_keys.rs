//! Raw keys of providers: refused wherever they would be stored, and never echoed.

use serde_json::{Value, json};

use crate::support::{ApiResponse, TestApp, record, reservation, with};

/// Invented keys in the formats of real ones.
const RAW_KEYS: &[&str] = &[
    "sk-proj-Ab3dEfGh1jKlMn0pQrStUvWx",
    "sk-_Xq4r7tv2-9bLmNPZ6cWsB",
    concat!("sk-", "ant-", "api03-Ab3dEfGh1jKlMn0pQrSt"),
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "AKIAABCDEFGHIJKLMNOP",
    "gsk_abcdefghijklmnopqrstuvwxyz",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
];

#[track_caller]
fn check(answer: &ApiResponse, field: &str, raw_key: &str) {
    answer.refused(422, "SECRET_REFUSED");
    assert_eq!(answer.text("/error/field"), field);
    assert!(!answer.body.contains(raw_key), "{}", answer.body);
    assert!(answer.headers.values().all(|value| value != raw_key));
}

#[tokio::test]
async fn an_integration_with_a_raw_key_is_not_created() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let key = tenant.key(&["integrations:*"]).await;
    let base = || json!({ "name": "n", "provider_type": "openai" });
    for raw_key in RAW_KEYS {
        let bearer = format!("Bearer {raw_key}");
        for (changes, field) in [
            (json!({ "credential_ref": raw_key }), "credential_ref"),
            (json!({ "credential_ref": format!("vault://secret/{raw_key}") }), "credential_ref"),
            (json!({ "credential_ref": format!("env://{raw_key}") }), "credential_ref"),
            (json!({ "config": { "note": raw_key } }), "config.note"),
            (json!({ "config": { "headers": [{ "x": bearer }] } }), "config.headers[0].x"),
            (json!({ "name": raw_key }), "name"),
            (json!({ "name": format!("key {raw_key}!") }), "name"),
            (json!({ "default_model": raw_key }), "default_model"),
        ] {
            let answer = key.post("/integrations").json(&with(base(), changes)).await;
            check(&answer, field, raw_key);
        }
    }
    assert_eq!(tenant.founder().get("/integrations").await.at("/meta/total"), 0);
}

#[tokio::test]
async fn a_configuration_with_a_field_named_like_a_secret_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for name in ["api_key", "Authorization", "password", "client_secret", "token"] {
        let config = json!({ "auth": { name: "hunter2hunter2" } });
        let create = json!({ "name": "n", "provider_type": "custom", "config": config });
        let answer = tenant.founder().post("/integrations").json(&create).await;
        check(&answer, &format!("config.auth.{name}"), "hunter2hunter2");
    }
}

#[tokio::test]
async fn a_configuration_with_duplicate_names_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for (config, field) in [
        (r#"{"a":1,"b":{},"a":2}"#, "config.a"),
        (r#"{"a":[{},{"b":1,"\u0062":1}]}"#, "config.a[1].b"),
        (r#"{"base_url":"https://a.example","base_url":"https://b.example"}"#, "config.base_url"),
    ] {
        let update = format!(r#"{{"config":{config}}}"#);
        let answer = tenant.founder().patch(&format!("/integrations/{id}")).body(update).await;
        answer.refused(422, "INVALID_FIELD").on(field);
        let create = format!(r#"{{"name":"n","provider_type":"openai","config":{config}}}"#);
        let answer = tenant.founder().post("/integrations").body(create).await;
        answer.refused(422, "INVALID_FIELD").on(field);
    }
    let hidden = format!(r#"{{"config":{{"a":"{}","a":1}}}}"#, RAW_KEYS[0]);
    let answer = tenant.founder().patch(&format!("/integrations/{id}")).body(hidden).await;
    assert!(!answer.is(422).body.contains(RAW_KEYS[0]), "{}", answer.body);
}

#[tokio::test]
async fn an_update_with_a_raw_key_changes_nothing() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "credential_ref": "encrypted://1" })).await;
    let path = format!("/integrations/{id}");
    let before = tenant.founder().get(&path).await;
    let raw_key = RAW_KEYS[0];
    for (update, field) in [
        (json!({ "credential_ref": raw_key }), "credential_ref"),
        (json!({ "config": { "a": [raw_key] } }), "config.a[0]"),
        (json!({ "name": raw_key }), "name"),
    ] {
        check(&tenant.founder().patch(&path).json(&update).await, field, raw_key);
    }
    assert_eq!(tenant.founder().get(&path).await.data(), before.data());
}

#[tokio::test]
async fn a_record_with_a_raw_key_in_its_metadata_is_not_stored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for raw_key in RAW_KEYS {
        for (metadata, field) in [
            (json!({ "header": raw_key }), "metadata.header"),
            (json!({ "a": [1, { "b": format!("Bearer {raw_key}") }] }), "metadata.a[1].b"),
            (json!({ *raw_key: 1 }), "metadata.[redacted]"),
        ] {
            let sent = with(record(&id, "c"), json!({ "metadata": metadata }));
            let answer = tenant.founder().post("/telemetry/llm-usage").json(&sent).await;
            check(&answer, field, raw_key);
            let batch = json!({ "records": [sent] });
            let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
            assert_eq!(answer.is(200).text("/data/results/0/error/code"), "SECRET_REFUSED");
            assert!(!answer.body.contains(raw_key), "{}", answer.body);
        }
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 0);
}

#[tokio::test]
async fn a_raw_key_in_an_error_message_is_redacted_and_the_record_stored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let message = format!("Incorrect API key provided: {}. See the docs.", RAW_KEYS[0]);
    let sent = with(record(&id, "c"), json!({ "error_code": "401", "error_message": message }));
    tenant.founder().post("/telemetry/llm-usage").json(&sent).await.is(201);
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert!(!history.body.contains(RAW_KEYS[0]), "{}", history.body);
    assert!(history.text("/data/0/error_message").starts_with("Incorrect API key provided: ["));
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_not_echoed() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let raw_key = RAW_KEYS[0];
    let bodies: [(&str, Value); 6] = [
        (
            "/integrations",
            json!({ "name": "n", "provider_type": "custom", "budget_limit_cents": raw_key }),
        ),
        ("/integrations", json!({ "name": "n", "provider_type": raw_key })),
        ("/integrations", json!({ "name": "n", "provider_type": "custom", "cost_basis": raw_key })),
        ("/keys", json!({ "name": "k", "scopes": [raw_key] })),
        ("/keys", json!({ "name": "k", "scopes": ["*"], "expires_at": raw_key })),
        ("/enforcement/check", json!({ "integration_id": raw_key })),
    ];
    for (path, body) in bodies {
        let answer = tenant.founder().post(path).json(&body).await;
        assert!(!answer.is(422).body.contains(raw_key), "{}", answer.body);
    }
}

#[tokio::test]
async fn only_the_operator_can_reference_credentials_on_the_server() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let machine = tenant.key(&["*"]).await;
    for (reference, of_operator) in [
        ("env://CUS_CRED_A", 201),
        ("env://LLM_API_KEY_A", 201),
        ("env://BURSAR_OPERATOR_TOKEN", 422),
        ("env://PATH", 422),
        ("env://", 422),
        ("file:///etc/passwd", 422),
        ("file://../secret", 422),
    ] {
        let create =
            json!({ "name": reference, "provider_type": "openai", "credential_ref": reference });
        let refused = machine.post("/integrations").json(&create).await;
        refused.refused(403, "FORBIDDEN").on("credential_ref");
        let answer = tenant.founder().post("/integrations").json(&create).await;
        answer.is(of_operator);
        let update = json!({ "credential_ref": reference });
        let id = answer.at("/data/id").as_str().unwrap_or_default();
        if of_operator == 201 {
            let refused = machine.patch(&format!("/integrations/{id}")).json(&update).await;
            refused.refused(403, "FORBIDDEN").on("credential_ref");
        }
    }
    assert_eq!(tenant.founder().get("/integrations").await.at("/meta/total"), 2);
}

#[tokio::test]
async fn a_raw_key_in_a_label_of_a_call_is_refused() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for raw_key in RAW_KEYS {
        for field in ["call_id", "session_id", "agent_id", "provider", "model", "error_code"] {
            // Only the shortest key fits into every field.
            let named = with(record(&id, "call"), json!({ field: raw_key }));
            let answer = tenant.founder().post("/telemetry/llm-usage").json(&named).await;
            check(&answer, field, raw_key);
            let batch = json!({ "records": [named, record(&id, "good")] });
            let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
            assert_eq!(answer.is(200).text("/data/results/0/error/code"), "SECRET_REFUSED");
            assert_eq!(answer.text("/data/results/0/error/field"), field);
            assert!(!answer.body.contains(raw_key), "{}", answer.body);
            assert_eq!(answer.at("/data/errors"), 1);
        }
        let reserve = with(reservation(&id, "held"), json!({ "call_id": raw_key }));
        let answer = tenant.founder().post("/enforcement/reservations").json(&reserve).await;
        check(&answer, "call_id", raw_key);
    }
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert_eq!(history.is(200).at("/meta/total"), 1);
}

#[tokio::test]
async fn a_raw_key_as_request_id_is_replaced() {
    let app = TestApp::new();
    for raw_key in RAW_KEYS {
        let answer = app.founder().get("/tenants").header("x-request-id", raw_key).await;
        assert!(answer.is(200).text("/meta/request_id").starts_with("req-"), "{}", answer.body);
        assert!(answer.headers.values().all(|value| value != raw_key));
    }
}
