//! Protection on several nodes: overrides, and the limit on the daily cost.

use std::time::Duration;

use bursar_testing::process::bodies::record;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::{Site, reservation};

const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const CHECK: &str = "/api/v1/enforcement/check";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";
const COST: &str = "BURSAR_PROTECTION_COST_CENTS_DAY";

/// A tenant after onboarding, with the id of its integration.
fn onboarded(node: &Folder, server: &Server) -> (Tenant, String) {
    let mut tenant = Tenant::new(node, server);
    let integration_id = tenant.add_integration(server, 0);
    let first = tenant.client(server).post(RECORDS, &record(&integration_id, "first", 0));
    assert_eq!(first.expect("an answer").status, 201);
    (tenant, integration_id)
}

/// Sends checks until the response has this status and code.
#[track_caller]
fn check_soon(http: &mut Http, body: &Value, status: u16, code: &str) {
    let found = within(Duration::from_secs(2), || {
        let answer = http.post(CHECK, body).expect("an answer");
        (answer.status == status && answer.code() == code).then_some(())
    });
    assert!(found.is_some(), "not {status} {code}: {:?}", http.post(CHECK, body));
}

#[test]
fn an_override_set_on_one_node_applies_on_another_within_two_seconds() {
    let site = Site::new();
    let (one, other) = (site.node(), site.node());
    let (first, second) = (Server::start(&one), Server::start(&other));
    let (tenant, integration_id) = onboarded(&one, &first);
    let mut there = tenant.client(&second);
    let body = json!({ "integration_id": integration_id });
    for _ in 0..3 {
        assert_eq!(there.post(CHECK, &body).expect("an answer").status, 200);
    }
    let mut operator = first.operator(&one);
    // The clock shows the middle of June 2031.
    let made = json!({
        "tenant_id": tenant.id, "dimension": "rate", "allowed_value": 1,
        "expires_at": "2031-07-01T00:00:00Z", "reason": "a test",
    });
    let made = operator.post("/fdr/abuse/override", &made).expect("an answer");
    assert_eq!(made.status, 201, "{made:?}");
    check_soon(&mut there, &body, 429, "RATE_LIMITED");
    first.stop();
    second.stop();
}

#[test]
fn reservations_on_two_nodes_admit_exactly_what_the_daily_cost_allows() {
    const CLIENTS: usize = 16;
    const CALLS: usize = 20;
    let site = Site::new();
    let fleet = Fleet::prepared(&site, site.database.app_url(), 2, |_, node| node.set(COST, "100"));
    let mut tenant = fleet.tenant(&[0, 0]);
    let integrations = std::mem::take(&mut tenant.integrations);
    let held = fleet.run_concurrently(&tenant, CLIENTS, |client, http| {
        let id = &integrations[client / 2 % integrations.len()];
        let reserve = |call: &usize| {
            let body = reservation(id, &format!("{client}-{call}"), 10);
            let answer = http.post(RESERVATIONS, &body).expect("an answer");
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            answer.status == 201
        };
        (0..CALLS).filter(reserve).count()
    });
    assert_eq!(held.iter().sum::<usize>(), 10);
    for (node, integration_id) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let body = json!({ "integration_id": integrations[integration_id] });
        let answer = tenant.client(fleet.server(node)).post(CHECK, &body).expect("an answer");
        assert_eq!((answer.status, answer.data("result")), (200, &json!("blocked")));
    }
    fleet.check_verified();
    fleet.stop();
}

#[test]
fn an_override_of_the_cost_counts_in_the_next_decision_of_another_node() {
    let site = Site::new();
    let fleet = Fleet::prepared(&site, site.database.app_url(), 2, |_, node| node.set(COST, "100"));
    let mut tenant = fleet.tenant(&[]);
    let id = tenant.add_integration(fleet.server(0), 0);
    let mut there = tenant.client(fleet.server(1));
    let spent = there.post(RECORDS, &record(&id, "spent", 100)).expect("an answer");
    assert_eq!(spent.status, 201);
    let node = fleet.node(0);
    let mut operator = node.server.operator(&node.folder);
    let body = json!({ "integration_id": id });
    for (cents, result) in [(101, "allowed"), (100, "blocked"), (0, "allowed"), (1, "blocked")] {
        // The clock shows the middle of June 2031.
        let made = json!({
            "tenant_id": tenant.id, "dimension": "cost", "allowed_value": cents,
            "expires_at": "2031-07-01T00:00:00Z", "reason": "a test",
        });
        let made = operator.post("/fdr/abuse/override", &made).expect("an answer");
        assert_eq!(made.status, 201, "{made:?}");
        let answer = there.post(CHECK, &body).expect("an answer");
        assert_eq!((answer.status, answer.data("result")), (200, &json!(result)), "{cents}");
    }
    fleet.stop();
}
