//! What is too large, too many or not HTTP is refused, and the server goes on.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::wire::Wire;

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: a\r\n";

#[track_caller]
fn check(server: &Server, request: &str, expected: &[u16]) {
    let mut wire = Wire::open(server.address());
    wire.send(request);
    let begin: String = request.chars().take(120).collect();
    match wire.answer() {
        Some((status, text)) => assert!(expected.contains(&status), "{begin:?} got {text}"),
        None => assert!(expected.contains(&0), "{begin:?} got no answer"),
    }
}

#[test]
fn a_head_has_its_bounds() {
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
fn what_two_readers_could_read_differently_is_refused() {
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
fn a_body_in_chunks_ends_where_its_chunks_end() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let token = folder.operator_token();
    let post = format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\n"
    );
    // The length says that the body ends elsewhere; chunks go before it, as the standard has it.
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
fn one_address_gets_its_share_of_connections_and_no_more() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "20");
    let server = Server::start(&folder);
    let mut held: Vec<Wire> = (0..15).map(|_| Wire::open(server.address())).collect();
    for wire in &mut held {
        wire.send(format!("{LIVE}\r\n"));
        assert_eq!(wire.answer().map(|(status, _)| status), Some(200));
    }
    let mut more: Vec<Wire> = (0..15).map(|_| Wire::open(server.address())).collect();
    let served = more.iter_mut().filter_map(|wire| {
        wire.send(format!("{LIVE}\r\n"));
        wire.answer()
    });
    let served = served.count();
    // The one that waited for the server's start may not have given its place back yet.
    assert!((4..=5).contains(&served), "{served}");
    drop((held, more));
    let again = bursar_testing::waiting::within(Duration::from_secs(10), || {
        let mut wire = Wire::open(server.address());
        wire.send(format!("{LIVE}\r\n"));
        wire.answer()
    });
    assert_eq!(again.map(|(status, _)| status), Some(200), "places are given back");
    server.stop();
}

#[test]
fn a_trusted_proxy_speaks_for_many() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "1");
    folder.set("BURSAR_SERVER_TRUSTED_PROXIES", "127.0.0.0/8");
    let server = Server::start(&folder);
    let mut held: Vec<Wire> = (0..10).map(|_| Wire::open(server.address())).collect();
    for wire in &mut held {
        wire.send(format!("{LIVE}X-Forwarded-For: 198.51.100.1\r\n\r\n"));
        assert_eq!(wire.answer().map(|(status, _)| status), Some(200));
    }
    server.stop();
}

#[test]
fn http2_has_the_same_bounds() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for (bytes, expected) in [(30_000, "ready"), (33_000, "")] {
        let mut wire = Wire::open(server.address());
        wire.send(frames::opening());
        let head = frames::head("GET", "/health/ready", &[("x-long", &"a".repeat(bytes))]);
        let (first, rest) = head.split_at(16_000);
        let (second, last) = rest.split_at(rest.len().min(16_000));
        wire.send(frames::frame(kind::HEADERS, flag::END_STREAM, 1, first));
        wire.send(frames::frame(kind::CONTINUATION, 0, 1, second));
        wire.send(frames::frame(kind::CONTINUATION, flag::END_HEADERS, 1, last));
        wire.send(frames::frame(kind::GO_AWAY, 0, 0, &[0; 8]));
        let bytes = wire.rest();
        assert!(frames::read(&bytes).contains(&(kind::HEADERS, 1)), "{bytes:?}");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(text.contains("ready"), expected == "ready", "{text}");
    }
    let many: Vec<(&str, &str)> = vec![("x-many", "1"); 120];
    let mut wire = Wire::open(server.address());
    wire.send(frames::opening());
    wire.send(frames::get(1, "/health/live", &many));
    wire.send(frames::frame(kind::GO_AWAY, 0, 0, &[0; 8]));
    let text = String::from_utf8_lossy(&wire.rest()).into_owned();
    assert!(text.contains("HEADERS_TOO_LARGE"), "{text}");
    server.stop();
}
