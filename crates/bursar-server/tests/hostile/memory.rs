//! Memory: what a caller makes the server hold.

use std::time::Duration;

use crate::attack::{Attack, Client, Hold};
use crate::request;
use crate::scene::Scene;
use crate::support::scale;

/// What a slow body announces, and how much of it comes at once.
const BODY: usize = 8 * 1024 * 1024;
const PART: usize = 64 * 1024;
const SLOWLY: Duration = Duration::from_millis(50);

/// Bodies that arrive slowly, and large answers that are not taken.
pub(crate) const HELD: Attack =
    Attack { lasts: Duration::from_secs(10), ..Attack::new("held", held) };

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
