//! People over HTTP: every route by role, tenants that are not theirs, and the ends of a token.

use axum::http::Method;
use bursar_core::{Day, TenantId};
use bursar_server::access::{ACCESS, Access, Role, Rule};
use serde_json::{Value, json};

use crate::issuer::{DISCOVERY, KEYS, Says, TestIssuer};
use crate::signer::Signer;
use crate::support::{Answer, Persona, Tenant, TestApp, record};

/// An id that this server never made.
const UNKNOWN: &str = "00000000-0000-8000-8000-000000000000";

/// A server that trusts an issuer of all its tenants, and two tenants.
struct World {
    app: TestApp,
    issuer: TestIssuer,
    key: Signer,
    owner: Tenant,
    other: Tenant,
}

impl World {
    async fn new() -> Self {
        let key = Signer::p256("a");
        let issuer = TestIssuer::new(&[&key]).await;
        let trusted = json!([{
            "issuer": issuer.url,
            "audience": "bursar",
            "tenant_claim": "org",
        }]);
        let app = TestApp::with_settings(&[("BURSAR_OIDC_ISSUERS", &trusted.to_string())]);
        let (owner, other) = (app.tenant("owner").await, app.tenant("other").await);
        Self { app, issuer, key, owner, other }
    }

    /// What the issuer says of a person of a tenant, good for ten minutes.
    fn claims(&self, tenant_id: &str, role: &str) -> Value {
        let morning = Day::from_civil(2026, 3, 14).unwrap().start().plus_seconds(9 * 3_600);
        json!({
            "iss": self.issuer.url,
            "aud": "bursar",
            "sub": "ada",
            "org": tenant_id,
            "bursar_role": role,
            "nbf": morning.second(),
            "exp": morning.second() + 2_213,
        })
    }

    fn holder_of(&self, token: &str) -> Persona {
        self.app.nobody().with("authorization", &format!("Bearer {token}"))
    }

    fn person(&self, tenant_id: &str, role: &str) -> Persona {
        self.holder_of(&self.key.token(&self.claims(tenant_id, role)))
    }
}

/// Asks a route of the table for things that are not there.
async fn ask(persona: &Persona, rule: &Rule) -> Answer {
    let path = rule.path.strip_prefix("/api/v1").unwrap();
    let path = path.replace("{id}", UNKNOWN).replace("{key_id}", UNKNOWN);
    persona.request(rule.method.clone(), &path.replace("{call_id}", "c")).await
}

#[tokio::test]
async fn each_route_is_open_to_the_roles_of_the_table() {
    let world = World::new().await;
    for (name, role) in [("viewer", Role::Viewer), ("admin", Role::Admin)] {
        let person = world.person(&world.owner.id, name);
        for rule in ACCESS {
            let may = match rule.access {
                Access::Operator => false,
                Access::Anyone => true,
                Access::Tenant { role: needed, .. } => role >= needed,
            };
            let answer = ask(&person, rule).await;
            let status = answer.status.as_u16();
            if may {
                assert!(![401, 403].contains(&status), "{name} {} {status}", rule.path);
            } else {
                answer.refused(403, "FORBIDDEN");
            }
        }
    }
}

#[tokio::test]
async fn what_is_of_another_tenant_is_not_found() {
    let world = World::new().await;
    let id = world.owner.integration("i", json!({})).await;
    let stranger = world.person(&world.other.id, "admin");
    let path = format!("/integrations/{id}");
    for method in [Method::GET, Method::DELETE] {
        stranger.request(method, &path).await.refused(404, "INTEGRATION_NOT_FOUND");
    }
    stranger
        .post("/telemetry/llm-usage")
        .json(&record(&id, "c"))
        .await
        .refused(404, "INTEGRATION_NOT_FOUND");
    assert_eq!(stranger.get("/integrations").await.is(200).data(), &json!([]));
    world.person(&world.owner.id, "viewer").get(&path).await.is(200);
    let named = stranger.with("x-tenant-id", &world.owner.id);
    named.get("/integrations").await.refused(403, "TENANT_MISMATCH");
}

#[tokio::test]
async fn a_person_sets_a_tenant_up_and_is_known_by_name() {
    let world = World::new().await;
    let person = world.person(&world.owner.id, "admin");
    let context = person.get("/session/context").await;
    let expected = json!({
        "actor_type": "customer",
        "tenant_id": world.owner.id,
        "capabilities": [],
        "lifecycle_state": "ACTIVE",
        "onboarding_state": "IDENTITY_VERIFIED",
    });
    assert_eq!(context.is(200).data(), &expected);
    let made = json!({ "name": "i", "provider_type": "custom" });
    let made = person.post("/integrations").json(&made).await;
    assert_eq!(made.is(201).text("/data/created_by"), format!("{}|ada", world.issuer.url));
    let key = json!({ "name": "k", "scopes": ["*"] });
    person.post("/keys").json(&key).await.is(201);
    assert_eq!(
        person.get("/session/context").await.text("/data/onboarding_state"),
        "API_KEY_CREATED"
    );
}

#[tokio::test]
async fn a_person_of_a_tenant_that_is_not_there_is_nobody() {
    let world = World::new().await;
    let never = TenantId::from_number(5).unwrap().to_string();
    for tenant in [never.as_str(), UNKNOWN, "acme"] {
        let answer = world.person(tenant, "admin").get("/integrations").await;
        answer.refused(401, "UNAUTHENTICATED");
        // The same words whether there is such a tenant or not.
        assert_eq!(
            answer.text("/error/message"),
            "The token is refused: it names no tenant that its issuer speaks for."
        );
    }
}

#[tokio::test]
async fn a_person_reads_while_the_tenant_is_suspended_and_nothing_after_its_end() {
    let world = World::new().await;
    let person = world.person(&world.owner.id, "admin");
    let path = format!("/tenants/{}", world.owner.id);
    world.app.founder().post(&format!("{path}/suspend")).await.is(200);
    person.get("/integrations").await.is(200);
    let made = json!({ "name": "i", "provider_type": "custom" });
    person.post("/integrations").json(&made).await.refused(403, "TENANT_SUSPENDED");
    world.app.founder().post(&format!("{path}/terminate")).await.is(200);
    person.get("/integrations").await.refused(403, "TENANT_TERMINATED");
}

#[tokio::test]
async fn a_token_that_was_good_a_moment_ago_is_refused_when_its_time_is_over() {
    let world = World::new().await;
    let person = world.person(&world.owner.id, "viewer");
    person.get("/integrations").await.is(200);
    world.app.clock.advance(600 + 59);
    person.get("/integrations").await.is(200);
    world.app.clock.advance(1);
    person.get("/integrations").await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_and_repeats_nothing() {
    let world = World::new().await;
    let mut claims = world.claims(&world.owner.id, "admin");
    claims["aud"] = json!("canary-audience");
    for (token, expected) in [
        (world.key.token(&claims), "it is meant for someone else (aud)"),
        ("canary.canary.canary".to_owned(), "it is not a signed token"),
        (Signer::p256("canary").token(&claims), "its key (kid) is none of its issuer's"),
    ] {
        let answer = world.holder_of(&token).get("/integrations").await;
        answer.refused(401, "UNAUTHENTICATED");
        assert!(answer.text("/error/message").contains(expected), "{}", answer.body);
        assert!(!answer.body.contains("canary"), "{}", answer.body);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_stops_its_people_and_nobody_else() {
    let world = World::new().await;
    world.issuer.says(KEYS, Says::Status(500));
    let person = world.person(&world.owner.id, "viewer");
    let answer = person.get("/integrations").await;
    answer.refused(503, "UNAVAILABLE");
    assert_eq!(answer.headers["retry-after"], "1");
    world.owner.key(&["*"]).await.get("/integrations").await.is(200);
    world.issuer.says(KEYS, Says::keys(&[&world.key]));
    world.app.clock.advance(10);
    person.get("/integrations").await.is(200);
    assert_eq!(world.issuer.asked(DISCOVERY), 2);
}

#[tokio::test]
async fn a_token_is_good_in_its_own_header_only() {
    let world = World::new().await;
    let token = world.key.token(&world.claims(&world.owner.id, "admin"));
    for header in ["x-aos-key", "x-cus-integration-key"] {
        let persona = world.app.nobody().with(header, &token);
        persona.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    }
    let both = world.holder_of(&token).with("x-aos-key", "bur_another");
    both.get("/integrations").await.refused(400, "AMBIGUOUS_CREDENTIALS");
}
