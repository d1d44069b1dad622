//! Memory: what a caller can make the server cache and buffer.

use std::sync::Arc;
use std::time::Duration;

use bursar_core::IntegrationId;
use bursar_testing::waiting::scale;
use serde_json::json;

use crate::hostile::attack::{Attack, Client, Hold};
use crate::hostile::request;
use crate::hostile::scene::{Scene, secret};

/// Scopes of the largest key that fits into a body of 256 KiB.
const SCOPES: usize = 65_000;
/// The announced size of a slow body, and the size of its parts.
const BODY: usize = 8 * 1024 * 1024;
const PART: usize = 64 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// Lookups that are cached: the largest keys, and integrations that do not exist.
pub(crate) const CACHED: Attack = Attack::new("cached", cached);
/// Slow bodies and unread large responses.
pub(crate) const BUFFERED: Attack =
    Attack { lasts: Duration::from_secs(10), ..Attack::new("buffered", buffered) };

fn cached(scene: &mut Scene) -> Vec<Client> {
    let keys = Arc::new(wide_keys(scene, scale(100, 400)));
    let mut clients = Vec::new();
    for number in 0..8 {
        let (keys, mut at) = (Arc::clone(&keys), number);
        clients.push(Client::requests(number, move || {
            at += 8;
            let bearer = format!("Bearer {}", keys.get(at % keys.len())?);
            Some(request::get("/api/v1/session/context", &bearer))
        }));
    }
    let bearer = &scene.attacker.bearer;
    for number in 8..10 {
        clients.push(Client::repeats(number, request::get("/api/v1/keys?limit=100", bearer)));
    }
    for number in 0..2 {
        let (bearer, mut at) = (bearer.clone(), number);
        clients.push(Client::requests(number, move || {
            let unknown = |_| {
                at += 2;
                let id = IntegrationId::from_number(1_000_000 + at as i64).expect("an id");
                format!("{{\"integration_id\":\"{id}\"}}")
            };
            let checks: Vec<String> = (0..100).map(unknown).collect();
            let body = format!("{{\"requests\":[{}]}}", checks.join(","));
            Some(request::post("/api/v1/enforcement/batch", &bearer, &body))
        }));
    }
    clients
}

/// Keys with as many scopes as the server accepts, up to a count.
fn wide_keys(scene: &Scene, count: usize) -> Vec<String> {
    let mut http = scene.attacker_client();
    let widest = json!({ "name": "wide", "scopes": vec!["*"; SCOPES] });
    let narrow = json!({ "name": "narrow", "scopes": ["*"] });
    let mut make = |create| http.post("/api/v1/keys", create).expect("an answer");
    let accepts_wide = make(&widest).status == 201;
    let create = if accepts_wide { &widest } else { &narrow };
    let made = (0..count).map(|_| make(create)).take_while(|answer| answer.status == 201);
    let keys: Vec<String> = made.map(|answer| secret(&answer)).collect();
    assert!(!keys.is_empty(), "no key was created");
    keys
}

fn buffered(scene: &mut Scene) -> Vec<Client> {
    let target = scene.target();
    let metadata = format!(",\"metadata\":{{\"text\":\"{}\"}}", "x".repeat(10_000));
    let bearer = scene.attacker.bearer.clone();
    let mut part = 0;
    let fill = Client::requests(0, {
        let bearer = bearer.clone();
        move || {
            part += 1;
            let record =
                |at| request::record(&target, &format!("{part}-{at}"), "gpt-4o", &metadata);
            let records: Vec<String> = (0..500).map(record).collect();
            let body = request::batch(&records);
            (part <= 2).then(|| request::post(request::BATCH, &bearer, &body))
        }
    });
    scene.run_to_end(vec![fill]);
    let slow_body = format!(
        "POST {} HTTP/1.1\r\nHost: bursar\r\nAuthorization: {bearer}\r\nContent-Length: {BODY}\r\n\r\n",
        request::BATCH
    );
    let unread = request::get("/api/v1/telemetry/usage-history?limit=1000", &bearer).repeat(8);
    let client = |number: usize| {
        let is_sending = number.is_multiple_of(2);
        let first_bytes = if is_sending { slow_body.clone().into_bytes() } else { unread.clone() };
        let next = if is_sending { vec![b' '; PART] } else { b"\r\n".to_vec() };
        Client::holds(number, Hold { first_bytes, next, pause: SLOW_PAUSE, reads: is_sending })
    };
    (0..scale(40, 100)).map(client).collect()
}
