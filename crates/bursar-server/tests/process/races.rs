//! Many concurrent reservations on a budget that fits few of them.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bursar_testing::chance::Chance;
use bursar_testing::process::books::Books;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Http, NoAnswer};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::scale;
use serde_json::{Value, json};

const SEED: u64 = 64;
const CLIENTS: usize = 64;
const CALLS: usize = 1_000;
/// The number of reservations that the budget fits exactly.
const FITS: usize = 10;
const BUDGET_CENTS: u64 = 100;
const ESTIMATE_CENTS: u64 = 10;

/// The outcomes of reservations.
#[derive(Debug, Default)]
struct Outcomes {
    held: BTreeSet<String>,
    refused: usize,
    /// Without a response, so they may be held.
    lost: BTreeSet<String>,
    unsent: Vec<String>,
}

impl Outcomes {
    fn merge(&mut self, mut other: Self) {
        self.held.append(&mut other.held);
        self.lost.append(&mut other.lost);
        self.unsent.append(&mut other.unsent);
        self.refused += other.refused;
    }
}

fn call_ids(round: usize) -> Vec<String> {
    (0..CALLS).map(|call| format!("round-{round}-call-{call}")).collect()
}

/// Reserves a call; tells whether it is held.
fn reserve(http: &mut Http, integration: &str, call_id: &str) -> Result<bool, NoAnswer> {
    let body = json!({
        "integration_id": integration, "call_id": call_id, "estimated_cost_cents": ESTIMATE_CENTS
    });
    let answer = http.post("/api/v1/enforcement/reservations", &body)?;
    match answer.status {
        201 => Ok(true),
        200 => {
            assert_eq!(answer.data("result"), "blocked", "{answer:?}");
            assert_eq!(answer.data("reservation"), &Value::Null, "{answer:?}");
            Ok(false)
        }
        _ => panic!("{call_id} got {answer:?}"),
    }
}

/// The progress of the clients, for a watching thread.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicUsize,
    held: AtomicUsize,
}

/// Reserves all calls from many clients that start together.
fn reserve_all(
    address: &str,
    tenant: &Tenant,
    integration: &str,
    calls: &[String],
    progress: &Progress,
) -> Outcomes {
    let start = Barrier::new(CLIENTS);
    let reserve_share = |share: &[String]| {
        let mut http = tenant.client_of(address);
        // Connects before the start.
        let _ = http.get("/api/v1/integrations");
        start.wait();
        let mut outcomes = Outcomes::default();
        for (at, call_id) in share.iter().enumerate() {
            progress.sent.fetch_add(1, Ordering::Relaxed);
            match reserve(&mut http, integration, call_id) {
                Ok(true) => {
                    progress.held.fetch_add(1, Ordering::Relaxed);
                    outcomes.held.insert(call_id.clone());
                }
                Ok(false) => outcomes.refused += 1,
                Err(how) => {
                    let reached = !matches!(how, NoAnswer::NotConnected);
                    outcomes.lost.extend(reached.then(|| call_id.clone()));
                    outcomes.unsent.extend(share.iter().skip(at + usize::from(reached)).cloned());
                    break;
                }
            }
        }
        outcomes
    };
    std::thread::scope(|scope| {
        let share = calls.len().div_ceil(CLIENTS);
        let mut shares: Vec<&[String]> = calls.chunks(share).collect();
        shares.resize(CLIENTS, &[]);
        let spawn = |share| scope.spawn(move || reserve_share(share));
        let threads: Vec<_> = shares.into_iter().map(spawn).collect();
        let mut outcomes = Outcomes::default();
        threads.into_iter().for_each(|thread| outcomes.merge(thread.join().expect("a client")));
        outcomes
    })
}

/// The call ids of the open reservations of an integration.
fn open_calls(books: &Books, integration: &str) -> BTreeSet<String> {
    let of_it = books.holds.iter().filter(|(_, hold)| hold.integration == integration);
    of_it.map(|(call_id, _)| call_id.clone()).collect()
}

#[test]
fn a_thousand_concurrent_reservations_hold_exactly_the_budget() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);

    for round in 0..scale(2, 20) {
        let integration = tenant.add_integration(&server, BUDGET_CENTS);
        let calls = call_ids(round);
        let outcomes =
            reserve_all(server.address(), &tenant, &integration, &calls, &Progress::default());

        assert_eq!(
            (outcomes.held.len(), outcomes.refused),
            (FITS, CALLS - FITS),
            "{:?}",
            outcomes.lost
        );
        assert_eq!(open_calls(&Books::read(&server, &tenant), &integration), outcomes.held);
    }
    server.stop();
}

/// Waits without sleeping, because the race is over within milliseconds.
fn wait_for_first(seen: &AtomicUsize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while seen.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_during_concurrent_reservations_holds_no_more_than_the_budget() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let mut chance = Chance::new(SEED);

    for round in 0..scale(3, 24) {
        let integration = tenant.add_integration(&server, BUDGET_CENTS);
        let calls = call_ids(round);
        let (progress, address) = (Progress::default(), server.address().to_owned());
        let before = std::thread::scope(|scope| {
            let clients =
                scope.spawn(|| reserve_all(&address, &tenant, &integration, &calls, &progress));
            // In turn: at the first hold, soon after the first request, and at a random moment.
            let (seen, jitter) = match round % 3 {
                0 => (&progress.held, 1),
                1 => (&progress.sent, 3_000),
                _ => (&progress.sent, 20_000),
            };
            wait_for_first(seen);
            // The sleep only chooses the moment of the kill.
            std::thread::sleep(Duration::from_micros(chance.below(jitter)));
            server.kill();
            clients.join().expect("the clients")
        });

        server = Server::start(&folder);
        let listed = open_calls(&Books::read(&server, &tenant), &integration);
        assert!(listed.len() <= FITS, "{listed:?}");
        assert!(before.held.is_subset(&listed), "{:?} were held, {listed:?} are", before.held);
        let known: BTreeSet<String> = before.held.union(&before.lost).cloned().collect();
        assert!(listed.is_subset(&known), "{listed:?} were not sent");

        let listed_first = listed.len();
        // Sends the lost and the unsent calls, with the same call ids.
        let rest: Vec<String> = before.lost.iter().chain(&before.unsent).cloned().collect();
        let after =
            reserve_all(server.address(), &tenant, &integration, &rest, &Progress::default());
        let held: BTreeSet<String> = before.held.union(&after.held).cloned().collect();
        let listed = open_calls(&Books::read(&server, &tenant), &integration);
        assert_eq!(held, listed, "the responses agree with the list");
        assert_eq!(listed.len(), FITS, "{listed:?}");
        println!(
            "round {round}: {} held and {} lost before the kill, {listed_first} held after it, {} \
             more later",
            before.held.len(),
            before.lost.len(),
            after.held.len()
        );
    }
    server.stop();
}
