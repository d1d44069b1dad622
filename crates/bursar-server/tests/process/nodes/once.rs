//! The same call id sent to several nodes concurrently.

use std::collections::{BTreeMap, BTreeSet};

use bursar_testing::process::bodies::record;
use bursar_testing::process::books::{Books, integer};
use bursar_testing::process::http::Answer;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::scale;
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::{Site, reservation};

const NODES: usize = 3;
/// How often each call is sent concurrently.
const TIMES: usize = 20;
/// Calls of a batch.
const CALLS: usize = 50;
const BUDGET_CENTS: u64 = 1_000_000;
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const BATCHES: &str = "/api/v1/telemetry/llm-usage/batch";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// Asserts that one response accepted the call and all others are duplicates with the same record.
#[track_caller]
fn check_one_record(answers: &[Answer]) {
    let has_status = |answer: &&Answer, status: &str| answer.data("status") == status;
    assert!(answers.iter().all(Answer::is_success), "{answers:?}");
    let accepted = answers.iter().filter(|answer| has_status(answer, "accepted")).count();
    let duplicates = answers.iter().filter(|answer| has_status(answer, "duplicate")).count();
    assert_eq!((accepted, duplicates), (1, TIMES - 1), "{answers:?}");
    let ids: BTreeSet<String> =
        answers.iter().map(|answer| answer.data("id").to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

/// Sends a record to all nodes concurrently.
#[track_caller]
fn check_record(fleet: &Fleet, tenant: &Tenant, integration: &str, call_id: &str) {
    let body = record(integration, call_id, 3);
    let answers = fleet.run_concurrently(tenant, TIMES, |_, http| http.post(RECORDS, &body));
    check_one_record(
        &answers.into_iter().map(|answer| answer.expect("an answer")).collect::<Vec<_>>(),
    );
}

/// Sends the calls of a batch to all nodes concurrently, each time in another order.
#[track_caller]
fn check_batch(fleet: &Fleet, tenant: &Tenant, integration: &str, name: &str) {
    let records: Vec<Value> =
        (0..CALLS).map(|call| record(integration, &format!("{name}-{call}"), 3)).collect();
    let answers = fleet.run_concurrently(tenant, TIMES, |client, http| {
        let mut records = records.clone();
        records.rotate_left(client * CALLS / TIMES);
        if client % 2 == 1 {
            records.reverse();
        }
        http.post(BATCHES, &json!({ "records": records })).expect("an answer")
    });
    let sum = |field: &str| -> i64 {
        answers.iter().map(|answer| integer(answer.body.get("data").expect("data"), field)).sum()
    };
    let sums = ["accepted", "duplicates", "conflicts", "errors"].map(sum);
    let (calls, times) =
        (i64::try_from(CALLS).expect("small"), i64::try_from(TIMES).expect("small"));
    assert_eq!(sums, [calls, calls * (times - 1), 0, 0]);

    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let results = answers.iter().filter_map(|answer| answer.data("results").as_array()).flatten();
    for result in results {
        let text = |field: &str| result.get(field).map(Value::to_string).unwrap_or_default();
        ids.entry(text("call_id")).or_default().insert(text("id"));
    }
    assert_eq!(ids.len(), CALLS);
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
}

/// Reserves the same call on all nodes concurrently, then settles it likewise.
#[track_caller]
fn check_reservation(fleet: &Fleet, tenant: &Tenant, integration: &str, call_id: &str) {
    let body = reservation(integration, call_id, 5);
    let answers = fleet.run_concurrently(tenant, TIMES, |_, http| {
        http.post(RESERVATIONS, &body).expect("an answer")
    });
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    let held: BTreeSet<String> =
        answers.iter().map(|answer| answer.data("reservation").to_string()).collect();
    assert_eq!(held.len(), 1, "one answer: {held:?}");
    let books = Books::read(fleet.server(1), tenant);
    assert!(books.holds.contains_key(call_id));
    assert_eq!(books.holds.len(), 1, "{:?}", books.holds);
    check_record(fleet, tenant, integration, call_id);
}

/// Asserts that what is sent to all nodes concurrently is stored once, with one response.
#[track_caller]
pub(crate) fn check_once(fleet: &Fleet, rounds: usize) {
    let tenant = fleet.tenant(&[BUDGET_CENTS]);
    let integration = tenant.integrations.first().expect("an integration");
    for round in 0..rounds {
        check_record(fleet, &tenant, integration, &format!("single-{round}"));
        check_batch(fleet, &tenant, integration, &format!("batch-{round}"));
        check_reservation(fleet, &tenant, integration, &format!("held-{round}"));
        for node in 0..NODES {
            let Books { entries, holds } = Books::read(fleet.server(node), &tenant);
            assert_eq!((entries.len(), holds.len()), ((round + 1) * (CALLS + 2), 0));
        }
    }
    fleet.check_verified();
}

#[test]
fn the_same_call_sent_to_three_nodes_at_once_is_one_record_with_one_response() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    check_once(&fleet, scale(3, 30));
    fleet.stop();
}
