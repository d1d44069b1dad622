//! Deadlines of slow clients: a connection is closed at its deadline, not earlier.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::raw_connection::RawConnection;
use serde_json::json;

/// The tolerance after a deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A server with short deadlines, of which the tested one is the shortest.
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
    let mut connection = RawConnection::open(server.address());
    connection.send("GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    check(connection.cut_while_sending(b"a", seconds(10)), seconds(1));
    // The second request on a connection has the same deadline.
    let mut connection = RawConnection::open(server.address());
    connection.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.status(), Some(200));
    connection.send("GET");
    check(connection.cut_while_waiting(seconds(10)), seconds(1));
    let mut connection = RawConnection::open(server.address());
    connection.send("PRI * HT");
    check(connection.cut_while_waiting(seconds(10)), seconds(1));
}

#[test]
fn a_silent_connection_is_not_a_slow_head() {
    let (_folder, server) = server("BURSAR_SERVER_HEADER_SECONDS");
    let mut silent = RawConnection::open(server.address());
    let mut slow = RawConnection::open(server.address());
    slow.send("G");
    slow.cut_while_waiting(seconds(10));
    silent.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(silent.status(), Some(200));
}

#[test]
fn an_idle_connection_is_closed() {
    let (_folder, server) = server("BURSAR_SERVER_IDLE_SECONDS");
    let mut silent = RawConnection::open(server.address());
    check(silent.cut_while_waiting(seconds(10)), seconds(1));
    let mut kept = RawConnection::open(server.address());
    kept.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.status(), Some(200));
    check(kept.cut_while_waiting(seconds(10)), seconds(1));
}

#[test]
fn an_idle_http2_connection_is_closed_despite_pings() {
    let (_folder, server) = server("BURSAR_SERVER_IDLE_SECONDS");
    let mut polite = RawConnection::open(server.address());
    polite.send(frames::preface());
    polite.send(frames::get(1, "/health/live", &[]));
    let sent = frames::read(&polite.read_to_end());
    assert!(sent.contains(&(kind::HEADERS, 1)), "{sent:?}");
    assert!(sent.contains(&(kind::GOAWAY, 0)), "{sent:?}");
    let mut chatty = RawConnection::open(server.address());
    chatty.send(frames::preface());
    let ping = frames::frame(kind::PING, 0, 0, &[0; 8]);
    let took = chatty.cut_while_sending(&ping, seconds(10));
    // The client may answer the server's ping or not.
    assert!(took < seconds(1) + seconds(2) + SLACK, "{took:?}");
}

#[test]
fn a_slow_body_gets_408_and_is_closed() {
    let (folder, server) = server("BURSAR_SERVER_BODY_SECONDS");
    let head = post_head(&folder, 100);
    let mut connection = RawConnection::open(server.address());
    connection.send(format!("{head}{{"));
    let (status, text) = connection.answer().expect("an answer");
    assert_eq!(status, 408, "{text}");
    assert!(text.contains("REQUEST_TIMEOUT"), "{text}");
    check(connection.cut_while_waiting(seconds(10)), Duration::ZERO);
    // A steady trickle does not extend the deadline.
    let mut connection = RawConnection::open(server.address());
    connection.send(post_head(&folder, 200_000));
    check(connection.cut_while_sending(b" ", seconds(10)), seconds(1));
}

fn post_head(folder: &Folder, length: usize) -> String {
    format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {length}\r\n\r\n",
        folder.operator_token()
    )
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let (folder, server) = server("BURSAR_SERVER_WRITE_SECONDS");
    let bearer = large_answers(&folder, &server);
    let mut connection = RawConnection::open(server.address());
    // More than the socket buffers hold.
    let request = format!("GET {PAGE} HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\n\r\n");
    let took = connection.cut_while_sending(request.repeat(20).as_bytes(), seconds(20));
    assert!(took < seconds(1) + SLACK * 2, "{took:?}");
}

#[test]
fn an_http2_client_that_opens_no_window_is_cut_off() {
    let (folder, server) = server("BURSAR_SERVER_WRITE_SECONDS");
    let bearer = large_answers(&folder, &server);
    for window in [0, 1] {
        let mut connection = RawConnection::open(server.address());
        connection.send(frames::preface());
        connection.send(frames::setting(frames::INITIAL_WINDOW_SIZE, window));
        connection.send(frames::get(1, PAGE, &[("authorization", bearer.as_str())]));
        check(connection.cut_while_waiting(seconds(10)), seconds(1));
    }
}

#[test]
fn an_awaited_body_does_not_block_other_streams() {
    let (folder, server) = server("BURSAR_SERVER_BODY_SECONDS");
    let bearer = folder.operator_bearer();
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    let head = frames::head("POST", "/api/v1/tenants", &[("authorization", bearer.as_str())]);
    connection.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head));
    connection.send(frames::frame(kind::DATA, 0, 1, b"{"));
    connection.send(frames::get(3, "/health/live", &[]));
    connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
    let sent = frames::read(&connection.read_to_end());
    let answers: Vec<u32> =
        sent.iter().filter(|(kind, _)| *kind == kind::HEADERS).map(|(_, stream)| *stream).collect();
    assert_eq!(answers, [3, 1], "{sent:?}");
}

const PAGE: &str = "/api/v1/telemetry/usage-history?limit=200";

/// Stores a history with a page of some megabytes; returns the credential to read it.
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
