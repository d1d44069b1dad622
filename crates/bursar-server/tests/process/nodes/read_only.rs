//! A database that answers and takes no writes.

use std::time::Duration;

use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::{Site, record, reservation};

/// How long a node may take to notice that its database takes no writes, or takes them again.
const NOTICED_MAX: Duration = Duration::from_secs(4);

/// Waits until `/health/ready` answers this.
#[track_caller]
fn check_readiness(server: &Server, status: u16) -> Answer {
    let mut http = Http::new(server.address(), &[]);
    let ready = within(NOTICED_MAX, || {
        let answer = http.get("/health/ready").expect("an answer");
        (answer.status == status).then_some(answer)
    });
    assert_eq!(http.get("/health/live").expect("an answer").status, 200);
    ready.unwrap_or_else(|| panic!("not {status} within {NOTICED_MAX:?}"))
}

/// Waits until `/health/ready` says by this word why the database takes no writes.
#[track_caller]
fn check_reason(server: &Server, reason: &str) {
    let told = within(NOTICED_MAX, || {
        let refused = check_readiness(server, 503);
        assert_eq!(refused.code(), "UNAVAILABLE");
        let message = refused.body.pointer("/error/message").and_then(Value::as_str)?;
        message.contains(reason).then_some(())
    });
    assert!(told.is_some(), "{reason} is not told within {NOTICED_MAX:?}");
}

/// Says whether sessions that begin from now on may write, and ends those that began before.
fn set_read_only(site: &Site, setting: &str) {
    let name = site.database.app_url().rsplit('/').next().expect("a database");
    let name = name.split('?').next().expect("a name");
    site.database.run(&format!("begin read write; alter database {name} {setting}; commit"));
    site.database.terminate_backends();
}

#[test]
fn a_node_over_a_database_that_may_only_be_read_is_not_ready_until_it_may_be_written() {
    let site = Site::new();
    let node = site.node();
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    let integration_id = tenant.add_integration(&server, 1_000_000);
    check_readiness(&server, 200);

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
    // A reader whose session was ended is told so by its next question.
    let summary = within(NOTICED_MAX, || {
        let answer = http.get("/api/v1/telemetry/usage-summary").expect("an answer");
        (answer.status == 200).then_some(())
    });
    assert!(summary.is_some(), "reads do not go on within {NOTICED_MAX:?}");
    let check = json!({ "integration_id": integration_id, "estimated_cost_cents": 1 });
    let checked = http.post("/api/v1/enforcement/check", &check).expect("an answer");
    assert_eq!(checked.status, 200, "{checked:?}");

    set_read_only(&site, "reset default_transaction_read_only");
    check_readiness(&server, 200);
    let call = record(&integration_id, "refused", 1);
    let recorded = http.post("/api/v1/telemetry/llm-usage", &call).expect("an answer");
    assert_eq!(recorded.status, 201, "{recorded:?}");
    server.stop();
}

#[test]
fn a_node_over_a_standby_is_not_ready_until_that_is_promoted() {
    let cluster = Cluster::new();
    let site = Site::on(&cluster);
    let node = site.node();
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    let integration_id = tenant.add_integration(&server, 1_000_000);
    check_readiness(&server, 200);

    cluster.follow();
    check_reason(&server, "standby");

    site.database.run("select pg_promote()");
    check_readiness(&server, 200);
    let call = record(&integration_id, "promoted", 1);
    let recorded = tenant.client(&server).post("/api/v1/telemetry/llm-usage", &call);
    assert_eq!(recorded.expect("an answer").status, 201);
    server.stop();
}
