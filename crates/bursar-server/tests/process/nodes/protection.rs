//! What protects a tenant on every node: overrides, and what it spent on a day.

use std::time::Duration;

use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::{OPERATOR_TOKEN, Site, record};

const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const CHECK: &str = "/api/v1/enforcement/check";
const COST: &str = "BURSAR_PROTECTION_COST_CENTS_DAY";

/// A tenant that is set up, with the id of its integration.
fn complete(node: &Folder, server: &Server) -> (Tenant, String) {
    let mut tenant = Tenant::new(node, server);
    let integration_id = tenant.add_integration(server, 0);
    let first = tenant.client(server).post(RECORDS, &record(&integration_id, "first", 0));
    assert_eq!(first.expect("an answer").status, 201);
    (tenant, integration_id)
}

/// Asks until the answer has this status and code.
#[track_caller]
fn check_soon(http: &mut Http, asked: &Value, status: u16, code: &str) {
    let met = within(Duration::from_secs(2), || {
        let answer = http.post(CHECK, asked).expect("an answer");
        (answer.status == status && answer.code() == code).then_some(())
    });
    assert!(met.is_some(), "not {status} {code}: {:?}", http.post(CHECK, asked));
}

#[test]
fn an_override_that_one_node_makes_holds_on_another_within_two_seconds() {
    let site = Site::new();
    let (one, other) = (site.node(), site.node());
    let (first, second) = (Server::start(&one), Server::start(&other));
    let (tenant, integration_id) = complete(&one, &first);
    let mut there = tenant.client(&second);
    let asked = json!({ "integration_id": integration_id });
    for _ in 0..3 {
        assert_eq!(there.post(CHECK, &asked).expect("an answer").status, 200);
    }
    let context = there.get("/api/v1/session/context").expect("an answer");
    let bearer = format!("Bearer {OPERATOR_TOKEN}");
    let mut operator = Http::new(first.address(), &[("Authorization", &bearer)]);
    // It is the middle of June 2031.
    let made = json!({
        "tenant_id": context.data("tenant_id"), "dimension": "rate", "allowed_value": 1,
        "expires_at": "2031-07-01T00:00:00Z", "reason": "a test",
    });
    let made = operator.post("/fdr/abuse/override", &made).expect("an answer");
    assert_eq!(made.status, 201, "{made:?}");
    check_soon(&mut there, &asked, 429, "RATE_LIMITED");
    first.stop();
    second.stop();
}

#[test]
fn what_is_spent_through_one_node_is_spent_on_every_node() {
    let site = Site::new();
    let (mut one, mut other) = (site.node(), site.node());
    for node in [&mut one, &mut other] {
        node.set(COST, "100");
    }
    let (first, second) = (Server::start(&one), Server::start(&other));
    let (tenant, integration_id) = complete(&one, &first);
    let (mut here, mut there) = (tenant.client(&first), tenant.client(&second));
    let asked = json!({ "integration_id": integration_id });
    assert_eq!(there.post(CHECK, &asked).expect("an answer").status, 200);
    let spent = here.post(RECORDS, &record(&integration_id, "spent", 100));
    assert_eq!(spent.expect("an answer").status, 201);
    check_soon(&mut there, &asked, 429, "COST_LIMIT_EXCEEDED");
    check_soon(&mut here, &asked, 429, "COST_LIMIT_EXCEEDED");
    first.stop();
    second.stop();
}

#[test]
fn money_that_cannot_be_counted_is_not_let_go() {
    let site = Site::new();
    let mut node = site.node();
    node.set(COST, "100");
    let server = Server::start(&node);
    let (tenant, integration_id) = complete(&node, &server);
    let mut http = tenant.client(&server);
    let asked = json!({ "integration_id": integration_id });
    assert_eq!(http.post(CHECK, &asked).expect("an answer").status, 200);
    let role = site.database.app_role();
    site.database.run(&format!("revoke select on rollups from {role}"));
    check_soon(&mut http, &asked, 503, "UNAVAILABLE");
    let status = format!("/api/v1/enforcement/status?integration_id={integration_id}");
    assert_eq!(http.get(&status).expect("an answer").status, 200, "reads go on");
    site.database.run(&format!("grant select on rollups to {role}"));
    check_soon(&mut http, &asked, 200, "");
    server.stop();
}
