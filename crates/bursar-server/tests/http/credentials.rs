//! Credentials: which ones are accepted, and that none is ever shown.

use bursar_core::{KeyId, TenantId};
use bursar_server::auth::secret::{KeyPrefix, random_digits};
use serde_json::json;

use crate::support::{ApiResponse, Client, TestApp, record, set_up};

/// The text with one character changed.
fn altered(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn check(answer: &ApiResponse, status: u16, code: &str, secret: &str) {
    assert!(secret.len() < 16 || !answer.refused(status, code).body.contains(secret));
    answer.refused(status, code);
}

#[tokio::test]
async fn an_api_key_is_accepted_as_bearer_and_in_its_header() {
    let (app, tenant, _) = set_up().await;
    let made = tenant.new_key(&["integrations:read"]).await;
    let secret = made.text("/data/secret");
    for (name, value) in [
        ("authorization", format!("Bearer {secret}")),
        ("authorization", format!("bearer {secret}")),
        ("authorization", format!("BEARER  {secret} ")),
        ("x-aos-key", secret.to_owned()),
    ] {
        app.anonymous().with(name, &value).get("/integrations").await.is(200);
    }
}

#[tokio::test]
async fn an_altered_key_is_refused() {
    let (app, tenant, id) = set_up().await;
    let made = tenant.new_key(&["*"]).await;
    let api_key = made.text("/data/secret").to_owned();
    let integration_key = tenant.integration_key(&id).await;
    let integration_key = integration_key.header("x-cus-integration-key");
    // The valid keys are now cached by their whole texts.
    tenant.with_key(&api_key).get("/integrations").await.is(200);
    let by_integration = app.anonymous().with("x-cus-integration-key", integration_key);
    by_integration.get(&format!("/integrations/{id}/limits")).await.is(200);
    // Another secret with a correct checksum.
    let tenant_id = TenantId::parse(&tenant.id).unwrap();
    let key_id = KeyId::parse(made.text("/data/id")).unwrap();
    let prefix = KeyPrefix { tenant_id, integration_id: None, key_id };
    let forged = prefix.with_digits(&random_digits().unwrap());
    let mut wrong = vec![
        ("x-aos-key", forged.expose().to_owned()),
        ("x-aos-key", format!("{api_key}0")),
        ("x-aos-key", api_key.to_uppercase()),
        ("x-aos-key", integration_key.to_owned()),
        ("x-aos-key", "bur_".to_owned()),
        ("x-aos-key", String::new()),
        ("x-cus-integration-key", api_key.clone()),
        ("x-cus-integration-key", "::".to_owned()),
        ("x-cus-integration-key", String::new()),
        ("authorization", api_key.clone()),
        ("authorization", format!("Basic {api_key}")),
        ("authorization", "Bearer".to_owned()),
        ("authorization", "Bearer ".to_owned()),
        ("authorization", "Bearer operator-token-of-the-test".to_owned()),
        ("authorization", format!("Bearer {integration_key}")),
        ("x-aos-key", made.text("/data/prefix").to_owned()),
    ];
    wrong.extend((0..api_key.len()).step_by(7).map(|at| ("x-aos-key", altered(&api_key, at))));
    wrong.extend(
        (0..integration_key.len())
            .step_by(7)
            .map(|at| ("x-cus-integration-key", altered(integration_key, at))),
    );
    for (name, value) in wrong {
        let client = app.anonymous().with(name, &value);
        let sent = client.post("/telemetry/llm-usage").json(&record(&id, "c")).await;
        check(&sent, 401, "UNAUTHENTICATED", &value);
    }
    let summary = tenant.founder().get("/telemetry/usage-summary").await;
    assert_eq!(summary.at("/data/total_calls"), 0);
}

#[tokio::test]
async fn two_different_credentials_are_refused_and_the_same_twice_is_one() {
    let (app, tenant, id) = set_up().await;
    let first = tenant.key(&["*"]).await;
    let second = tenant.new_key(&["*"]).await;
    let second = second.text("/data/secret").to_owned();
    let integration_key = tenant.integration_key(&id).await;
    let integration_key = integration_key.header("x-cus-integration-key");
    let operator = app.founder();
    let limits = format!("/integrations/{id}/limits");
    let ambiguous: [Client; 4] = [
        first.clone().with("x-aos-key", &second),
        first.clone().with("x-cus-integration-key", integration_key),
        tenant.with_key(&second).with("x-cus-integration-key", integration_key),
        operator.with("x-aos-key", &second).with("x-tenant-id", &tenant.id),
    ];
    for client in ambiguous {
        check(&client.get(&limits).await, 400, "AMBIGUOUS_CREDENTIALS", &second);
    }
    tenant.with_key(&second).with("x-aos-key", &second).get(&limits).await.is(200);
}

#[tokio::test]
async fn an_ended_key_is_refused_on_the_routes_that_it_opened() {
    let (app, tenant, id) = set_up().await;
    let revoked = tenant.new_key(&["*"]).await;
    let expiring = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T09:26:54Z" });
    let expiring = tenant.founder().post("/keys").json(&expiring).await;
    let of_integration = tenant.integration_key(&id).await;
    tenant.founder().delete(&format!("/keys/{}", revoked.text("/data/id"))).await.is(200);
    tenant.founder().delete(&format!("/integrations/{id}")).await.is(200);
    app.clock.advance(1);
    let ended = [
        tenant.with_key(revoked.text("/data/secret")),
        tenant.with_key(expiring.is(201).text("/data/secret")),
        of_integration,
    ];
    for client in ended {
        let sent = client.post("/telemetry/llm-usage").json(&record(&id, "c")).await;
        sent.refused(401, "UNAUTHENTICATED");
        let check = client.post("/enforcement/check").json(&json!({ "integration_id": id })).await;
        check.refused(401, "UNAUTHENTICATED");
        client.get("/enforcement/reservations").await.refused(401, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn a_secret_is_shown_only_when_it_is_created() {
    let (app, tenant, id) = set_up().await;
    let founder = tenant.founder();
    let made = tenant.new_key(&["integrations:read"]).await;
    let key = made.text("/data/secret");
    let of_integration = founder.post(&format!("/integrations/{id}/keys")).await;
    let integration_key = of_integration.is(201).text("/data/secret");
    let holder = tenant.with_key(key);
    let holder_of_integration = app.anonymous().with("x-cus-integration-key", integration_key);
    let mut answers = vec![
        founder.get("/keys").await,
        founder.get("/integrations").await,
        founder.get(&format!("/integrations/{id}")).await,
        founder.get(&format!("/integrations/{id}/keys")).await,
        holder.get("/integrations").await,
        holder.get("/keys").await,
        holder_of_integration.get(&format!("/integrations/{id}/limits")).await,
        holder_of_integration.get("/keys").await,
        holder_of_integration.get("/nothing").await,
    ];
    let of_key = format!("/keys/{}", made.text("/data/id"));
    answers.push(founder.delete(&of_key).await);
    let key_id = of_integration.text("/data/id");
    answers.push(founder.delete(&format!("/integrations/{id}/keys/{key_id}")).await);
    answers.push(holder.get("/integrations").await);
    for answer in answers {
        for secret in [key, integration_key] {
            // The random part alone must not appear either.
            let (_, digits) = secret.rsplit_once('_').unwrap();
            assert!(!answer.body.contains(digits), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_credential_reference_and_a_configuration_are_never_shown() {
    let (_app, tenant, _) = set_up().await;
    let founder = tenant.founder();
    let create = json!({
        "name": "n",
        "provider_type": "custom",
        "credential_ref": "vault://secret/hidden/path#field",
        "config": { "base_url": "https://api.example.com/hidden/path", "region": "hidden" },
    });
    let made = founder.post("/integrations").json(&create).await;
    let path = format!("/integrations/{}", made.is(201).text("/data/id"));
    let answers = [
        founder.get(&path).await,
        founder.get("/integrations").await,
        founder.patch(&path).json(&json!({ "config": { "region": "hidden" } })).await,
        founder.post(&format!("{path}/enable")).await,
        founder.get(&format!("{path}/limits")).await,
        founder.get(&format!("{path}/health")).await,
        founder.delete(&path).await,
    ];
    for answer in answers.iter().chain([&made]) {
        assert!(answer.status.is_success() && !answer.body.contains("hidden"), "{}", answer.body);
    }
}

#[tokio::test]
async fn every_failed_login_is_counted_by_its_kind() {
    let app = TestApp::new();
    let (tenant, other) = (app.tenant("a").await, app.tenant("b").await);
    let key = tenant.key(&["*"]).await;
    let wrong: [(&str, &[(&'static str, &str)]); 8] = [
        ("operator_token", &[("authorization", "Bearer not-the-operator")]),
        ("operator_token", &[("authorization", "Bearer bur_operator_of.the.night_shift")]),
        ("api_key", &[("authorization", "Bearer bur_not_a_key")]),
        ("api_key", &[("x-aos-key", "not-a-key")]),
        ("integration_key", &[("x-cus-integration-key", "a:b:c")]),
        ("oidc_token", &[("authorization", "Bearer e30.e30.e30")]),
        ("malformed", &[("authorization", "Basic dTpw")]),
        // The same credential twice is one.
        ("api_key", &[("authorization", "Bearer bur_no"), ("x-aos-key", "bur_no")]),
    ];
    for (_, headers) in wrong {
        let mut someone = app.anonymous();
        for (name, value) in headers {
            someone = someone.with(name, value);
        }
        someone.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    }
    // A scrape is authenticated too.
    let scraper = app.anonymous().with("authorization", "Bearer not-the-metrics-token");
    scraper.root("/metrics").await.refused(401, "UNAUTHENTICATED");
    let foreign = key.clone().with("x-tenant-id", &other.id);
    foreign.get("/integrations").await.refused(403, "TENANT_MISMATCH");
    // A request without a credential, or refused for another reason, is no failed login.
    app.anonymous().get("/integrations").await.refused(401, "UNAUTHENTICATED");
    key.get("/tenants").await.refused(403, "FORBIDDEN");
    let metrics = app.founder().root("/metrics").await.body;
    for (kind, count) in [
        ("operator_token", 3),
        ("api_key", 3),
        ("integration_key", 1),
        ("oidc_token", 1),
        ("malformed", 1),
        ("other_tenant", 1),
    ] {
        let row = format!("bursar_failed_logins_total{{kind=\"{kind}\"}} {count}\n");
        assert!(metrics.contains(&row), "{row}");
    }
}
