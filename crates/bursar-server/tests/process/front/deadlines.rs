//! A client that takes its time is cut off when its time is over, and not before.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::wire::Wire;
use serde_json::json;

/// How much longer than its deadline a cut may take on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A server whose deadlines are short, the one that is proved shorter than the others.
fn server(shortest: &'static str) -> (Folder, Server) {
    let mut folder = Folder::new();
    for name in [
        "BURSAR_SERVER_HEADER_SECONDS",
        "BURSAR_SERVER_BODY_SECONDS",
        "BURSAR_SERVER_IDLE_SECONDS",
        "BURSAR_SERVER_WRITE_SECONDS",
    ] {
        folder.set(name, if name == shortest { "1" } else { "15" });
    }
    let server = Server::start(&folder);
    (folder, server)
}

#[track_caller]
fn check(took: Duration, deadline: Duration) {
    assert!(took + Duration::from_millis(100) >= deadline, "cut too early, after {took:?}");
    assert!(took < deadline + SLACK, "cut too late, after {took:?}");
}

#[test]
fn a_slow_head_is_cut_off() {
    let (_folder, server) = server("BURSAR_SERVER_HEADER_SECONDS");
    let mut wire = Wire::open(server.address());
    wire.send("GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    check(wire.cut_while_sending(b"a", seconds(10)), seconds(1));
    // The second request of a connection has no more time than the first.
    let mut wire = Wire::open(server.address());
    wire.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.answer().map(|(status, _)| status), Some(200));
    wire.send("GET");
    check(wire.cut_while_waiting(seconds(10)), seconds(1));
    let mut wire = Wire::open(server.address());
    wire.send("PRI * HT");
    check(wire.cut_while_waiting(seconds(10)), seconds(1));
}

#[test]
fn a_silent_connection_is_not_a_slow_head() {
    let (_folder, server) = server("BURSAR_SERVER_HEADER_SECONDS");
    let mut silent = Wire::open(server.address());
    let mut slow = Wire::open(server.address());
    slow.send("G");
    slow.cut_while_waiting(seconds(10));
    silent.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(silent.answer().map(|(status, _)| status), Some(200));
}

#[test]
fn an_idle_connection_is_closed() {
    let (_folder, server) = server("BURSAR_SERVER_IDLE_SECONDS");
    let mut silent = Wire::open(server.address());
    check(silent.cut_while_waiting(seconds(10)), seconds(1));
    let mut kept = Wire::open(server.address());
    kept.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.answer().map(|(status, _)| status), Some(200));
    check(kept.cut_while_waiting(seconds(10)), seconds(1));
}

#[test]
fn an_idle_http2_connection_is_told_and_closed_whatever_it_chats() {
    let (_folder, server) = server("BURSAR_SERVER_IDLE_SECONDS");
    let mut polite = Wire::open(server.address());
    polite.send(frames::opening());
    polite.send(frames::get(1, "/health/live", &[]));
    let sent = frames::read(&polite.rest());
    assert!(sent.contains(&(kind::HEADERS, 1)), "{sent:?}");
    assert!(sent.contains(&(kind::GO_AWAY, 0)), "{sent:?}");
    let mut chatty = Wire::open(server.address());
    chatty.send(frames::opening());
    let ping = frames::frame(kind::PING, 0, 0, &[0; 8]);
    let took = chatty.cut_while_sending(&ping, seconds(10));
    // It may answer the server's question whether it is there, or not.
    assert!(took < seconds(1) + seconds(2) + SLACK, "{took:?}");
}

#[test]
fn a_slow_body_is_answered_with_408_and_closed() {
    let (folder, server) = server("BURSAR_SERVER_BODY_SECONDS");
    let head = post_head(&folder, 100);
    let mut wire = Wire::open(server.address());
    wire.send(format!("{head}{{"));
    let (status, text) = wire.answer().expect("an answer");
    assert_eq!(status, 408, "{text}");
    assert!(text.contains("REQUEST_TIMEOUT"), "{text}");
    check(wire.cut_while_waiting(seconds(10)), Duration::ZERO);
    // However steadily it comes.
    let mut wire = Wire::open(server.address());
    wire.send(post_head(&folder, 200_000));
    check(wire.cut_while_sending(b" ", seconds(10)), seconds(1));
}

fn post_head(folder: &Folder, length: usize) -> String {
    format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {length}\r\n\r\n",
        folder.operator_token()
    )
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off() {
    let (folder, server) = server("BURSAR_SERVER_WRITE_SECONDS");
    let asked = large_answers(&folder, &server);
    let mut wire = Wire::open(server.address());
    // More than the system holds between the two.
    let request = format!("GET {PAGE} HTTP/1.1\r\nHost: a\r\nAuthorization: {asked}\r\n\r\n");
    let took = wire.cut_while_sending(request.repeat(20).as_bytes(), seconds(20));
    assert!(took < seconds(1) + SLACK * 2, "{took:?}");
}

#[test]
fn a_reader_that_opens_no_window_is_cut_off() {
    let (folder, server) = server("BURSAR_SERVER_WRITE_SECONDS");
    let asked = large_answers(&folder, &server);
    for window in [0, 1] {
        let mut wire = Wire::open(server.address());
        wire.send(frames::opening());
        wire.send(frames::setting(frames::INITIAL_WINDOW_SIZE, window));
        wire.send(frames::get(1, PAGE, &[("authorization", asked.as_str())]));
        check(wire.cut_while_waiting(seconds(10)), seconds(1));
    }
}

#[test]
fn a_body_that_is_awaited_holds_up_no_other_stream() {
    let (folder, server) = server("BURSAR_SERVER_BODY_SECONDS");
    let bearer = format!("Bearer {}", folder.operator_token());
    let mut wire = Wire::open(server.address());
    wire.send(frames::opening());
    let head = frames::head("POST", "/api/v1/tenants", &[("authorization", bearer.as_str())]);
    wire.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head));
    wire.send(frames::frame(kind::DATA, 0, 1, b"{"));
    wire.send(frames::get(3, "/health/live", &[]));
    wire.send(frames::frame(kind::GO_AWAY, 0, 0, &[0; 8]));
    let sent = frames::read(&wire.rest());
    let answers: Vec<u32> =
        sent.iter().filter(|(kind, _)| *kind == kind::HEADERS).map(|(_, stream)| *stream).collect();
    assert_eq!(answers, [3, 1], "{sent:?}");
}

const PAGE: &str = "/api/v1/telemetry/usage-history?limit=200";

/// Fills a history whose page is some megabytes, and gives what proves who may read it.
fn large_answers(folder: &Folder, server: &Server) -> String {
    let mut tenant = Tenant::new(folder, server);
    let integration = tenant.add_integration(server, 0);
    let mut http = tenant.client(server);
    let metadata = json!({ "text": "x".repeat(10_000) });
    for batch in 0..4 {
        let records: Vec<_> = (0..50)
            .map(|at| {
                json!({
                    "integration_id": integration, "call_id": format!("{batch}-{at}"),
                    "provider": "openai", "model": "gpt-4o", "tokens_in": 1, "tokens_out": 1,
                    "cost_cents": 1, "metadata": metadata,
                })
            })
            .collect();
        let path = "/api/v1/telemetry/llm-usage/batch";
        assert_eq!(http.post(path, &json!({ "records": records })).expect("an answer").status, 200);
    }
    tenant.bearer
}
