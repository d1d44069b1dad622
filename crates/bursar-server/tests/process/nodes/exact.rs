//! Concurrent reservations on several nodes, on a budget that fits few of them.

use std::collections::BTreeSet;

use bursar_testing::process::bodies::record;
use bursar_testing::process::books::integer;
use bursar_testing::process::clock::END_OF_JUNE_2031;
use bursar_testing::process::http::Http;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::scale;
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::{Site, reservation};

const NODES: usize = 3;
const CLIENTS: usize = 64;
const CALLS: usize = 1_000;
/// The number of reservations that the budget fits exactly.
const FITS: usize = 10;
const BUDGET_CENTS: u64 = 100;
const ESTIMATE_CENTS: u32 = 10;
/// From the end of June on, steps of this length hit each following month.
const MONTH_SECONDS: u64 = 31 * 86_400;
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// Reserves a call; tells whether it is held.
fn reserve(http: &mut Http, integration: &str, call_id: &str) -> bool {
    let answer = http.post(RESERVATIONS, &reservation(integration, call_id, ESTIMATE_CENTS));
    let answer = answer.expect("an answer");
    let is_held = answer.data("reservation") != &Value::Null;
    match (answer.status, is_held) {
        (201, true) => true,
        (200, false) => {
            assert_eq!(answer.data("result"), "blocked", "{answer:?}");
            false
        }
        _ => panic!("{call_id} got {answer:?}"),
    }
}

/// Reserves all calls concurrently; returns those that are held.
fn reserve_all(
    fleet: &Fleet,
    tenant: &Tenant,
    integration: &str,
    round: usize,
) -> BTreeSet<String> {
    let held = fleet.run_concurrently(tenant, CLIENTS, |client, http| {
        let calls = (client..CALLS).step_by(CLIENTS);
        let call_ids = calls.map(|call| format!("round-{round}-call-{call}"));
        call_ids.filter(|call_id| reserve(http, integration, call_id)).collect::<Vec<_>>()
    });
    held.into_iter().flatten().collect()
}

/// Asserts that a node shows exactly these calls as open and nothing as used.
#[track_caller]
fn check_shown(http: &mut Http, integration: &str, held: &BTreeSet<String>) {
    let path = format!("{RESERVATIONS}?integration_id={integration}&limit=100");
    let listed = http.get(&path).expect("an answer");
    let listed = listed.body.get("data").and_then(Value::as_array).expect("rows");
    let call_ids = listed.iter().filter_map(|row| row.get("call_id")?.as_str());
    assert_eq!(&call_ids.map(str::to_owned).collect::<BTreeSet<_>>(), held);
    let limits = http.get(&format!("/api/v1/integrations/{integration}/limits"));
    let limits = limits.expect("an answer").body;
    let limits = limits.get("data").expect("data");
    let cents = |field: &str| integer(limits, field);
    assert_eq!((cents("budget_held_cents"), cents("budget_used_cents")), (100, 0));
}

/// Asserts that concurrent reservations on all nodes hold exactly the budget.
#[track_caller]
fn check_round(fleet: &Fleet, tenant: &Tenant, integration: &str, round: usize) {
    let held = reserve_all(fleet, tenant, integration, round);
    assert_eq!(held.len(), FITS, "round {round}: {held:?}");
    for node in 0..NODES {
        check_shown(&mut tenant.client(fleet.server(node)), integration, &held);
    }
    // Each call costs its estimate, so that the month is used up.
    let mut http = tenant.client(fleet.server(round));
    for call_id in &held {
        let settled = http.post(RECORDS, &record(integration, call_id, ESTIMATE_CENTS));
        assert_eq!(settled.expect("an answer").status, 201);
    }
    for node in 0..NODES {
        let mut http = tenant.client(fleet.server(node));
        assert!(!reserve(&mut http, integration, "one more"), "the month is used up");
    }
}

/// Runs rounds on new integrations and, in turn, on a used-up one, whose reservations are the first
/// of a new month.
#[track_caller]
pub(crate) fn check_exact(fleet: &Fleet, rounds: usize) {
    let mut tenant = fleet.tenant(&[]);
    let old = tenant.add_integration(fleet.server(0), BUDGET_CENTS);
    fleet.set_clock(END_OF_JUNE_2031);
    let used_up = record(&old, "june", u32::try_from(BUDGET_CENTS).expect("small"));
    let used_up = tenant.client(fleet.server(0)).post(RECORDS, &used_up);
    assert_eq!(used_up.expect("an answer").status, 201);
    let mut months = 0;
    for round in 0..rounds {
        if round % 2 == 1 {
            let new = tenant.add_integration(fleet.server(round), BUDGET_CENTS);
            check_round(fleet, &tenant, &new, round);
            continue;
        }
        let mut http = tenant.client(fleet.server(round));
        assert!(!reserve(&mut http, &old, "the month before"), "the month before is used up");
        fleet.set_clock(END_OF_JUNE_2031 + 15 + months * MONTH_SECONDS);
        months += 1;
        check_round(fleet, &tenant, &old, round);
    }
    let check = json!({ "integration_id": old, "estimated_cost_cents": 1 });
    let check = tenant.client(fleet.server(1)).post("/api/v1/enforcement/check", &check);
    assert_eq!(check.expect("an answer").data("result"), "blocked");
    fleet.check_verified();
}

#[test]
fn concurrent_reservations_on_three_nodes_hold_exactly_the_budget_also_first_in_a_month() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    check_exact(&fleet, scale(3, 20));
    fleet.stop();
}
