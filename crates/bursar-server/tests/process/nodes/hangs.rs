//! A node is stopped in the middle of a transaction and goes on later, as a machine that is paused
//! or that has no time for its processes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bursar_testing::process::books::Books;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::send_signal;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_promises};
use bursar_testing::waiting::{scale, within};
use serde_json::{Value, json};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, Progress, write_while};
use crate::nodes::support::{Site, record, reservation};

const SEED: u64 = 20_261_127;
const NODES: usize = 2;
const WRITERS: usize = 8;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// What a budget for ten of the asks of a round fits, exactly.
const TIGHT_CENTS: u64 = 100;
const ASKED_CENTS: u32 = 10;
const FITS: usize = 10;
/// Clients of each node that ask for it, each until it is refused.
const ASKERS: usize = 4;
/// Steps of the writers between two attempts to stop a node in the middle of a transaction.
const STEPS: usize = 20;
const ATTEMPTS: usize = 100;
/// How long an attempt looks: beyond what a node that runs leaves its transaction idle.
const LOOK: Duration = Duration::from_millis(400);
/// How long the database leaves what a node that hangs has locked, and a little for whoever waits.
const SERVED_WITHIN: Duration = Duration::from_secs(6);
/// How long a lock may be waited for before the answer is 503.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

/// A node that goes on when this is dropped, also when the test fails.
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

/// Stops a node that holds the lock of an integration, as often as it takes to meet such a moment.
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
        if within(LOOK, || holds().then_some(())).is_some() {
            return stopped;
        }
    }
    panic!("the node was never stopped in the middle of a transaction");
}

/// Asks for calls until the budget is used up; those that are held.
fn ask_all(mut http: Http, integration: &str, name: &str) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let mut number = 0;
    loop {
        let call_id = format!("{name}-{number}");
        let body = reservation(integration, &call_id, ASKED_CENTS);
        let answer = http.post(RESERVATIONS, &body).expect("an answer");
        match answer.status {
            201 => held.insert(call_id),
            // Nothing was promised; the same is asked again.
            503 => continue,
            200 => {
                assert_eq!(answer.data("result"), "blocked", "{answer:?}");
                return held;
            }
            _ => panic!("{call_id} was answered {answer:?}"),
        };
        number += 1;
    }
}

/// What a node that hangs costs the others.
#[derive(Debug)]
struct Hang {
    /// From its stop to the first record that another node takes for the same integration.
    served_after: Duration,
    /// The longest that anyone waited for a 503 in the meantime.
    slowest_refusal: Duration,
    held: BTreeSet<String>,
}

/// Lets a node hang in the middle of a transaction until another serves what it has locked, then
/// lets it go on; clients ask both for one budget all the while.
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
        let askers: Vec<_> = (0..NODES * ASKERS)
            .map(|asker| {
                let http = tenant.client(fleet.server(asker));
                let name = format!("round-{round}-asker-{asker}");
                scope.spawn(move || ask_all(http, tight, &name))
            })
            .collect();
        let mut http = tenant.client(fleet.server(1));
        let mut slowest_refusal = Duration::ZERO;
        let call = record(busy, &format!("probe-{round}"), 1);
        let served_after = within(SERVED_WITHIN, || {
            let asked = Instant::now();
            let answer = http.post(RECORDS, &call).expect("an answer");
            if answer.status == 503 {
                slowest_refusal = slowest_refusal.max(asked.elapsed());
            }
            answer.is_success().then(|| began.elapsed())
        });
        drop(stopped);
        let held = askers.into_iter().flat_map(|asker| asker.join().expect("an asker")).collect();
        let served_after =
            served_after.expect("the other node serves what the hung one has locked");
        Hang { served_after, slowest_refusal, held }
    })
}

/// Claims that the budget's holds are those that were promised, and no more than it fits.
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
fn a_node_that_hangs_in_a_transaction_holds_others_up_for_seconds_and_counts_nothing_twice() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    let mut tenant = fleet.tenant(&[BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let busy = tenant.integrations.first().expect("an integration").clone();
    let rounds = scale(1, 6);
    let tight: Vec<_> =
        (0..rounds).map(|_| tenant.add_integration(fleet.server(0), TIGHT_CENTS)).collect();
    let (hangs, met) = write_while(&tenant, &Addresses::of(&fleet), &mut writers, |progress| {
        let rounds = tight.iter().enumerate();
        rounds
            .map(|(round, tight)| hang(&site, &fleet, &tenant, progress, (&busy, tight, round)))
            .collect::<Vec<_>>()
    });
    println!("{hangs:?}, {met:?}");
    for (hang, tight) in hangs.iter().zip(&tight) {
        assert!(hang.served_after < SERVED_WITHIN, "{hang:?}");
        assert!(hang.slowest_refusal < REFUSED_WITHIN, "{hang:?}");
        check_budget(&fleet, &tenant, tight, &hang.held);
    }
    let mut books = Books::read(fleet.server(1), &tenant);
    let probes = books.entries.len();
    books.entries.retain(|call_id, _| !call_id.starts_with("probe-"));
    assert_eq!(probes - books.entries.len(), rounds, "each probe is there, once");
    books.holds.retain(|call_id, _| !call_id.starts_with("round-"));
    let acknowledged = check_promises(&writers, &books);
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
