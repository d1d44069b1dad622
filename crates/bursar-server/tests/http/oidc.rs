//! People over HTTP. Which routes they may use is tested with tenancy.

use bursar_core::{Day, TenantId};
use bursar_testing::oidc::issuer::{DISCOVERY, KEYS, Reply, TestIssuer};
use bursar_testing::oidc::signer::Signer;
use serde_json::{Value, json};

use crate::support::{Client, Tenant, TestApp};

/// An id that does not exist.
const UNKNOWN: &str = "00000000-0000-8000-8000-000000000000";

const HOUR: i64 = 3_600;
const FOUR_DAYS: i64 = 4 * 86_400;

/// An issuer trusted for every tenant, and its signing key.
pub(crate) struct People {
    pub(crate) issuer: TestIssuer,
    pub(crate) key: Signer,
}

impl People {
    /// An issuer and a server that trusts it.
    pub(crate) async fn with_app() -> (Self, TestApp) {
        let key = Signer::p256("a");
        let issuer = TestIssuer::new(&[&key]).await;
        let trusted =
            json!([{ "issuer": issuer.url, "audience": "bursar", "tenant_claim": "org" }]);
        let app = TestApp::with_settings(&[("BURSAR_OIDC_ISSUERS", &trusted.to_string())]);
        (Self { issuer, key }, app)
    }

    /// The claims about a person of a tenant, valid for ten minutes from the start of a test.
    pub(crate) fn claims(&self, tenant_id: &str, role: &str) -> Value {
        let start = Day::from_civil(2026, 3, 14).unwrap().start().plus_seconds(34_013);
        json!({
            "iss": self.issuer.url,
            "aud": "bursar",
            "sub": "ada",
            "org": tenant_id,
            "bursar_role": role,
            "nbf": start.second(),
            "exp": start.second() + 600,
        })
    }

    /// A person of a tenant.
    pub(crate) fn person(&self, app: &TestApp, tenant_id: &str, role: &str) -> Client {
        with_token(app, &self.key.token(&self.claims(tenant_id, role)))
    }
}

/// A client with this token.
pub(crate) fn with_token(app: &TestApp, token: &str) -> Client {
    app.anonymous().with("authorization", &format!("Bearer {token}"))
}

/// A server, an issuer that it trusts for all tenants, and a tenant.
struct World {
    app: TestApp,
    people: People,
    owner: Tenant,
}

impl World {
    async fn new() -> Self {
        let (people, app) = People::with_app().await;
        let owner = app.tenant("owner").await;
        Self { app, people, owner }
    }

    fn person(&self, tenant_id: &str, role: &str) -> Client {
        self.people.person(&self.app, tenant_id, role)
    }
}

#[tokio::test]
async fn a_person_can_set_up_a_tenant_and_is_shown_as_creator() {
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
    assert_eq!(made.is(201).text("/data/created_by"), format!("{}|ada", world.people.issuer.url));
    let key = json!({ "name": "k", "scopes": ["*"] });
    person.post("/keys").json(&key).await.is(201);
    assert_eq!(
        person.get("/session/context").await.text("/data/onboarding_state"),
        "API_KEY_CREATED"
    );
}

#[tokio::test]
async fn tokens_expire_on_time_despite_clock_jumps() {
    let World { app, people, owner } = World::new().await;
    let person = people.person(&app, &owner.id, "viewer");
    let mut old = people.claims(&owner.id, "viewer");
    let start = old["nbf"].as_i64().unwrap();
    old["nbf"] = json!(start - 600);
    old["exp"] = json!(start - 61);
    let expired = with_token(&app, &people.key.token(&old));
    let check = async || {
        person.get("/integrations").await.is(200);
        expired.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    };
    check().await;
    for jump in [HOUR, FOUR_DAYS, -HOUR, -FOUR_DAYS] {
        app.clock.jump(jump);
        check().await;
        app.clock.advance(1);
        check().await;
        app.clock.jump(-jump);
        check().await;
    }
    // The cached keys of the issuer did not age by the jump either.
    assert_eq!(people.issuer.request_count(KEYS), 1);
    app.clock.advance(660);
    person.get("/integrations").await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_person_of_an_unknown_tenant_is_refused() {
    let world = World::new().await;
    let never = TenantId::from_number(5).unwrap().to_string();
    for tenant in [never.as_str(), UNKNOWN, "acme"] {
        let answer = world.person(tenant, "admin").get("/integrations").await;
        answer.refused(401, "UNAUTHENTICATED");
        // The message does not tell whether the tenant exists.
        assert_eq!(
            answer.text("/error/message"),
            "The token was refused: it names no tenant that its issuer may authenticate."
        );
    }
}

#[tokio::test]
async fn a_person_can_read_a_suspended_tenant_and_not_a_terminated_one() {
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
async fn a_recently_used_token_expires_on_time() {
    let world = World::new().await;
    let person = world.person(&world.owner.id, "viewer");
    person.get("/integrations").await.is(200);
    world.app.clock.advance(600 + 59);
    person.get("/integrations").await.is(200);
    world.app.clock.advance(1);
    person.get("/integrations").await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_refused_token_gets_a_reason_and_is_not_echoed() {
    let world = World::new().await;
    let mut claims = world.people.claims(&world.owner.id, "admin");
    claims["aud"] = json!("canary-audience");
    for (token, expected) in [
        (world.people.key.token(&claims), "its audience (aud) is not the configured one"),
        ("canary.canary.canary".to_owned(), "it is not a signed JWT"),
        (Signer::p256("canary").token(&claims), "its issuer has no such key (kid)"),
    ] {
        let answer = with_token(&world.app, &token).get("/integrations").await;
        answer.refused(401, "UNAUTHENTICATED");
        assert!(answer.text("/error/message").contains(expected), "{}", answer.body);
        assert!(!answer.body.contains("canary"), "{}", answer.body);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn an_unavailable_issuer_affects_only_its_own_people() {
    let world = World::new().await;
    world.people.issuer.set_reply(KEYS, Reply::Status(500));
    let person = world.person(&world.owner.id, "viewer");
    let answer = person.get("/integrations").await;
    answer.refused(503, "UNAVAILABLE");
    assert_eq!(answer.headers["retry-after"], "1");
    world.owner.key(&["*"]).await.get("/integrations").await.is(200);
    world.people.issuer.set_reply(KEYS, Reply::keys(&[&world.people.key]));
    world.app.clock.advance(10);
    person.get("/integrations").await.is(200);
    assert_eq!(world.people.issuer.request_count(DISCOVERY), 2);
}

#[tokio::test]
async fn a_token_is_accepted_only_as_bearer() {
    let world = World::new().await;
    let token = world.people.key.token(&world.people.claims(&world.owner.id, "admin"));
    for header in ["x-aos-key", "x-cus-integration-key"] {
        let client = world.app.anonymous().with(header, &token);
        client.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    }
    let both = with_token(&world.app, &token).with("x-aos-key", "bur_another");
    both.get("/integrations").await.refused(400, "AMBIGUOUS_CREDENTIALS");
}
