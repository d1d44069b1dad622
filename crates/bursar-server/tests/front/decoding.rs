//! Bodies that cost much to read delay their own sender, and nobody else.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::folder::Folder;
use crate::support::server::Server;
use crate::support::tenant::Tenant;
use crate::support::wire::Wire;

/// How long each kind of body is sent, by how many clients of one tenant at once.
const ATTACK: Duration = Duration::from_secs(3);
const ATTACKERS: usize = 4;
/// What another client may wait meanwhile. Decoded where requests are answered, one of these bodies
/// takes seconds.
const WAIT_MAX: Duration = Duration::from_millis(750);
const BODY_BYTES: usize = 5 * 1024 * 1024;

/// A gzip member that is one bit pattern over and over.
fn pattern(bits: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let wanted = 8 * (BODY_BYTES - bytes.len());
    let bits: Vec<u8> = bits.iter().copied().cycle().take(wanted).collect();
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    bytes.extend(bits.chunks(8).map(byte));
    bytes
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

/// Blocks with the standard's codes: empty ones, and such that say one space each.
fn empty_blocks() -> Vec<u8> {
    pattern(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn small_blocks() -> Vec<u8> {
    pattern(&[0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn empty_members() -> Vec<u8> {
    let member = packed(b"");
    member.repeat(BODY_BYTES / member.len())
}

/// A batch of a thousand records that are all wrong, which costs more than right ones.
fn wrong_records() -> Vec<u8> {
    let record =
        format!("{{\"call_id\":\"a\",\"x\":[{}1],\"tokens_in\":true}}", "1,".repeat(3_500));
    format!("{{\"records\":[{}{record}]}}", format!("{record},").repeat(999)).into_bytes()
}

/// Sends one body again and again for a while, and meanwhile asks as someone else.
#[track_caller]
fn check(body: &[u8], encoding: &str, expected: u32) {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_WRITE_SECONDS", "60");
    let server = Server::start(&folder);
    let (loud, mut quiet) = (Tenant::new(&folder, &server), Tenant::new(&folder, &server));
    let integration = quiet.add_integration(&server, 1_000);
    let mut quiet = quiet.client(&server);
    let question = serde_json::json!({ "integration_id": integration });
    let head = format!(
        "POST /api/v1/telemetry/llm-usage/batch HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\
         Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
        loud.bearer,
        body.len()
    );
    let (is_over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let attack = || {
        while !is_over.load(Ordering::Relaxed) {
            let mut wire = Wire::open(server.address());
            wire.send(&head);
            wire.send(body);
            let status = wire.answer().map_or(0, |(status, _)| u32::from(status));
            // Several at once may be more than one tenant may have in memory, or waiting.
            assert!([expected, 503, 0].contains(&status), "{status}");
            answered.fetch_add(u32::from(status == expected), Ordering::Relaxed);
        }
    };
    let slowest = std::thread::scope(|scope| {
        for _ in 0..ATTACKERS {
            scope.spawn(attack);
        }
        let (began, mut slowest) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < ATTACK || answered.load(Ordering::Relaxed) == 0 {
            let asked = Instant::now();
            let live = quiet.get("/health/live").expect("an answer");
            let check = quiet.post("/api/v1/enforcement/check", &question).expect("an answer");
            slowest = slowest.max(asked.elapsed());
            assert_eq!((live.status, check.status), (200, 200));
        }
        is_over.store(true, Ordering::Relaxed);
        slowest
    });
    println!("{} answers, the slowest other one after {slowest:?}", answered.into_inner());
    assert!(slowest < WAIT_MAX, "{slowest:?}");
    server.stop();
}

#[test]
fn empty_blocks_of_gzip_hold_up_nobody() {
    check(&empty_blocks(), "gzip", 400);
}

#[test]
fn small_blocks_of_gzip_hold_up_nobody() {
    check(&small_blocks(), "gzip", 400);
}

#[test]
fn empty_members_of_gzip_hold_up_nobody() {
    check(&empty_members(), "gzip", 400);
}

#[test]
fn large_batches_hold_up_nobody() {
    check(&wrong_records(), "identity", 200);
}

#[test]
fn large_batches_that_are_packed_hold_up_nobody() {
    check(&packed(&wrong_records()), "gzip", 200);
}
