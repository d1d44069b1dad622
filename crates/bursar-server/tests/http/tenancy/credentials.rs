//! Each route accepts exactly the credentials of its row.

use axum::http::Method;
use bursar_server::api::route::Audience;
use bursar_server::auth::access;
use bursar_server::auth::access::Role;
use bursar_server::router::API;
use bursar_testing::oidc::signer::Signer;
use serde_json::json;

use crate::oidc::with_token;
use crate::tenancy::Access::{Admin, IntegrationKey, Key, Operator};
use crate::tenancy::{ROUTES, Route, UNKNOWN, World, in_api};

#[tokio::test]
async fn a_person_can_use_exactly_the_routes_of_their_role() {
    let rule = |route: &Route| {
        let method = Method::from_bytes(route.0.to_uppercase().as_bytes()).unwrap();
        match API.table().find(&method, &in_api(route.1))?.audience {
            Audience::Caller(access::Access::Tenant { role, .. }) => Some(role),
            Audience::Caller(access::Access::AnyCaller) => Some(Role::Viewer),
            Audience::Caller(access::Access::Operator) | Audience::Everyone | Audience::Scraper => {
                None
            }
        }
    };
    for role in [Role::Viewer, Role::Admin] {
        let world = World::new().await;
        let person = world.person(&world.owner, role);
        let before = world.owners_state().await;
        let may = |route: &&Route| rule(route).is_some_and(|needed| role >= needed);
        for route in ROUTES.iter().filter(|route| !may(route)) {
            world.send(&person, route).await.refused(403, "FORBIDDEN");
        }
        assert_eq!(world.owners_state().await, before);
        for route in ROUTES.iter().filter(may) {
            let world = World::new().await;
            let answer = world.send(&world.person(&world.owner, role), route).await;
            assert!(answer.status.is_success(), "{}: {}", route.1, answer.body);
        }
    }
}

#[tokio::test]
async fn every_route_without_a_credential_is_401() {
    let world = World::new().await;
    let before = world.owners_state().await;
    let anonymous = world.app.anonymous();
    for route in ROUTES {
        let answer = world.send(&anonymous, route).await;
        assert_eq!(answer.refused(401, "UNAUTHENTICATED").headers["www-authenticate"], "Bearer");
        let named = anonymous.clone().with("x-tenant-id", &world.owner.id);
        world.send(&named, route).await.refused(401, "UNAUTHENTICATED");
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused_and_one_with_it_is_not() {
    const SCOPES: [&str; 8] = [
        "integrations:read",
        "integrations:write",
        "telemetry:read",
        "telemetry:write",
        "enforcement:check",
        "credentials:write",
        "keys:write",
        "gateway:use",
    ];
    for route in ROUTES {
        let world = World::new().await;
        let (Key(needed) | IntegrationKey(needed)) = route.2 else { continue };
        let others: Vec<&str> = SCOPES.into_iter().filter(|scope| *scope != needed).collect();
        let before = world.owners_state().await;
        let without = world.owner.key(&others).await;
        world.send(&without, route).await.refused(403, "MISSING_SCOPE");
        let resource = needed.split(':').next().unwrap_or_default();
        let after = world.owners_state().await;
        assert_eq!(after[1..], before[1..], "{}", route.1);
        for granted in [needed, &format!("{resource}:*"), "*"] {
            let mut granted = vec![granted];
            // A key can grant only its own scopes, and an integration key has these.
            if route.0 == "post" && route.1.starts_with("/integrations/{id}/keys") {
                granted.extend(["telemetry:write", "enforcement:check", "integrations:read"]);
            }
            let key = world.owner.key(&granted).await;
            let answer = world.send(&key, route).await;
            assert!(!matches!(answer.status.as_u16(), 401 | 403), "{}: {}", route.1, answer.body);
            assert!(answer.status.as_u16() < 500, "{}: {}", route.1, answer.body);
        }
    }
}

#[tokio::test]
async fn only_the_operator_can_use_the_operators_routes() {
    let world = World::new().await;
    let id = &world.owned.integration;
    let person = world.person(&world.owner, Role::Admin);
    let keys = [world.owner.key(&["*"]).await, world.owner.integration_key(id).await];
    for client in keys.into_iter().chain([person]) {
        for route in ROUTES.iter().filter(|route| route.2 == Operator) {
            world.send(&client, route).await.refused(403, "FORBIDDEN");
        }
    }
    assert_eq!(world.app.founder().get("/tenants").await.at("/meta/total"), 2);
}

#[tokio::test]
async fn an_integration_key_works_only_on_the_routes_that_accept_it() {
    let world = World::new().await;
    let key = world.owner.integration_key(&world.owned.integration).await;
    let before = world.owners_state().await;
    for route in ROUTES.iter().filter(|route| matches!(route.2, Key(_))) {
        world.send(&key, route).await.refused(403, "MISSING_SCOPE");
    }
    assert_eq!(world.owners_state().await, before);
    for route in ROUTES.iter().filter(|route| matches!(route.2, IntegrationKey(_))) {
        // A new world for each route, because a released reservation cannot be extended.
        let world = World::new().await;
        let key = world.owner.integration_key(&world.owned.integration).await;
        let answer = world.send(&key, route).await;
        assert!(matches!(answer.status.as_u16(), 200 | 201), "{}: {}", route.1, answer.body);
    }
}

/// The key with another last character.
fn tampered(key: &str) -> String {
    let (body, last) = key.split_at(key.len() - 1);
    format!("{body}{}", if last == "0" { "1" } else { "0" })
}

#[tokio::test]
async fn an_invalid_credential_is_401_on_every_route() {
    let world = World::new().await;
    let (owner, anonymous) = (&world.owner, world.app.anonymous());
    let founder = owner.founder();
    let revoked = owner.new_key(&["*"]).await;
    founder.delete(&format!("/keys/{}", revoked.text("/data/id"))).await.is(200);
    let expiring = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T09:26:54Z" });
    let expiring = founder.post("/keys").json(&expiring).await;
    let expired = expiring.is(201).text("/data/secret");
    let good = owner.new_key(&["*"]).await;
    let of_integration = owner.integration_key(&world.owned.integration).await;
    let of_integration = of_integration.header("x-cus-integration-key");
    let keys = format!("/integrations/{}/keys", world.owned.integration);
    let ended = founder.post(&keys).await;
    founder.delete(&format!("{keys}/{}", ended.is(201).text("/data/id"))).await.is(200);
    let claims = world.people.claims(&owner.id, "admin");
    let outdated = crate::support::with(claims.clone(), json!({ "exp": 0 }));
    world.app.clock.advance(1);
    let before = world.owners_state().await;
    for client in [
        with_token(&world.app, &world.people.key.token(&outdated)),
        with_token(&world.app, &Signer::p256("a").token(&claims)),
        world.people.person(&world.app, UNKNOWN, "admin"),
        owner.with_key(revoked.text("/data/secret")),
        owner.with_key(expired),
        owner.with_key(&tampered(good.text("/data/secret"))),
        anonymous.clone().with("x-cus-integration-key", ended.text("/data/secret")),
        anonymous.clone().with("x-cus-integration-key", &tampered(of_integration)),
        anonymous.clone().with("authorization", "Bearer operator-token-of-the-wrong-server"),
    ] {
        let named = client.with("x-tenant-id", &owner.id);
        for route in ROUTES {
            world.send(&named, route).await.refused(401, "UNAUTHENTICATED");
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn two_different_credentials_are_ambiguous_on_every_route() {
    let world = World::new().await;
    let first = world.owner.key(&["*"]).await;
    let second = world.owner.new_key(&["*"]).await;
    let of_integration = world.owner.integration_key(&world.owned.integration).await;
    let of_integration = of_integration.header("x-cus-integration-key");
    let before = world.owners_state().await;
    for client in [
        first.clone().with("x-aos-key", second.text("/data/secret")),
        first.with("x-cus-integration-key", of_integration),
        world.owner.founder().with("x-aos-key", second.text("/data/secret")),
        world.person(&world.owner, Role::Admin).with("x-aos-key", second.text("/data/secret")),
    ] {
        for route in ROUTES {
            world.send(&client, route).await.refused(400, "AMBIGUOUS_CREDENTIALS");
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn keys_cannot_use_the_routes_of_admins() {
    let world = World::new().await;
    let integration_key = world.owner.integration_key(&world.owned.integration).await;
    for route in ROUTES.iter().filter(|route| route.2 == Admin) {
        let key = world.owner.key(&["*"]).await;
        world.send(&key, route).await.refused(403, "FORBIDDEN");
        world.send(&integration_key, route).await.refused(403, "FORBIDDEN");
        let answer = world.send(&world.owner.founder(), route).await;
        assert!(answer.status.is_success(), "{}: {}", route.1, answer.body);
    }
}
