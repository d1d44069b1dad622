//! Where records go, and what becomes of each.

use std::time::Duration;

use serde::Deserialize;

use super::ImportError;
use crate::client::{Door, Reply};

const PATH: &str = "/telemetry/llm-usage/batch";
/// How often a server or a database that is overloaded or away is asked again.
const TRIES_MAX: u32 = 8;
/// How long to wait before the second time; each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What became of a record.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is stored.
    Accepted,
    /// It was stored before.
    Duplicate,
    /// It is refused, for this reason.
    Refused(String),
}

#[derive(Deserialize)]
struct BatchData {
    results: Vec<ResultData>,
}

#[derive(Deserialize)]
struct ResultData {
    status: String,
    error: Option<ErrorData>,
}

#[derive(Deserialize)]
struct ErrorData {
    message: String,
}

/// Sends records, and says what became of each.
pub(super) fn send(door: &Door, records: &[&str]) -> Result<Vec<Fate>, ImportError> {
    let body = format!("{{\"records\":[{}]}}", records.join(","));
    let reply = post(door, &body)?;
    let strange = || ImportError::new(door.failure(&reply).to_string());
    if reply.status != 200 {
        return Err(strange());
    }
    #[derive(Deserialize)]
    struct Envelope {
        data: BatchData,
    }
    let envelope: Envelope = serde_json::from_str(&reply.text).map_err(|_| strange())?;
    let results = envelope.data.results;
    if results.len() != records.len() {
        return Err(strange());
    }
    let fate = |result: ResultData| match result.status.as_str() {
        "accepted" => Fate::Accepted,
        "duplicate" => Fate::Duplicate,
        _ => Fate::Refused(result.error.map_or_else(String::new, |error| error.message)),
    };
    Ok(results.into_iter().map(fate).collect())
}

/// Sends a batch until it is answered, which the call ids make safe.
fn post(door: &Door, body: &str) -> Result<Reply, ImportError> {
    let mut pause = FIRST_PAUSE;
    let mut tries = if door.may_be_away() { TRIES_MAX } else { 1 };
    loop {
        tries -= 1;
        match door.send("POST", PATH, Some(body)) {
            Ok(Reply { status: 429 | 503, .. }) | Err(_) if tries > 0 => std::thread::sleep(pause),
            Ok(reply) => return Ok(reply),
            Err(error) => return Err(ImportError::new(error.to_string())),
        }
        pause *= 2;
    }
}
