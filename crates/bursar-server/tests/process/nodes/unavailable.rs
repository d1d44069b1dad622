//! Outages of the database.

use std::time::{Duration, Instant};

use bursar_testing::postgres::cluster::{Cluster, Mode};
use bursar_testing::postgres::proxy::Proxy;
use bursar_testing::process::bodies::record;
use bursar_testing::process::books::Books;
use bursar_testing::process::clock::MID_JUNE_2031;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

use crate::nodes::support::{Site, reservation};

const AWAY_MAX: Duration = Duration::from_secs(2);
const BACK_MAX: Duration = Duration::from_secs(5);
const JOBS_MAX: Duration = Duration::from_secs(10);
/// Concurrent clients.
const CLIENTS: usize = 8;

/// Asserts that concurrent requests that need the database get 503 in time.
#[track_caller]
fn check_unavailable(server: &Server, tenant: &Tenant) {
    let integration_id = tenant.integrations.first().expect("an integration");
    let ask = |client: usize| {
        let mut http = tenant.client(server);
        let began = Instant::now();
        let call = format!("away {client}");
        let answer = match client % 4 {
            0 => http.post("/api/v1/telemetry/llm-usage", &record(integration_id, &call, 1)),
            1 => http
                .post("/api/v1/enforcement/reservations", &reservation(integration_id, &call, 1)),
            2 => http.get("/api/v1/telemetry/usage-summary"),
            _ => http.get("/health/ready"),
        };
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{answer:?}");
        let took = began.elapsed();
        assert!(took < AWAY_MAX, "client {client} waited {took:?}");
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        for client in clients {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let mut http = Http::new(server.address(), &[]);
    assert_eq!(http.get("/health/live").expect("an answer").status, 200);
}

/// Asserts that the node soon accepts records again without a restart.
#[track_caller]
fn check_available(server: &Server, tenant: &Tenant) {
    let integration_id = tenant.integrations.first().expect("an integration");
    let mut http = tenant.client(server);
    let recorded = within(BACK_MAX, || {
        let call = record(integration_id, "back", 1);
        let answer = http.post("/api/v1/telemetry/llm-usage", &call).expect("an answer");
        answer.is_success().then_some(())
    });
    assert!(
        recorded.is_some(),
        "nothing is taken {BACK_MAX:?} after the database is available again"
    );
    assert_eq!(http.get("/health/ready").expect("an answer").status, 200);
}

/// Asserts that the jobs of the node run again: holds expire, and decisions are stored.
#[track_caller]
fn check_jobs(site: &Site, (node, server): (&Folder, &Server), tenant: &Tenant, http: &mut Http) {
    let integration_id = tenant.integrations.first().expect("an integration");
    node.clock.set(MID_JUNE_2031 + 601);
    server.confirm_clock(node);
    let ended = within(JOBS_MAX, || {
        let open = site.database.run("select 1 from reservations where state = 1");
        open.is_empty().then_some(())
    });
    assert!(ended.is_some(), "expired holds still count");

    let check = json!({ "integration_id": integration_id, "estimated_cost_cents": 2_000_000 });
    let checked = http.post("/api/v1/enforcement/check", &check).expect("an answer");
    assert_eq!(checked.data("result"), "blocked", "{checked:?}");
    let stored = within(JOBS_MAX, || {
        let stored = http.get("/api/v1/enforcement/decisions").expect("an answer");
        let rows = stored.body.get("data").and_then(Value::as_array).expect("rows");
        (!rows.is_empty()).then_some(())
    });
    assert!(stored.is_some(), "decisions are not stored");
}

#[test]
fn a_database_crash_returns_503_at_once_and_service_resumes() {
    let cluster = Cluster::new();
    let site = Site::on(&cluster);
    let mut node = site.node();
    node.set("BURSAR_LOG", "info");
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    let integration_id = tenant.add_integration(&server, 1_000_000);
    let mut http = tenant.client(&server);
    for call in 0..20 {
        let call = record(&integration_id, &format!("before {call}"), 1);
        assert_eq!(http.post("/api/v1/telemetry/llm-usage", &call).expect("an answer").status, 201);
    }
    let held =
        http.post("/api/v1/enforcement/reservations", &reservation(&integration_id, "held", 1));
    assert_eq!(held.expect("an answer").status, 201);
    cluster.stop(Mode::Immediate);
    check_unavailable(&server, &tenant);
    // One log line for the whole outage.
    let logged =
        within(Duration::from_secs(3), || node.log().contains("is unavailable").then_some(()));
    assert!(logged.is_some(), "{}", node.log());
    check_unavailable(&server, &tenant);
    cluster.start();
    check_available(&server, &tenant);
    let books = Books::read(&server, &tenant);
    let before = books.entries.keys().filter(|call| call.starts_with("before")).count();
    assert_eq!(before, 20, "what was acknowledged is there, once");
    assert!(books.holds.contains_key("held"));
    check_jobs(&site, (&node, &server), &tenant, &mut http);
    server.stop();
    let log = node.log();
    assert_eq!(log.matches("the database is unavailable").count(), 1, "{log}");
    assert_eq!(log.matches("the database is available again").count(), 1, "{log}");
}

#[test]
fn a_database_that_hangs_is_treated_as_unavailable() {
    let site = Site::new();
    let proxy = Proxy::start(site.database.app_url());
    let node = site.node_with_url(&proxy.through(site.database.app_url()));
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    tenant.add_integration(&server, 1_000_000);
    proxy.delay_replies();
    check_unavailable(&server, &tenant);
    check_unavailable(&server, &tenant);
    proxy.release_replies();
    check_available(&server, &tenant);
    proxy.delay_replies();
    check_unavailable(&server, &tenant);
    // Its shutdown does not wait for the database.
    server.stop();
}

#[test]
fn an_unresponsive_host_does_not_block_the_next_one() {
    let site = Site::new();
    let (first, second) =
        (Proxy::start(site.database.app_url()), Proxy::start(site.database.app_url()));
    // A URL with two hosts: role@first,second/name.
    let url = first.through(site.database.app_url());
    let host = |proxy: &Proxy| {
        let url = proxy.through(site.database.app_url());
        let place = url.rsplit('@').next().and_then(|rest| rest.split('/').next());
        place.expect("a host").to_owned()
    };
    let url = url.replace(&host(&first), &format!("{},{}", host(&first), host(&second)));
    let node = site.node_with_url(&url);
    let server = Server::start(&node);
    let mut tenant = Tenant::new(&node, &server);
    tenant.add_integration(&server, 1_000_000);
    // Like a primary that loses its network after its connections were reset.
    first.delay_replies();
    first.cut();
    check_available(&server, &tenant);
    server.stop();
    Server::start(&node).stop();
}
