//! A node that is stopped in the middle of a transaction and continues later, like a paused
//! machine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bursar_testing::process::bodies::record;
use bursar_testing::process::books::Books;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::send_signal;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::{scale, within};
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, Progress, write_while};
use crate::nodes::support::{Site, reservation};

const SEED: u64 = 20_261_127;
const NODES: usize = 2;
const WRITERS: usize = 8;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// A budget for exactly `FITS` reservations of a round.
const TIGHT_CENTS: u64 = 100;
const ESTIMATE_CENTS: u32 = 10;
const FITS: usize = 10;
/// Clients on each node that reserve until they are refused.
const RESERVERS: usize = 4;
/// Steps of the writers between two attempts to stop a node in the middle of a transaction.
const STEPS: usize = 20;
const ATTEMPTS: usize = 100;
/// The duration of an attempt, longer than a running node leaves a transaction idle.
const ATTEMPT_MAX: Duration = Duration::from_millis(400);
/// The database's timeout of an idle transaction, and some slack.
const SERVED_WITHIN: Duration = Duration::from_secs(6);
/// The timeout of a lock, after which the node returns 503, and some slack.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// A stopped node, which continues when this is dropped.
struct Stopped(u32);

impl Stopped {
    fn stop(pid: u32) -> Self {
        send_signal("STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send_signal("CONT", self.0);
    }
}

/// Stops a node while it holds the lock of an integration, in as many attempts as it takes.
fn stop_in_a_transaction(site: &Site, pid: u32, progress: &Progress) -> Stopped {
    let idle = "select 1 from pg_stat_activity where datname = current_database() and \
                state = 'idle in transaction' and clock_timestamp() - state_change > \
                interval '150 milliseconds' and exists (select 1 from pg_locks where \
                pg_locks.pid = pg_stat_activity.pid and relation = 'integrations'::regclass \
                and mode in ('RowShareLock', 'RowExclusiveLock'))";
    for _ in 0..ATTEMPTS {
        progress.wait_for(STEPS);
        let stopped = Stopped::stop(pid);
        let holds = || !site.database.run(idle).is_empty();
        if within(ATTEMPT_MAX, || holds().then_some(())).is_some() {
            return stopped;
        }
    }
    panic!("the node was never stopped in the middle of a transaction");
}

/// Reserves calls until the budget is used up; returns those that are held.
fn reserve_all(mut http: Http, integration: &str, name: &str) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let mut number = 0;
    loop {
        let call_id = format!("{name}-{number}");
        let body = reservation(integration, &call_id, ESTIMATE_CENTS);
        let answer = http.post(RESERVATIONS, &body).expect("an answer");
        match answer.status {
            201 => held.insert(call_id),
            // Nothing was promised, so the call is repeated.
            503 => continue,
            200 => {
                assert_eq!(answer.data("result"), "blocked", "{answer:?}");
                return held;
            }
            _ => panic!("{call_id} got {answer:?}"),
        };
        number += 1;
    }
}

/// The effects of a hanging node on the others.
#[derive(Debug)]
struct Hang {
    /// The time from its stop to the first record of the same integration on another node.
    served_after: Duration,
    /// The slowest 503 meanwhile.
    slowest_refusal: Duration,
    held: BTreeSet<String>,
}

/// Stops a node in the middle of a transaction until another serves the integration that it has
/// locked. Meanwhile clients of both reserve on one budget.
fn hang(
    site: &Site,
    fleet: &Fleet,
    tenant: &Tenant,
    progress: &Progress,
    (busy, tight, round): (&str, &str, usize),
) -> Hang {
    let pid = fleet.server(0).pid();
    let stopped = stop_in_a_transaction(site, pid, progress);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let reservers: Vec<_> = (0..NODES * RESERVERS)
            .map(|reserver| {
                let http = tenant.client(fleet.server(reserver));
                let name = format!("round-{round}-reserver-{reserver}");
                scope.spawn(move || reserve_all(http, tight, &name))
            })
            .collect();
        let mut http = tenant.client(fleet.server(1));
        let mut slowest_refusal = Duration::ZERO;
        let call = record(busy, &format!("probe-{round}"), 1);
        let served_after = within(SERVED_WITHIN, || {
            let sent = Instant::now();
            let answer = http.post(RECORDS, &call).expect("an answer");
            if answer.status == 503 {
                slowest_refusal = slowest_refusal.max(sent.elapsed());
            }
            answer.is_success().then(|| began.elapsed())
        });
        drop(stopped);
        let held = reservers
            .into_iter()
            .flat_map(|reserver| reserver.join().expect("a reserver"))
            .collect();
        let served_after =
            served_after.expect("the other node serves what the hung one has locked");
        Hang { served_after, slowest_refusal, held }
    })
}

/// Asserts that exactly the promised holds are open and that they fit the budget.
#[track_caller]
fn check_budget(fleet: &Fleet, tenant: &Tenant, tight: &str, promised: &BTreeSet<String>) {
    for node in 0..NODES {
        let mut http = tenant.client(fleet.server(node));
        let path = format!("{RESERVATIONS}?integration_id={tight}&limit=100");
        let listed = http.get(&path).expect("an answer");
        let listed = listed.body.get("data").and_then(Value::as_array).expect("rows");
        let call_ids = listed.iter().filter_map(|row| row.get("call_id")?.as_str());
        assert_eq!(&call_ids.map(str::to_owned).collect::<BTreeSet<_>>(), promised);
    }
    assert_eq!(promised.len(), FITS);
}

#[test]
fn a_node_that_hangs_in_a_transaction_delays_others_for_seconds_and_counts_nothing_twice() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    let mut tenant = fleet.tenant(&[BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let busy = tenant.integrations.first().expect("an integration").clone();
    let rounds = scale(1, 6);
    let tight: Vec<_> =
        (0..rounds).map(|_| tenant.add_integration(fleet.server(0), TIGHT_CENTS)).collect();
    let (hangs, outcomes) =
        write_while(&tenant, &Addresses::of(&fleet), &mut writers, |progress| {
            let rounds = tight.iter().enumerate();
            rounds
                .map(|(round, tight)| hang(&site, &fleet, &tenant, progress, (&busy, tight, round)))
                .collect::<Vec<_>>()
        });
    println!("{hangs:?}, {outcomes:?}");
    for (hang, tight) in hangs.iter().zip(&tight) {
        assert!(hang.served_after < SERVED_WITHIN, "{hang:?}");
        assert!(hang.slowest_refusal < REFUSED_WITHIN, "{hang:?}");
        check_budget(&fleet, &tenant, tight, &hang.held);
    }
    let mut books = Books::read(fleet.server(1), &tenant);
    let probes = books.entries.len();
    books.entries.retain(|call_id, _| !call_id.starts_with("probe-"));
    assert_eq!(probes - books.entries.len(), rounds, "each probe is stored once");
    books.holds.retain(|call_id, _| !call_id.starts_with("round-"));
    let acknowledged = check_acknowledged(&writers, &books);
    fleet.check_verified();
    println!("{acknowledged} records acknowledged, each there once");
    let check = json!({ "integration_id": busy });
    for node in 0..NODES {
        let mut http = tenant.client(fleet.server(node));
        let checked = http.post("/api/v1/enforcement/check", &check).expect("an answer");
        assert_eq!(checked.data("result"), "allowed", "node {node} decides again: {checked:?}");
    }
    fleet.stop();
}
