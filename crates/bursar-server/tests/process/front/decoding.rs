//! Expensive bodies delay only their own tenant.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::raw_connection::RawConnection;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The duration of an attack, and its concurrent clients, all of one tenant.
const ATTACK: Duration = Duration::from_secs(3);
const ATTACKERS: usize = 4;
const ATTACK_MAX: Duration = Duration::from_secs(30);
/// The maximal latency of another tenant meanwhile. One of these bodies takes seconds to decode.
const WAIT_MAX: Duration = Duration::from_millis(750);
const BODY_BYTES: usize = 5 * 1024 * 1024;

/// A gzip member that repeats one bit pattern.
fn pattern(bits: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let wanted = 8 * (BODY_BYTES - bytes.len());
    let bits: Vec<u8> = bits.iter().copied().cycle().take(wanted).collect();
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    bytes.extend(bits.chunks(8).map(byte));
    bytes
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Empty blocks with fixed Huffman codes.
fn empty_blocks() -> Vec<u8> {
    pattern(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn small_blocks() -> Vec<u8> {
    pattern(&[0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn empty_members() -> Vec<u8> {
    let member = compressed(b"");
    member.repeat(BODY_BYTES / member.len())
}

/// A batch of 1,000 invalid records, which cost more than valid ones.
fn wrong_records() -> Vec<u8> {
    let record =
        format!("{{\"call_id\":\"a\",\"x\":[{}1],\"tokens_in\":true}}", "1,".repeat(3_500));
    format!("{{\"records\":[{}{record}]}}", format!("{record},").repeat(999)).into_bytes()
}

/// A server with two tenants, one of which attacks.
struct Scene {
    server: Server,
    loud: Tenant,
    quiet: Tenant,
    _folder: Folder,
}

impl Scene {
    fn new() -> Self {
        let mut folder = Folder::new();
        folder.set("BURSAR_SERVER_WRITE_SECONDS", "60");
        let server = Server::start(&folder);
        let (loud, mut quiet) = (Tenant::new(&folder, &server), Tenant::new(&folder, &server));
        quiet.add_integration(&server, 1_000);
        Self { server, loud, quiet, _folder: folder }
    }

    /// Attacks with several clients and asserts the latency of the other tenant meanwhile. An
    /// attack returns whether it got the expected response.
    #[track_caller]
    fn check(self, attack: impl Fn(&str) -> bool + Sync) {
        let mut quiet = self.quiet.client(&self.server);
        let body = serde_json::json!({ "integration_id": self.quiet.integrations[0] });
        let (is_over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
        let attack_on = || {
            while !is_over.load(Ordering::Relaxed) {
                let is_answered = attack(self.server.address());
                answered.fetch_add(u32::from(is_answered), Ordering::Relaxed);
            }
        };
        let slowest = std::thread::scope(|scope| {
            for _ in 0..ATTACKERS {
                scope.spawn(attack_on);
            }
            let (began, mut slowest) = (Instant::now(), Duration::ZERO);
            while began.elapsed() < ATTACK || answered.load(Ordering::Relaxed) == 0 {
                assert!(began.elapsed() < ATTACK_MAX, "no attack is answered");
                let sent = Instant::now();
                let live = quiet.get("/health/live").expect("an answer");
                let check = quiet.post("/api/v1/enforcement/check", &body);
                slowest = slowest.max(sent.elapsed());
                assert_eq!((live.status, check.expect("an answer").status), (200, 200));
            }
            is_over.store(true, Ordering::Relaxed);
            slowest
        });
        println!("{} answers, the slowest other one after {slowest:?}", answered.into_inner());
        assert!(slowest < WAIT_MAX, "{slowest:?}");
        self.server.stop();
    }
}

/// Sends a request on a new connection; tells whether it got the expected status instead of 503.
fn is_answered(address: &str, head: &str, body: &[u8], expected: u16) -> bool {
    let mut connection = RawConnection::open(address);
    connection.send(head);
    connection.send(body);
    let status = connection.answer().map_or(0, |(status, _)| status);
    // Concurrent bodies may exceed the tenant's share; then the connection may end before
    // everything is sent.
    assert!([expected, 503, 0].contains(&status), "{status}");
    status == expected
}

/// Attacks with one body.
#[track_caller]
fn check(path: &str, body: &[u8], encoding: &str, expected: u16) {
    let scene = Scene::new();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Encoding: {encoding}\r\n\
         Content-Length: {}\r\n\r\n",
        scene.loud.bearer,
        body.len()
    );
    scene.check(|address| is_answered(address, &head, body, expected));
}

const BATCH: &str = "/api/v1/telemetry/llm-usage/batch";

#[test]
fn gzip_bodies_of_empty_blocks_delay_no_other_tenant() {
    check(BATCH, &empty_blocks(), "gzip", 400);
}

#[test]
fn gzip_bodies_of_small_blocks_delay_no_other_tenant() {
    check(BATCH, &small_blocks(), "gzip", 400);
}

#[test]
fn gzip_bodies_of_empty_members_delay_no_other_tenant() {
    check(BATCH, &empty_members(), "gzip", 400);
}

#[test]
fn large_batches_delay_no_other_tenant() {
    check(BATCH, &wrong_records(), "identity", 200);
}

#[test]
fn compressed_large_batches_delay_no_other_tenant() {
    check(BATCH, &compressed(&wrong_records()), "gzip", 200);
}

#[test]
fn large_free_form_objects_delay_no_other_tenant() {
    let start = "{\"name\":\"a\",\"provider_type\":\"openai\",\"config\":{\"a\":[";
    let body = format!("{start}{}[]]}}}}", "[],".repeat((250 * 1024 - start.len()) / 3));
    check("/api/v1/integrations", body.as_bytes(), "identity", 422);
}

#[test]
fn deeply_nested_json_delays_no_other_tenant() {
    let body = "[".repeat(255 * 1024);
    check("/api/v1/enforcement/check", body.as_bytes(), "identity", 400);
}

#[test]
fn long_queries_delay_no_other_tenant() {
    let scene = Scene::new();
    let query = "%61=%62&".repeat(1_000);
    let head = format!(
        "GET /api/v1/telemetry/usage-history?{query} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n",
        scene.loud.bearer
    );
    scene.check(|address| is_answered(address, &head, b"", 400));
}

#[test]
fn long_tokens_delay_no_other_tenant() {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = format!("{{\"alg\":\"RS256\",\"kid\":\"a\",\"x\":{}}}", "[".repeat(500));
    let claims = format!("{{\"iss\":\"https://a\",\"x\":[{}1]}}", "1,".repeat(2_000));
    let token = format!("{}.{}.{}", encode(&header), encode(&claims), encode(&"s".repeat(512)));
    let head = format!(
        "GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    Scene::new().check(|address| is_answered(address, &head, b"", 401));
}

#[test]
fn expanding_http2_heads_delay_no_other_tenant() {
    // The decoder keeps a field of 4 KiB, which one byte then refers to: a frame of 16 KiB expands
    // to 64 MiB.
    let kept = frames::fields(&[("x", &"a".repeat(4_000))]);
    let first = [&[0x40], &kept[1..]].concat();
    let named = vec![0x80 | 62; 16_000];
    let flags = flag::END_STREAM | flag::END_HEADERS;
    Scene::new().check(|address| {
        let mut connection = RawConnection::open(address);
        connection.send(frames::preface());
        connection.send(frames::frame(kind::HEADERS, flags, 1, &first));
        for at in 1..200 {
            connection.send(frames::frame(kind::HEADERS, flags, 2 * at + 1, &named));
        }
        connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
        !connection.read_to_end().is_empty()
    });
}
