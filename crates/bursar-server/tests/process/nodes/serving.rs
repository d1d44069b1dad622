//! Several nodes over one database.

use std::time::Duration;

use bursar_testing::postgres::bouncer::Bouncer;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::process::bodies::record;
use bursar_testing::process::books::Books;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::{Process, Server};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::{OPERATOR_TOKEN, Site, reservation};

const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// Reserves and records through two nodes in turn, and asserts that both show each call once.
#[track_caller]
fn check_shared(one: &Server, other: &Server, tenant: &Tenant) {
    let integration_id = tenant.integrations.first().expect("an integration");
    let (mut here, mut there) = (tenant.client(one), tenant.client(other));
    let held = there.post(RESERVATIONS, &reservation(integration_id, "held", 30));
    assert_eq!(held.expect("an answer").status, 201);
    let again = here.post(RESERVATIONS, &reservation(integration_id, "held", 30));
    assert_eq!(again.expect("an answer").status, 201, "the same content replays the answer");
    let open = here.post(RESERVATIONS, &reservation(integration_id, "open", 20));
    assert_eq!(open.expect("an answer").status, 201);

    let settled = here.post(RECORDS, &record(integration_id, "held", 25)).expect("an answer");
    assert_eq!((settled.status, settled.data("status")), (201, &json!("accepted")));
    let again = there.post(RECORDS, &record(integration_id, "held", 25)).expect("an answer");
    assert_eq!(again.data("status"), "duplicate", "{again:?}");
    assert_eq!(again.data("id"), settled.data("id"));
    let other_content = there.post(RECORDS, &record(integration_id, "held", 26));
    assert_eq!(other_content.expect("an answer").code(), "CALL_ID_CONFLICT");

    let books = [Books::read(one, tenant), Books::read(other, tenant)];
    for Books { entries, holds } in &books {
        assert_eq!((entries.len(), holds.len()), (1, 1));
        assert!(entries.contains_key("held") && holds.contains_key("open"));
    }
}

#[test]
fn every_node_shows_what_another_wrote_and_counts_it_once() {
    let site = Site::new();
    let (one, other) = (site.node(), site.node());
    let (first, second) = (Server::start(&one), Server::start(&other));
    let mut tenant = Tenant::new(&one, &first);
    tenant.add_integration(&second, 100);
    check_shared(&first, &second, &tenant);
    first.stop();
    second.stop();
    assert_eq!(one.run(&["db", "verify"]).lines().last().map(str::to_owned), {
        Some("1 entries, 1 open reservations, 1 counters, 2 rollups: 0 differences".to_owned())
    });
}

#[test]
fn nodes_work_through_a_pooler_in_transaction_mode() {
    let site = Site::new();
    let bouncer = Bouncer::start(Cluster::shared(), 4);
    let url = bouncer.through(site.database.app_url());
    let (one, other) = (site.node_with_url(&url), site.node_with_url(&url));
    let (first, second) = (Server::start(&one), Server::start(&other));
    let mut tenant = Tenant::new(&one, &first);
    tenant.add_integration(&first, 100);
    check_shared(&first, &second, &tenant);
    first.stop();
    second.stop();
}

#[test]
fn a_hold_expires_once_after_its_node_was_killed() {
    let site = Site::new();
    let (one, mut other) = (site.node(), site.node());
    let clock = one.clock.path().to_string_lossy().into_owned();
    other.set("BURSAR_TEST_CLOCK_FILE", clock);
    let (first, second) = (Server::start(&one), Server::start(&other));
    let mut tenant = Tenant::new(&one, &first);
    let integration_id = tenant.add_integration(&first, 100);
    let mut there = tenant.client(&second);
    for call in ["a", "b"] {
        let held = there.post(RESERVATIONS, &reservation(&integration_id, call, 50));
        assert_eq!(held.expect("an answer").status, 201);
    }
    let full = there.post(RESERVATIONS, &reservation(&integration_id, "c", 50));
    assert_eq!(full.expect("an answer").status, 200);

    first.kill();
    one.clock.set(bursar_testing::process::clock::MID_JUNE_2031 + 601);
    second.confirm_clock(&other);
    let admitted = there.post(RESERVATIONS, &reservation(&integration_id, "d", 50));
    assert_eq!(admitted.expect("an answer").status, 201, "the expired holds are free");
    let late = record(&integration_id, "a", 10);
    assert_eq!(there.post(RECORDS, &late).expect("an answer").status, 201);
    let books = Books::read(&second, &tenant);
    assert_eq!((books.entries.len(), books.holds.len()), (1, 1));
    second.stop();
}

#[test]
fn a_node_creates_no_folder_and_shows_no_secret() {
    let site = Site::new();
    let mut node = site.node();
    std::fs::remove_dir_all(node.data()).expect("removed");
    node.set("BURSAR_LOG", "trace");
    node.set("BURSAR_LOG_FORMAT", "json");
    let mut process = Process::start(&mut node.serve());
    let address = within(Duration::from_secs(30), || {
        if let Some(status) = process.exit_status() {
            panic!("the node ended with {status}:\n{}", node.log());
        }
        listening(&node.log())
    });
    let address = address.expect("an address in the log");
    let operator = format!("Bearer {OPERATOR_TOKEN}");
    let mut http = Http::new(&address, &[("Authorization", &operator)]);
    let mut seen = String::new();
    for path in ["/health/ready", "/api/v1/tenants", "/metrics", "/api/v1/no/such", "/openapi.json"]
    {
        seen += &http.get(path).expect("an answer").body.to_string();
    }
    let url = format!("--url=http://{address}");
    seen += &node.run(&["health", &url]);
    seen += &node.run(&["config", "check"]);
    seen += &node.run(&["db", "status"]);
    assert!(!node.data().exists(), "a node needs no folder");
    seen += &node.log();
    assert!(seen.contains("bursar listens"), "the log is read");
    assert!(!seen.contains(&site.password()), "the password is shown");
    for secret in [OPERATOR_TOKEN, crate::nodes::support::SECRET_KEY] {
        assert!(!seen.contains(secret), "a secret is shown");
    }
    process.kill();
}

/// The address in the log of a node.
fn listening(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| {
        let message = line.get("message").or_else(|| line.pointer("/fields/message"));
        message.and_then(Value::as_str) == Some("bursar listens")
    })?;
    let address = line.get("address").or_else(|| line.pointer("/fields/address"))?;
    address.as_str().map(str::to_owned)
}
