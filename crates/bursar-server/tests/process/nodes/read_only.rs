//! A database that refuses writes.

use std::time::Duration;

use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::process::bodies::record;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::{Site, reservation};

/// The maximal time until a node notices that its database refuses or accepts writes.
const NOTICED_MAX: Duration = Duration::from_secs(4);

/// Waits until `/health/ready` names this reason.
#[track_caller]
fn check_reason(server: &Server, reason: &str) {
    let named = within(NOTICED_MAX, || {
        let refused = server.wait_for_readiness(503, NOTICED_MAX);
        assert_eq!(refused.code(), "UNAVAILABLE");
        let message = refused.body.pointer("/error/message").and_then(Value::as_str)?;
        message.contains(reason).then_some(())
    });
    assert!(named.is_some(), "{reason} is not named within {NOTICED_MAX:?}");
}

/// Changes whether new sessions may write, and ends the existing ones.
fn set_read_only(site: &Site, setting: &str) {
    let name = site.database.app_url().rsplit('/').next().expect("a database");
    let name = name.split('?').next().expect("a name");
    site.database.run(&format!("begin read write; alter database {name} {setting}; commit"));
    site.database.terminate_backends();
}

#[test]
fn a_node_over_a_read_only_database_is_not_ready_until_it_is_writable() {
    let site = Site::new();
    let node = site.node();
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    let integration_id = tenant.add_integration(&server, 1_000_000);
    server.wait_for_readiness(200, NOTICED_MAX);

    set_read_only(&site, "set default_transaction_read_only = on");
    check_reason(&server, "read_only");
    let mut http = tenant.client(&server);
    for (path, body) in [
        ("/api/v1/telemetry/llm-usage", record(&integration_id, "refused", 1)),
        ("/api/v1/enforcement/reservations", reservation(&integration_id, "refused", 1)),
    ] {
        let answer = http.post(path, &body).expect("an answer");
        assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{answer:?}");
    }
    // The next read on an ended session fails.
    let summary = within(NOTICED_MAX, || {
        let answer = http.get("/api/v1/telemetry/usage-summary").expect("an answer");
        (answer.status == 200).then_some(())
    });
    assert!(summary.is_some(), "reads do not go on within {NOTICED_MAX:?}");
    let check = json!({ "integration_id": integration_id, "estimated_cost_cents": 1 });
    let checked = http.post("/api/v1/enforcement/check", &check).expect("an answer");
    assert_eq!(checked.status, 200, "{checked:?}");

    set_read_only(&site, "reset default_transaction_read_only");
    server.wait_for_readiness(200, NOTICED_MAX);
    let call = record(&integration_id, "refused", 1);
    let recorded = http.post("/api/v1/telemetry/llm-usage", &call).expect("an answer");
    assert_eq!(recorded.status, 201, "{recorded:?}");
    server.stop();
}

#[test]
fn a_node_over_a_standby_is_not_ready_until_it_is_promoted() {
    let cluster = Cluster::new();
    let site = Site::on(&cluster);
    let node = site.node();
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    let integration_id = tenant.add_integration(&server, 1_000_000);
    server.wait_for_readiness(200, NOTICED_MAX);

    cluster.restart_as_standby();
    check_reason(&server, "standby");

    site.database.run("select pg_promote()");
    server.wait_for_readiness(200, NOTICED_MAX);
    let call = record(&integration_id, "promoted", 1);
    let recorded = tenant.client(&server).post("/api/v1/telemetry/llm-usage", &call);
    assert_eq!(recorded.expect("an answer").status, 201);
    server.stop();
}
