//! Requests that are too large, too many or not valid HTTP are refused.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::raw_connection::RawConnection;

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: a\r\n";

#[track_caller]
fn check(server: &Server, request: &str, expected: &[u16]) {
    let mut connection = RawConnection::open(server.address());
    connection.send(request);
    let begin: String = request.chars().take(120).collect();
    match connection.answer() {
        Some((status, text)) => assert!(expected.contains(&status), "{begin:?} got {text}"),
        None => assert!(expected.contains(&0), "{begin:?} got no answer"),
    }
}

#[test]
fn a_head_beyond_its_limits_is_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let long = |bytes: usize| format!("{LIVE}X-Long: {}\r\n\r\n", "a".repeat(bytes));
    check(&server, &long(30 * 1024), &[200]);
    check(&server, &long(33 * 1024), &[431]);
    check(&server, &long(1024 * 1024), &[431]);
    let many = |count: usize| format!("{LIVE}{}\r\n", "X-Many: 1\r\n".repeat(count));
    check(&server, &many(99), &[200]);
    check(&server, &many(100), &[431]);
    let path = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes));
    check(&server, &path(8_000), &[404]);
    check(&server, &path(9_000), &[414]);
    check(&server, &path(70_000), &[414, 431, 0]);
    server.stop();
}

#[test]
fn ambiguous_requests_are_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let post = "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\n";
    for odd in [
        format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        format!("{post}Content-Length: 5, 6\r\n\r\nhello!"),
        format!("{post}Content-Length: +5\r\n\r\nhello"),
        format!("{post}Content-Length: -1\r\n\r\nhello"),
        format!("{post}Content-Length: 0x5\r\n\r\nhello"),
        format!("{post}Content-Length : 5\r\n\r\nhello"),
        format!("{post}Content-Length: 99999999999999999999\r\n\r\nhello"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello"),
        format!("{LIVE}X-Folded: a\r\n b\r\n\r\n"),
        format!("{LIVE}: no name\r\n\r\n"),
        format!("{LIVE}X Spaced: a\r\n\r\n"),
        format!("{LIVE}X-Nul: a\0b\r\n\r\n"),
        format!("{LIVE}X-Return: a\rb\r\n\r\n"),
        " GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET  /health/live HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health/live HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(),
        "GET /health/live HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(),
        "POST /api/v1/tenants HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET /health/live\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned(),
    ] {
        let refused: Vec<u16> = [0].into_iter().chain(400..500).collect();
        check(&server, &odd, &refused);
    }
    check(&server, &format!("{LIVE}\r\n"), &[200]);
    server.stop();
}

#[test]
fn a_chunked_body_ends_with_its_last_chunk() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let token = folder.operator_token();
    let post = format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\n"
    );
    // Chunked encoding takes precedence over a contradicting Content-Length (RFC 9112, 6.3).
    let body = "{\"name\":\"a\"}";
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    check(&server, &format!("{post}Content-Length: 4\r\n\r\n{chunk}"), &[201]);
    for broken in
        ["zz\r\n", "-5\r\nhello\r\n0\r\n\r\n", "5\r\nhello_0\r\n\r\n", "fffffffffffffffff\r\n"]
    {
        check(&server, &format!("{post}\r\n{broken}"), &[0, 400]);
    }
    server.stop();
}

#[test]
fn one_address_gets_no_more_than_its_share_of_connections() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "20");
    let server = Server::start(&folder);
    let mut held: Vec<RawConnection> =
        (0..15).map(|_| RawConnection::open(server.address())).collect();
    for connection in &mut held {
        connection.send(format!("{LIVE}\r\n"));
        assert_eq!(connection.status(), Some(200));
    }
    let mut more: Vec<RawConnection> =
        (0..15).map(|_| RawConnection::open(server.address())).collect();
    let served = more.iter_mut().filter_map(|connection| {
        connection.send(format!("{LIVE}\r\n"));
        connection.answer()
    });
    let served = served.count();
    // The connection that waited for the start may still hold its place.
    assert!((4..=5).contains(&served), "{served}");
    drop((held, more));
    let again = bursar_testing::waiting::within(Duration::from_secs(10), || {
        let mut connection = RawConnection::open(server.address());
        connection.send(format!("{LIVE}\r\n"));
        connection.answer()
    });
    assert_eq!(again.map(|(status, _)| status), Some(200), "a closed connection still counts");
    server.stop();
}

#[test]
fn a_trusted_proxy_is_exempt_from_the_limit_per_address() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "1");
    folder.set("BURSAR_SERVER_TRUSTED_PROXIES", "127.0.0.0/8");
    let server = Server::start(&folder);
    let mut held: Vec<RawConnection> =
        (0..10).map(|_| RawConnection::open(server.address())).collect();
    for connection in &mut held {
        connection.send(format!("{LIVE}X-Forwarded-For: 198.51.100.1\r\n\r\n"));
        assert_eq!(connection.status(), Some(200));
    }
    server.stop();
}

#[test]
fn http2_has_the_same_limits_on_heads() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for (bytes, expected) in [(30_000, "ready"), (33_000, "")] {
        let mut connection = RawConnection::open(server.address());
        connection.send(frames::preface());
        let head = frames::head("GET", "/health/ready", &[("x-long", &"a".repeat(bytes))]);
        let (first, rest) = head.split_at(16_000);
        let (second, last) = rest.split_at(rest.len().min(16_000));
        connection.send(frames::frame(kind::HEADERS, flag::END_STREAM, 1, first));
        connection.send(frames::frame(kind::CONTINUATION, 0, 1, second));
        connection.send(frames::frame(kind::CONTINUATION, flag::END_HEADERS, 1, last));
        connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
        let bytes = connection.read_to_end();
        assert!(frames::read(&bytes).contains(&(kind::HEADERS, 1)), "{bytes:?}");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(text.contains("ready"), expected == "ready", "{text}");
    }
    let many: Vec<(&str, &str)> = vec![("x-many", "1"); 120];
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    connection.send(frames::get(1, "/health/live", &many));
    connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
    let text = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
    assert!(text.contains("HEADERS_TOO_LARGE"), "{text}");
    server.stop();
}
