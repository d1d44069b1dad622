//! Protection on several nodes: overrides and the daily cost.

use std::time::Duration;

use bursar_testing::process::bodies::record;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::Site;

const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const CHECK: &str = "/api/v1/enforcement/check";
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
fn cost_recorded_on_one_node_counts_on_every_node() {
    let site = Site::new();
    let (mut one, mut other) = (site.node(), site.node());
    for node in [&mut one, &mut other] {
        node.set(COST, "100");
    }
    let (first, second) = (Server::start(&one), Server::start(&other));
    let (tenant, integration_id) = onboarded(&one, &first);
    let (mut here, mut there) = (tenant.client(&first), tenant.client(&second));
    let body = json!({ "integration_id": integration_id });
    assert_eq!(there.post(CHECK, &body).expect("an answer").status, 200);
    let spent = here.post(RECORDS, &record(&integration_id, "spent", 100));
    assert_eq!(spent.expect("an answer").status, 201);
    check_soon(&mut there, &body, 429, "COST_LIMIT_EXCEEDED");
    check_soon(&mut here, &body, 429, "COST_LIMIT_EXCEEDED");
    first.stop();
    second.stop();
}

#[test]
fn calls_are_refused_while_the_daily_cost_cannot_be_read() {
    let site = Site::new();
    let mut node = site.node();
    node.set(COST, "100");
    let server = Server::start(&node);
    let (tenant, integration_id) = onboarded(&node, &server);
    let mut http = tenant.client(&server);
    let body = json!({ "integration_id": integration_id });
    assert_eq!(http.post(CHECK, &body).expect("an answer").status, 200);
    let role = site.database.app_role();
    site.database.run(&format!("revoke select on rollups from {role}"));
    check_soon(&mut http, &body, 503, "UNAVAILABLE");
    let status = format!("/api/v1/enforcement/status?integration_id={integration_id}");
    assert_eq!(http.get(&status).expect("an answer").status, 200, "reads go on");
    site.database.run(&format!("grant select on rollups to {role}"));
    check_soon(&mut http, &body, 200, "");
    server.stop();
}
