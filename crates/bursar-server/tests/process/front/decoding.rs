//! Bodies that cost much to read delay their own sender, and nobody else.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::wire::Wire;
use flate2::Compression;
use flate2::write::GzEncoder;

/// How long each kind of body is sent, by how many clients of one tenant at once.
const ATTACK: Duration = Duration::from_secs(3);
const ATTACKERS: usize = 4;
const ATTACK_MAX: Duration = Duration::from_secs(30);
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

/// Two tenants of a server, one of whom attacks.
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

    /// Lets several clients attack for a while, and meanwhile asks as someone else. An attack says
    /// whether it was answered as it should be.
    #[track_caller]
    fn meet(self, attack: impl Fn(&str) -> bool + Sync) {
        let mut quiet = self.quiet.client(&self.server);
        let question = serde_json::json!({ "integration_id": self.quiet.integrations[0] });
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
                let asked = Instant::now();
                let live = quiet.get("/health/live").expect("an answer");
                let check = quiet.post("/api/v1/enforcement/check", &question);
                slowest = slowest.max(asked.elapsed());
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

/// Sends a request on a connection of its own, which is answered so, or was one too many.
fn is_answered(address: &str, head: &str, body: &[u8], expected: u16) -> bool {
    let mut wire = Wire::open(address);
    wire.send(head);
    wire.send(body);
    let status = wire.answer().map_or(0, |(status, _)| status);
    // Several at once may be more than one tenant may have in memory, or waiting; then the
    // connection may end before all is sent.
    assert!([expected, 503, 0].contains(&status), "{status}");
    status == expected
}

/// Sends one body again and again.
#[track_caller]
fn check(path: &str, body: &[u8], encoding: &str, expected: u16) {
    let scene = Scene::new();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Encoding: {encoding}\r\n\
         Content-Length: {}\r\n\r\n",
        scene.loud.bearer,
        body.len()
    );
    scene.meet(|address| is_answered(address, &head, body, expected));
}

const BATCH: &str = "/api/v1/telemetry/llm-usage/batch";

#[test]
fn empty_blocks_of_gzip_hold_up_nobody() {
    check(BATCH, &empty_blocks(), "gzip", 400);
}

#[test]
fn small_blocks_of_gzip_hold_up_nobody() {
    check(BATCH, &small_blocks(), "gzip", 400);
}

#[test]
fn empty_members_of_gzip_hold_up_nobody() {
    check(BATCH, &empty_members(), "gzip", 400);
}

#[test]
fn large_batches_hold_up_nobody() {
    check(BATCH, &wrong_records(), "identity", 200);
}

#[test]
fn large_batches_that_are_packed_hold_up_nobody() {
    check(BATCH, &packed(&wrong_records()), "gzip", 200);
}

#[test]
fn free_objects_of_many_parts_hold_up_nobody() {
    let start = "{\"name\":\"a\",\"provider_type\":\"openai\",\"config\":{\"a\":[";
    let body = format!("{start}{}[]]}}}}", "[],".repeat((250 * 1024 - start.len()) / 3));
    check("/api/v1/integrations", body.as_bytes(), "identity", 422);
}

#[test]
fn what_is_nested_deeply_holds_up_nobody() {
    let body = "[".repeat(255 * 1024);
    check("/api/v1/enforcement/check", body.as_bytes(), "identity", 400);
}

#[test]
fn long_queries_hold_up_nobody() {
    let scene = Scene::new();
    let query = "%61=%62&".repeat(1_000);
    let head = format!(
        "GET /api/v1/telemetry/usage-history?{query} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n",
        scene.loud.bearer
    );
    scene.meet(|address| is_answered(address, &head, b"", 400));
}

#[test]
fn long_tokens_hold_up_nobody() {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = format!("{{\"alg\":\"RS256\",\"kid\":\"a\",\"x\":{}}}", "[".repeat(500));
    let claims = format!("{{\"iss\":\"https://a\",\"x\":[{}1]}}", "1,".repeat(2_000));
    let token = format!("{}.{}.{}", encode(&header), encode(&claims), encode(&"s".repeat(512)));
    let head = format!(
        "GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    Scene::new().meet(|address| is_answered(address, &head, b"", 401));
}

#[test]
fn heads_that_are_unpacked_to_much_hold_up_nobody() {
    // A field of four kilobytes is kept by the server's decoder, and then named by one byte each
    // time: a frame of 16 KiB stands for 64 MiB.
    let kept = frames::fields(&[("x", &"a".repeat(4_000))]);
    let first = [&[0x40], &kept[1..]].concat();
    let named = vec![0x80 | 62; 16_000];
    let flags = flag::END_STREAM | flag::END_HEADERS;
    Scene::new().meet(|address| {
        let mut wire = Wire::open(address);
        wire.send(frames::opening());
        wire.send(frames::frame(kind::HEADERS, flags, 1, &first));
        for at in 1..200 {
            wire.send(frames::frame(kind::HEADERS, flags, 2 * at + 1, &named));
        }
        wire.send(frames::frame(kind::GO_AWAY, 0, 0, &[0; 8]));
        !wire.rest().is_empty()
    });
}
