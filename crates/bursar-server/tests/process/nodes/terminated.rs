//! Database connections that are terminated at random moments, as by a failover.

use std::time::Duration;

use bursar_testing::chance::Chance;
use bursar_testing::process::books::Books;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::{scale, within};

use crate::nodes::support::Site;
use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, write_while};

const SEED: u64 = 20_261_123;
const NODES: usize = 2;
const WRITERS: usize = 8;
/// More than the read connections of a node.
const IN_A_ROW: usize = 64;
const ANSWERS_MAX: Duration = Duration::from_secs(10);
const BUDGET_CENTS: u64 = 1_000_000_000_000;

/// Waits until a node has replaced all ended connections: this many successes in a row used each of
/// them.
#[track_caller]
fn wait_for_answers(server: &Server, tenant: &Tenant) {
    let mut http = tenant.client(server);
    let mut answers = || http.get("/api/v1/telemetry/usage-history?limit=1").expect("an answer");
    let all = within(ANSWERS_MAX, || (0..IN_A_ROW).all(|_| answers().status == 200).then_some(()));
    assert!(all.is_some(), "a node does not answer within {ANSWERS_MAX:?}");
}

#[test]
fn terminated_database_connections_lose_nothing_and_cause_at_most_a_503() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    let tenant = fleet.tenant(&[BUDGET_CENTS, BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let mut chance = Chance::new(SEED);

    let times = scale(30, 400);
    let addresses = Addresses::of(&fleet);
    let (ended, outcomes) = write_while(&tenant, &addresses, &mut writers, |_| {
        let end = |_| {
            // The sleep only chooses the moment of the end.
            std::thread::sleep(Duration::from_millis(chance.below(60)));
            site.database.terminate_backends()
        };
        (0..times).map(end).sum::<usize>()
    });
    wait_for_answers(fleet.server(0), &tenant);
    let acknowledged = check_acknowledged(&writers, &Books::read(fleet.server(0), &tenant));
    fleet.check_verified();
    println!("{ended} connections ended, {acknowledged} records acknowledged, {outcomes:?}");
    assert!(ended > times, "the connections were not replaced");
    assert_eq!(outcomes.lost, 0, "every client is answered: {outcomes:?}");
    assert!(outcomes.steps > times, "the nodes do not continue: {outcomes:?}");
    fleet.stop();
}
