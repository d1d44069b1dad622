//! Nodes that are killed at random moments under load.

use std::time::{Duration, Instant};

use bursar_testing::chance::Chance;
use bursar_testing::process::books::{Books, integer};
use bursar_testing::process::clock::MID_JUNE_2031;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::{scale, within};
use serde_json::json;

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, write_while};
use crate::nodes::support::{Site, reservation};

const SEED: u64 = 20_261_124;
const NODES: usize = 3;
const WRITERS: usize = 12;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// In the same month, after all holds of the writers have expired.
const NEXT_WEEK: u64 = MID_JUNE_2031 + 7 * 86_400;
/// Longer than a killed node keeps the lease of the sweep.
const SWEPT_WITHIN: Duration = Duration::from_secs(20);
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// Kills and restarts random nodes for this time; returns the number of kills.
fn kill_at_random(fleet: &mut Fleet, addresses: &Addresses, lasts: Duration) -> usize {
    let mut chance = Chance::new(SEED);
    let until = Instant::now() + lasts;
    let mut kills = 0;
    while Instant::now() < until {
        // The sleep only chooses the moment of the kill.
        std::thread::sleep(Duration::from_millis(20 + chance.below(400)));
        fleet.kill_and_restart(chance.below(NODES as u64) as usize);
        addresses.update(fleet);
        kills += 1;
    }
    kills
}

/// The result of a check for the whole budget.
fn check(fleet: &Fleet, tenant: &Tenant, node: usize, integration: &str) -> String {
    let body = json!({ "integration_id": integration, "estimated_cost_cents": 100 });
    let answer = tenant.client(fleet.server(node)).post("/api/v1/enforcement/check", &body);
    answer.expect("an answer").data("result").as_str().expect("a result").to_owned()
}

/// Asserts that expired holds count on no node and are swept by a running node.
#[track_caller]
fn check_expired(fleet: &Fleet, tenant: &Tenant, site: &Site, full: &str) {
    for node in 0..NODES {
        assert_eq!(check(fleet, tenant, node, full), "blocked", "before it expires");
    }
    fleet.set_clock(NEXT_WEEK);
    for node in 0..NODES {
        // A check for the whole budget is allowed with a warning.
        assert_eq!(check(fleet, tenant, node, full), "warned", "an expired hold counts");
        let listed = tenant.client(fleet.server(node)).get(RESERVATIONS).expect("an answer");
        assert_eq!(integer(listed.body.get("meta").expect("meta"), "total"), 0);
    }
    let since = Instant::now();
    let left = "select count(*) from reservations where state = 1 union all \
                select count(*) from counters where (held_cost_nanos, held_tokens, held_calls) <> \
                (0, 0, 0)";
    let none = || site.database.run(left).into_iter().flatten().flatten().all(|rows| rows == "0");
    let swept = within(SWEPT_WITHIN, || none().then_some(()));
    assert_eq!(swept, Some(()), "holds are left after {SWEPT_WITHIN:?}");
    println!("swept after {:?}", since.elapsed());
}

#[test]
fn nodes_killed_at_random_lose_nothing_and_leave_no_hold_behind() {
    let site = Site::new();
    // The limit on a day's cost counts all calls, and refuses none.
    let limit = [("BURSAR_PROTECTION_COST_CENTS_DAY", "1000000000")];
    let mut fleet = Fleet::with_settings(&site, site.database.app_url(), NODES, &limit);
    let mut tenant = fleet.tenant(&[BUDGET_CENTS, BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let addresses = Addresses::of(&fleet);
    let lasts = Duration::from_secs(scale(6, 60));
    let (kills, outcomes) = write_while(&tenant, &addresses, &mut writers, |_| {
        kill_at_random(&mut fleet, &addresses, lasts)
    });
    let books = Books::read(fleet.server(0), &tenant);
    let acknowledged = check_acknowledged(&writers, &books);
    fleet.check_verified();
    let holds = books.holds.len();
    println!("{kills} kills, {acknowledged} records acknowledged, {holds} holds, {outcomes:?}");
    assert!(outcomes.lost > 0, "no kill interrupted a request: {outcomes:?}");
    assert!(holds > 0, "there is something to expire");

    let full = tenant.add_integration(fleet.server(0), 100);
    let mut held = reservation(&full, "all of it", 100);
    held.as_object_mut().expect("an object").insert("ttl_seconds".to_owned(), json!(86_400));
    let held = tenant.client(fleet.server(1)).post(RESERVATIONS, &held);
    assert_eq!(held.expect("an answer").status, 201);
    check_expired(&fleet, &tenant, &site, &full);
    let after = Books::read(fleet.server(2), &tenant);
    assert_eq!((after.entries.len(), after.holds.len()), (books.entries.len(), 0));
    fleet.check_verified();
    fleet.stop();
}
