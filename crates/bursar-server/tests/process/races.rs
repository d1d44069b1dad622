//! Many clients ask at once for a budget that fits few of them.

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
const ASKS: usize = 1_000;
/// What the budget fits, exactly.
const FITS: usize = 10;
const BUDGET_CENTS: u64 = 100;
const ASKED_CENTS: u64 = 10;

/// What clients were told about the calls they asked for.
#[derive(Debug, Default)]
struct Told {
    held: BTreeSet<String>,
    refused: usize,
    /// Asks without an answer, which may hold.
    lost: BTreeSet<String>,
    /// Asks that were not sent.
    unsent: Vec<String>,
}

impl Told {
    fn merge(&mut self, mut other: Self) {
        self.held.append(&mut other.held);
        self.lost.append(&mut other.lost);
        self.unsent.append(&mut other.unsent);
        self.refused += other.refused;
    }
}

fn call_ids(round: usize) -> Vec<String> {
    (0..ASKS).map(|ask| format!("round-{round}-ask-{ask}")).collect()
}

/// Asks for one call until the connection ends.
fn ask(http: &mut Http, integration: &str, call_id: &str) -> Result<bool, NoAnswer> {
    let body = json!({
        "integration_id": integration, "call_id": call_id, "estimated_cost_cents": ASKED_CENTS
    });
    let answer = http.post("/api/v1/enforcement/reservations", &body)?;
    match answer.status {
        201 => Ok(true),
        200 => {
            assert_eq!(answer.data("result"), "blocked", "{answer:?}");
            assert_eq!(answer.data("reservation"), &Value::Null, "{answer:?}");
            Ok(false)
        }
        _ => panic!("{call_id} was answered {answer:?}"),
    }
}

/// What others may watch while clients ask.
#[derive(Debug, Default)]
struct Progress {
    asked: AtomicUsize,
    held: AtomicUsize,
}

/// Asks for all calls at once, from many clients that start together.
fn ask_all(
    address: &str,
    tenant: &Tenant,
    integration: &str,
    calls: &[String],
    progress: &Progress,
) -> Told {
    let start = Barrier::new(CLIENTS);
    let ask_share = |share: &[String]| {
        let mut http = tenant.client_of(address);
        // The connection is made before the start.
        let _ = http.get("/api/v1/integrations");
        start.wait();
        let mut told = Told::default();
        for (at, call_id) in share.iter().enumerate() {
            progress.asked.fetch_add(1, Ordering::Relaxed);
            match ask(&mut http, integration, call_id) {
                Ok(true) => {
                    progress.held.fetch_add(1, Ordering::Relaxed);
                    told.held.insert(call_id.clone());
                }
                Ok(false) => told.refused += 1,
                Err(how) => {
                    let reached = !matches!(how, NoAnswer::NotConnected);
                    told.lost.extend(reached.then(|| call_id.clone()));
                    told.unsent.extend(share.iter().skip(at + usize::from(reached)).cloned());
                    break;
                }
            }
        }
        told
    };
    std::thread::scope(|scope| {
        let share = calls.len().div_ceil(CLIENTS);
        let mut shares: Vec<&[String]> = calls.chunks(share).collect();
        shares.resize(CLIENTS, &[]);
        let spawn = |share| scope.spawn(move || ask_share(share));
        let threads: Vec<_> = shares.into_iter().map(spawn).collect();
        let mut told = Told::default();
        threads.into_iter().for_each(|thread| told.merge(thread.join().expect("a client")));
        told
    })
}

/// What the server lists as open for an integration.
fn open(books: &Books, integration: &str) -> BTreeSet<String> {
    let of_it = books.holds.iter().filter(|(_, hold)| hold.integration == integration);
    of_it.map(|(call_id, _)| call_id.clone()).collect()
}

#[test]
fn a_thousand_asks_at_once_get_exactly_what_the_budget_fits() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);

    for round in 0..scale(2, 20) {
        let integration = tenant.add_integration(&server, BUDGET_CENTS);
        let calls = call_ids(round);
        let told = ask_all(server.address(), &tenant, &integration, &calls, &Progress::default());

        assert_eq!((told.held.len(), told.refused), (FITS, ASKS - FITS), "{:?}", told.lost);
        assert_eq!(open(&Books::read(&server, &tenant), &integration), told.held);
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
fn a_kill_in_the_middle_admits_no_more_than_the_budget_fits() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let mut chance = Chance::new(SEED);

    for round in 0..scale(3, 24) {
        let integration = tenant.add_integration(&server, BUDGET_CENTS);
        let calls = call_ids(round);
        let (progress, address) = (Progress::default(), server.address().to_owned());
        let before = std::thread::scope(|scope| {
            let asking =
                scope.spawn(|| ask_all(&address, &tenant, &integration, &calls, &progress));
            // In turn: at the first yes, soon after the first asks, and at any moment.
            let (seen, jitter) = match round % 3 {
                0 => (&progress.held, 1),
                1 => (&progress.asked, 3_000),
                _ => (&progress.asked, 20_000),
            };
            wait_for_first(seen);
            // The moment of the kill is the point of the test, not a wait for something.
            std::thread::sleep(Duration::from_micros(chance.below(jitter)));
            server.kill();
            asking.join().expect("the clients")
        });

        server = Server::start(&folder);
        let listed = open(&Books::read(&server, &tenant), &integration);
        assert!(listed.len() <= FITS, "{listed:?}");
        assert!(before.held.is_subset(&listed), "{:?} were held, {listed:?} are", before.held);
        let known: BTreeSet<String> = before.held.union(&before.lost).cloned().collect();
        assert!(listed.is_subset(&known), "{listed:?} were not asked for");

        let listed_first = listed.len();
        // The lost ones ask again with the same call id, together with those that did not yet.
        let rest: Vec<String> = before.lost.iter().chain(&before.unsent).cloned().collect();
        let after = ask_all(server.address(), &tenant, &integration, &rest, &Progress::default());
        let told: BTreeSet<String> = before.held.union(&after.held).cloned().collect();
        let listed = open(&Books::read(&server, &tenant), &integration);
        assert_eq!(told, listed, "what was said is what is held");
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
