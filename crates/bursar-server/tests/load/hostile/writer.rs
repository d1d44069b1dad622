//! Writer time: holds that expire at the same time, batches and changes at full speed, and refused
//! records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bursar_testing::waiting::scale;

use crate::hostile::attack::{Attack, Client};
use crate::hostile::request;
use crate::hostile::scene::{Scene, Store};

const RESERVATIONS: &str = "/api/v1/enforcement/reservations";
const CLIENTS: usize = 32;
/// No more holds are made this long before all expire.
const PAUSE_BEFORE_EXPIRY: Duration = Duration::from_millis(500);

/// Reservations that all expire in the middle of the attack, and others with short lifetimes.
/// Beyond 50,000 of an integration they are refused.
pub(crate) const EXPIRING: Attack =
    Attack { statuses: &[200, 201, 409], ..Attack::new("expiring", expiring) };
/// Batches of records and conflicts, and changes of integrations, at full speed.
pub(crate) const WRITING: Attack = Attack::new("writing", writing);
/// `WRITING` on PostgreSQL.
pub(crate) const WRITING_POSTGRES: Attack = Attack {
    store: Store::Postgres,
    lasts: Duration::from_secs(10),
    ..Attack::new("writing on PostgreSQL", writing)
};

/// Below the rate of the attacker and above that of the honest callers.
const THRESHOLDS: [(&str, &str); 2] = [
    ("BURSAR_PROTECTION_TRAFFIC_PER_MINUTE", "6000"),
    ("BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "100"),
];
/// Records of unknown calls beyond a threshold, each of which the writer looks up and refuses.
pub(crate) const UNKNOWN: Attack =
    Attack { settings: &THRESHOLDS, ..Attack::new("unknown calls", unknown) };
/// `UNKNOWN` on PostgreSQL, which shares the processors with the server, so that bursts of large
/// batches affect everyone's p99.
pub(crate) const UNKNOWN_POSTGRES: Attack = Attack {
    name: "unknown calls on PostgreSQL",
    store: Store::Postgres,
    lasts: Duration::from_secs(10),
    p99_times: 2,
    ..UNKNOWN
};

fn expiring(scene: &mut Scene) -> Vec<Client> {
    for _ in 0..3 {
        scene.add_enabled(0);
    }
    let reservations_max = scale(5_000, 150_000);
    let end = Instant::now() + Duration::from_secs(scale(3, 35));
    let made = Arc::new(AtomicU64::new(0));
    let reserve = |number: usize| {
        let (made, bearer) = (Arc::clone(&made), scene.attacker.bearer.clone());
        let integration = integration(scene, number);
        Client::requests(number, move || {
            let left = end.checked_duration_since(Instant::now() + PAUSE_BEFORE_EXPIRY)?;
            let call = made.fetch_add(1, Ordering::Relaxed);
            let ttl = (left + PAUSE_BEFORE_EXPIRY).as_secs() + 1;
            (call < reservations_max)
                .then(|| reservation(&integration, &format!("due-{call}"), ttl, &bearer))
        })
    };
    let tally = scene.run_to_end((0..CLIENTS).map(reserve).collect());
    let made = tally.answers.get(&201).map(|(count, _)| count);
    println!("reservations that expire at the same time: {made:?}");
    let reserve = |number: usize| {
        let (bearer, integration) = (scene.attacker.bearer.clone(), integration(scene, number));
        let mut call = 0;
        Client::requests(number, move || {
            call += 1;
            Some(reservation(&integration, &format!("brief-{number}-{call}"), 1, &bearer))
        })
    };
    (0..CLIENTS).map(reserve).collect()
}

/// One of the attacker's integrations.
fn integration(scene: &Scene, number: usize) -> String {
    let all = &scene.attacker.integrations;
    all.get(number % all.len()).expect("an integration").clone()
}

fn reservation(integration: &str, call_id: &str, ttl_seconds: u64, bearer: &str) -> Vec<u8> {
    let body = format!(
        "{{\"integration_id\":\"{integration}\",\"call_id\":\"{call_id}\",\
         \"estimated_cost_cents\":1,\"estimated_tokens\":1,\"ttl_seconds\":{ttl_seconds}}}"
    );
    request::post(RESERVATIONS, bearer, &body)
}

fn writing(scene: &mut Scene) -> Vec<Client> {
    let target = scene.target();
    let records = scale(100, 1_000);
    let mut clients = Vec::new();
    for number in 0..8 {
        let (bearer, target) = (scene.attacker.bearer.clone(), target.clone());
        let mut sent = 0;
        // Half of them repeat calls with other content, which conflict.
        let is_new = number < 4;
        clients.push(Client::requests(number, move || {
            sent += 1;
            let part = if is_new { sent } else { 0 };
            let more = format!(",\"latency_ms\":{sent},\"agent_id\":\"{}\"", sent % 50);
            let record =
                |at| request::record(&target, &format!("{number}-{part}-{at}"), "gpt-4o", &more);
            let made: Vec<String> = (0..records).map(record).collect();
            Some(request::post(request::BATCH, &bearer, &request::batch(&made)))
        }));
    }
    for number in 8..12 {
        let (bearer, path) =
            (scene.attacker.bearer.clone(), format!("/api/v1/integrations/{target}"));
        let mut sent = 0;
        clients.push(Client::requests(number, move || {
            sent += 1;
            let body = format!("{{\"name\":\"renamed {number} {sent}\"}}");
            Some(request::with_body("PATCH", &path, &bearer, "", body.as_bytes()))
        }));
    }
    clients
}

fn unknown(scene: &mut Scene) -> Vec<Client> {
    let target = scene.target();
    let client = |number: usize| {
        let (bearer, target) = (scene.attacker.bearer.clone(), target.clone());
        let mut sent = 0;
        // Most clients send single records, the others batches.
        let records = if number < 24 { 1 } else { scale(100, 1_000) };
        Client::requests(number, move || {
            sent += 1;
            let record =
                |at| request::record(&target, &format!("{number}-{sent}-{at}"), "gpt-4o", "");
            let made: Vec<String> = (0..records).map(record).collect();
            Some(match made.as_slice() {
                [one] => request::post(request::ONE, &bearer, one),
                all => request::post(request::BATCH, &bearer, &request::batch(all)),
            })
        })
    };
    (0..CLIENTS).map(client).collect()
}
