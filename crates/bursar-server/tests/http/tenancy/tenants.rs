//! No credential reads or changes what belongs to another tenant or integration.

use bursar_core::{IntegrationId, KeyId};
use bursar_server::auth::access::Role;
use serde_json::json;

use crate::support::{ApiResponse, Client};
use crate::tenancy::Access::{Admin, AnyCaller, IntegrationKey, Key, Operator};
use crate::tenancy::Foreign::{HardBlocked, NotFound, Unnamed};
use crate::tenancy::{Owned, ROUTES, Route, UNKNOWN, World};

/// Asserts the response to a foreign or unknown id.
#[track_caller]
fn check_foreign(route: &Route, answer: &ApiResponse) {
    match (route.1, route.3) {
        ("/telemetry/llm-usage/batch", _) => {
            assert_eq!(answer.is(200).at("/data/errors"), 1);
            assert_eq!(answer.text("/data/results/0/error/code"), "INTEGRATION_NOT_FOUND");
        }
        (_, NotFound(code)) => {
            answer.refused(404, code);
        }
        ("/enforcement/batch", HardBlocked) => {
            assert_eq!(answer.is(200).text("/data/0/result"), "hard_blocked");
            assert_eq!(answer.text("/data/0/reasons/0/code"), "integration_not_found");
        }
        (_, HardBlocked) => {
            assert_eq!(answer.is(200).text("/data/result"), "hard_blocked");
            assert_eq!(answer.text("/data/reasons/0/code"), "integration_not_found");
            assert!(answer.at("/data/reservation").is_null());
        }
        (_, Unnamed) => {}
    }
}

/// The body without the ids of the request, to compare responses for different ids.
fn without_ids(answer: &ApiResponse, owned: &Owned) -> String {
    let mut shown = answer.redacted().to_string();
    for id in [&owned.integration, &owned.api_key, &owned.integration_key] {
        shown = shown.replace(id.as_str(), "id");
    }
    shown
}

#[tokio::test]
async fn another_tenant_reads_nothing_and_changes_nothing() {
    let world = World::new().await;
    let before = world.owners_state().await;
    // Valid ids that do not exist.
    let number = 1 << 40;
    let unknown = Owned {
        integration: IntegrationId::from_number(number).unwrap().to_string(),
        api_key: KeyId::from_number(number).unwrap().to_string(),
        integration_key: KeyId::from_number(number).unwrap().to_string(),
    };
    let person = world.person(&world.other, Role::Admin);
    for stranger in [world.other.key(&["*"]).await, person] {
        for route in ROUTES.iter().filter(|route| route.2 != Operator) {
            let answer = world.send(&stranger, route).await;
            // No key may use these routes; a person may use those of their own tenant.
            if route.2 == Admin && answer.status == 403 {
                answer.refused(403, "FORBIDDEN");
                continue;
            }
            check_foreign(route, &answer);
            assert!(
                route.3 == Unnamed || !answer.body.contains(&world.owner.id),
                "{}",
                answer.body
            );
            if matches!(route.3, NotFound(_) | HardBlocked) {
                let of_unknown = world.send_about(&stranger, route, &unknown).await;
                assert_eq!(without_ids(&answer, &world.owned), without_ids(&of_unknown, &unknown));
            }
            if route.0 == "get" && route.3 == Unnamed {
                assert_eq!(answer.status, 200, "{}", route.1);
                assert!(!answer.body.contains(&world.owned.integration), "{}", route.1);
                assert!(!answer.body.contains(&world.owned.api_key), "{}", route.1);
            }
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn an_unfiltered_list_shows_only_the_callers_tenant() {
    let world = World::new().await;
    let stranger = world.other.key(&["*"]).await;
    for path in [
        "/integrations",
        "/telemetry/usage-summary",
        "/telemetry/usage-history",
        "/telemetry/daily-aggregates",
        "/enforcement/reservations",
    ] {
        let answer = stranger.get(path).await;
        assert!(!answer.is(200).body.contains(&world.owned.integration), "{path}");
        assert!(!answer.body.contains(&world.owner.id), "{path}");
    }
}

#[tokio::test]
async fn the_key_of_another_integration_reads_nothing_and_changes_nothing() {
    let world = World::new().await;
    let sibling = world.owner.integration("sibling", json!({})).await;
    let foreign = world.other.integration("foreign", json!({})).await;
    let keys =
        [world.owner.integration_key(&sibling).await, world.other.integration_key(&foreign).await];
    let before = world.owners_state().await;
    for key in &keys {
        for route in ROUTES.iter().filter(|route| matches!(route.2, IntegrationKey(_))) {
            let answer = world.send(key, route).await;
            match route.1 {
                // The integration of the key and the one in the request must agree.
                "/telemetry/llm-usage" => {
                    answer.refused(422, "INVALID_FIELD").on("integration_id");
                }
                "/telemetry/llm-usage/batch" => {
                    assert_eq!(answer.is(200).at("/data/errors"), 1);
                    assert_eq!(answer.text("/data/results/0/error/field"), "integration_id");
                }
                _ => check_foreign(route, &answer),
            }
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_credential_with_the_id_of_another_tenant_is_refused() {
    let world = World::new().await;
    let before = world.owners_state().await;
    let key = world.other.key(&["*"]).await;
    let integration = world.other.integration("i", json!({})).await;
    let integration_key = world.other.integration_key(&integration).await;
    let person = world.person(&world.other, Role::Admin);
    for named in [world.owner.id.as_str(), UNKNOWN, "nonsense", ""] {
        for route in ROUTES {
            let personas: &[&Client] = match route.2 {
                Operator => &[],
                Admin => &[&person],
                Key(_) => &[&key, &person],
                IntegrationKey(_) | AnyCaller => &[&key, &integration_key, &person],
            };
            for &client in personas {
                let client = client.clone().with("x-tenant-id", named);
                world.send(&client, route).await.refused(403, "TENANT_MISMATCH");
            }
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_key_may_name_its_own_tenant() {
    let world = World::new().await;
    let own = world.owner.key(&["*"]).await.with("x-tenant-id", &world.owner.id);
    own.get("/integrations").await.is(200);
    let upper = world.owner.key(&["*"]).await.with("x-tenant-id", &world.owner.id.to_uppercase());
    upper.get("/integrations").await.is(200);
}

#[tokio::test]
async fn the_operator_must_name_a_tenant() {
    let world = World::new().await;
    let before = world.owners_state().await;
    for route in ROUTES.iter().filter(|route| !matches!(route.2, Operator | AnyCaller)) {
        world.send(&world.app.founder(), route).await.refused(400, "TENANT_REQUIRED");
        let unknown = world.app.founder().with("x-tenant-id", UNKNOWN);
        world.send(&unknown, route).await.refused(404, "TENANT_NOT_FOUND");
        // With a tenant, the operator sees only that tenant.
        check_foreign(route, &world.send(&world.other.founder(), route).await);
    }
    assert_eq!(world.owners_state().await, before);
}
