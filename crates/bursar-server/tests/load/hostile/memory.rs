//! Memory: what a caller makes the server remember, and what it makes it hold.

use std::sync::Arc;
use std::time::Duration;

use bursar_core::IntegrationId;
use bursar_testing::waiting::scale;
use serde_json::json;

use crate::hostile::attack::{Attack, Client, Hold};
use crate::hostile::request;
use crate::hostile::scene::{Scene, secret};

/// Scopes of the widest key that a body of 256 KiB can ask for.
const SCOPES: usize = 65_000;
/// What a slow body announces, and how much of it comes at once.
const BODY: usize = 8 * 1024 * 1024;
const PART: usize = 64 * 1024;
const SLOWLY: Duration = Duration::from_millis(50);

/// Everything that a lookup leaves in memory: the widest keys, and integrations that do not exist.
pub(crate) const REMEMBERED: Attack = Attack::new("remembered", remembered);
/// Bodies that arrive slowly, and large answers that are not taken.
pub(crate) const HELD: Attack =
    Attack { lasts: Duration::from_secs(10), ..Attack::new("held", held) };

fn remembered(scene: &mut Scene) -> Vec<Client> {
    let keys = Arc::new(wide_keys(scene, scale(100, 400)));
    let mut clients = Vec::new();
    for number in 0..8 {
        let (keys, mut at) = (Arc::clone(&keys), number);
        clients.push(Client::asks(number, move || {
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
        clients.push(Client::asks(number, move || {
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

/// Keys with as many scopes as the server takes, and as many of them.
fn wide_keys(scene: &Scene, count: usize) -> Vec<String> {
    let mut http = scene.attacker_client();
    let widest = json!({ "name": "wide", "scopes": vec!["*"; SCOPES] });
    let narrow = json!({ "name": "narrow", "scopes": ["*"] });
    let mut make = |create| http.post("/api/v1/keys", create).expect("an answer");
    let takes_wide = make(&widest).status == 201;
    let create = if takes_wide { &widest } else { &narrow };
    let made = (0..count).map(|_| make(create)).take_while(|answer| answer.status == 201);
    let keys: Vec<String> = made.map(|answer| secret(&answer)).collect();
    assert!(!keys.is_empty(), "no key is made");
    keys
}

fn held(scene: &mut Scene) -> Vec<Client> {
    let target = scene.target();
    let metadata = format!(",\"metadata\":{{\"text\":\"{}\"}}", "x".repeat(10_000));
    let bearer = scene.attacker.bearer.clone();
    let mut part = 0;
    let fill = Client::asks(0, {
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
    scene.work_off(vec![fill]);
    let slow_body = format!(
        "POST {} HTTP/1.1\r\nHost: bursar\r\nAuthorization: {bearer}\r\nContent-Length: {BODY}\r\n\r\n",
        request::BATCH
    );
    let untaken = request::get("/api/v1/telemetry/usage-history?limit=1000", &bearer).repeat(8);
    let client = |number: usize| {
        let is_sending = number.is_multiple_of(2);
        let opening = if is_sending { slow_body.clone().into_bytes() } else { untaken.clone() };
        let next = if is_sending { vec![b' '; PART] } else { b"\r\n".to_vec() };
        Client::holds(number, Hold { opening, next, pause: SLOWLY, reads: is_sending })
    };
    (0..scale(40, 100)).map(client).collect()
}
