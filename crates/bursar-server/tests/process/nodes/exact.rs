//! Many clients ask several nodes at once for a budget that fits few of them.

use std::collections::BTreeSet;

use bursar_testing::process::books::integer;
use bursar_testing::process::clock::END_OF_JUNE_2031;
use bursar_testing::process::http::Http;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::scale;
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::{Site, record, reservation};

const NODES: usize = 3;
const CLIENTS: usize = 64;
const ASKS: usize = 1_000;
/// What the budget fits, exactly.
const FITS: usize = 10;
const BUDGET_CENTS: u64 = 100;
const ASKED_CENTS: u32 = 10;
/// From the end of June on, an instant in each month that follows.
const MONTH_SECONDS: u64 = 31 * 86_400;
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// Asks for a call; whether it is held.
fn ask(http: &mut Http, integration: &str, call_id: &str) -> bool {
    let answer = http.post(RESERVATIONS, &reservation(integration, call_id, ASKED_CENTS));
    let answer = answer.expect("an answer");
    let is_held = answer.data("reservation") != &Value::Null;
    match (answer.status, is_held) {
        (201, true) => true,
        (200, false) => {
            assert_eq!(answer.data("result"), "blocked", "{answer:?}");
            false
        }
        _ => panic!("{call_id} was answered {answer:?}"),
    }
}

/// Asks for a thousand calls at once; those that are held.
fn ask_all(fleet: &Fleet, tenant: &Tenant, integration: &str, round: usize) -> BTreeSet<String> {
    let told = fleet.at_once(tenant, CLIENTS, |client, http| {
        let calls = (client..ASKS).step_by(CLIENTS);
        let call_ids = calls.map(|call| format!("round-{round}-ask-{call}"));
        call_ids.filter(|call_id| ask(http, integration, call_id)).collect::<Vec<_>>()
    });
    told.into_iter().flatten().collect()
}

/// Claims that a node shows these calls as open and nothing else of the month's budget as used.
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

/// Claims that exactly what a budget fits is held, whichever nodes are asked.
#[track_caller]
fn check_round(fleet: &Fleet, tenant: &Tenant, integration: &str, round: usize) {
    let held = ask_all(fleet, tenant, integration, round);
    assert_eq!(held.len(), FITS, "round {round}: {held:?}");
    for node in 0..NODES {
        check_shown(&mut tenant.client(fleet.server(node)), integration, &held);
    }
    // Each takes what it asked for, so that the month is used up.
    let mut http = tenant.client(fleet.server(round));
    for call_id in &held {
        let settled = http.post(RECORDS, &record(integration, call_id, ASKED_CENTS));
        assert_eq!(settled.expect("an answer").status, 201);
    }
    for node in 0..NODES {
        let mut http = tenant.client(fleet.server(node));
        assert!(!ask(&mut http, integration, "one more"), "the month is used up");
    }
}

/// Goes through rounds on new integrations and, in turn, on one that has been used up, of which the
/// asks are the first of a new month.
#[track_caller]
pub(crate) fn check_exact(fleet: &Fleet, rounds: usize) {
    let mut tenant = fleet.tenant(&[]);
    let old = tenant.add_integration(fleet.server(0), BUDGET_CENTS);
    fleet.show(END_OF_JUNE_2031);
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
        assert!(!ask(&mut http, &old, "the month before"), "the month before is used up");
        fleet.show(END_OF_JUNE_2031 + 15 + months * MONTH_SECONDS);
        months += 1;
        check_round(fleet, &tenant, &old, round);
    }
    let check = json!({ "integration_id": old, "estimated_cost_cents": 1 });
    let check = tenant.client(fleet.server(1)).post("/api/v1/enforcement/check", &check);
    assert_eq!(check.expect("an answer").data("result"), "blocked");
    fleet.check_verified();
}

#[test]
fn a_thousand_asks_of_three_nodes_get_exactly_what_the_budget_fits_also_first_in_a_month() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    check_exact(&fleet, scale(3, 20));
    fleet.stop();
}
