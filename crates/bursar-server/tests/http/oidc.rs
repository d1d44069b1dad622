//! People over HTTP; which routes are theirs is in tenancy.rs.

use bursar_core::{Day, TenantId};
use bursar_testing::oidc::issuer::{DISCOVERY, KEYS, Says, TestIssuer};
use bursar_testing::oidc::signer::Signer;
use serde_json::{Value, json};

use crate::support::{Persona, Tenant, TestApp};

/// An id that this server never made.
const UNKNOWN: &str = "00000000-0000-8000-8000-000000000000";

const HOUR: i64 = 3_600;
const FOUR_DAYS: i64 = 4 * 86_400;

/// An issuer that vouches for people of every tenant, and its key.
pub(crate) struct People {
    pub(crate) issuer: TestIssuer,
    pub(crate) key: Signer,
}

impl People {
    /// An issuer, and a server that trusts it.
    pub(crate) async fn with_app() -> (Self, TestApp) {
        let key = Signer::p256("a");
        let issuer = TestIssuer::new(&[&key]).await;
        let trusted =
            json!([{ "issuer": issuer.url, "audience": "bursar", "tenant_claim": "org" }]);
        let app = TestApp::with_settings(&[("BURSAR_OIDC_ISSUERS", &trusted.to_string())]);
        (Self { issuer, key }, app)
    }

    /// What the issuer says of a person of a tenant: good for ten minutes from the start of a
    /// test on.
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
    pub(crate) fn person(&self, app: &TestApp, tenant_id: &str, role: &str) -> Persona {
        holder_of(app, &self.key.token(&self.claims(tenant_id, role)))
    }
}

/// Someone with this token.
pub(crate) fn holder_of(app: &TestApp, token: &str) -> Persona {
    app.nobody().with("authorization", &format!("Bearer {token}"))
}

/// A server that trusts an issuer of all its tenants, and a tenant.
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

    fn person(&self, tenant_id: &str, role: &str) -> Persona {
        self.people.person(&self.app, tenant_id, role)
    }
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
    assert_eq!(made.is(201).text("/data/created_by"), format!("{}|ada", world.people.issuer.url));
    let key = json!({ "name": "k", "scopes": ["*"] });
    person.post("/keys").json(&key).await.is(201);
    assert_eq!(
        person.get("/session/context").await.text("/data/onboarding_state"),
        "API_KEY_CREATED"
    );
}

#[tokio::test]
async fn a_token_is_good_or_expired_whatever_the_clock_jumps_to() {
    let World { app, people, owner } = World::new().await;
    let person = people.person(&app, &owner.id, "viewer");
    let mut old = people.claims(&owner.id, "viewer");
    let start = old["nbf"].as_i64().unwrap();
    old["nbf"] = json!(start - 600);
    old["exp"] = json!(start - 61);
    let expired = holder_of(&app, &people.key.token(&old));
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
    // Neither did the keys grow old by it.
    assert_eq!(people.issuer.asked(KEYS), 1);
    app.clock.advance(660);
    person.get("/integrations").await.refused(401, "UNAUTHENTICATED");
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
    let mut claims = world.people.claims(&world.owner.id, "admin");
    claims["aud"] = json!("canary-audience");
    for (token, expected) in [
        (world.people.key.token(&claims), "it is meant for someone else (aud)"),
        ("canary.canary.canary".to_owned(), "it is not a signed token"),
        (Signer::p256("canary").token(&claims), "its key (kid) is none of its issuer's"),
    ] {
        let answer = holder_of(&world.app, &token).get("/integrations").await;
        answer.refused(401, "UNAUTHENTICATED");
        assert!(answer.text("/error/message").contains(expected), "{}", answer.body);
        assert!(!answer.body.contains("canary"), "{}", answer.body);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_stops_its_people_and_nobody_else() {
    let world = World::new().await;
    world.people.issuer.says(KEYS, Says::Status(500));
    let person = world.person(&world.owner.id, "viewer");
    let answer = person.get("/integrations").await;
    answer.refused(503, "UNAVAILABLE");
    assert_eq!(answer.headers["retry-after"], "1");
    world.owner.key(&["*"]).await.get("/integrations").await.is(200);
    world.people.issuer.says(KEYS, Says::keys(&[&world.people.key]));
    world.app.clock.advance(10);
    person.get("/integrations").await.is(200);
    assert_eq!(world.people.issuer.asked(DISCOVERY), 2);
}

#[tokio::test]
async fn a_token_is_good_in_its_own_header_only() {
    let world = World::new().await;
    let token = world.people.key.token(&world.people.claims(&world.owner.id, "admin"));
    for header in ["x-aos-key", "x-cus-integration-key"] {
        let persona = world.app.nobody().with(header, &token);
        persona.get("/integrations").await.refused(401, "UNAUTHENTICATED");
    }
    let both = holder_of(&world.app, &token).with("x-aos-key", "bur_another");
    both.get("/integrations").await.refused(400, "AMBIGUOUS_CREDENTIALS");
}
