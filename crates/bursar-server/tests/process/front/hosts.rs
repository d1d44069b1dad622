//! Whom a request is for, and how its lines end: what two servers on its way could read differently
//! is refused, and nothing else is.

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::wire::Wire;

#[track_caller]
fn check(server: &Server, request: &str, expected: u16) {
    let mut wire = Wire::open(server.address());
    wire.send(request);
    let (status, text) = wire.answer().expect("an answer");
    assert_eq!(status, expected, "{request:?} got {text}");
}

#[test]
fn a_request_names_one_host() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let get = "GET /health/live HTTP/1.1\r\n";
    for host in ["a", "a:8080", "", "[::1]:80", "my_host.example.com", "127.0.0.1"] {
        check(&server, &format!("{get}Host: {host}\r\n\r\n"), 200);
    }
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost: b\r\n"] {
        check(&server, &format!("{get}{hosts}\r\n"), 400);
    }
    for host in ["a b", "a, b", "user@a", "a/b", "http://a", "a\\b"] {
        check(&server, &format!("{get}Host: {host}\r\n\r\n"), 400);
    }
    check(&server, "GET /health/live HTTP/1.0\r\n\r\n", 200);
    check(&server, "GET /health/live HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    check(&server, "GET http://b/health/live HTTP/1.1\r\nHost: B\r\n\r\n", 200);
    for host in ["Host: a\r\n", "Host: b:81\r\n", "Host: \r\n", ""] {
        check(&server, &format!("GET http://b/health/live HTTP/1.1\r\n{host}\r\n"), 400);
    }
    check(&server, "GET http://b/health/live HTTP/1.0\r\nHost: a\r\n\r\n", 400);
    server.stop();
}

#[test]
fn a_line_that_ends_with_a_line_feed_alone_is_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for request in [
        "GET /health/live HTTP/1.1\nHost: a\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nHost: a\n\r\n",
        "GET /health/live HTTP/1.1\r\nHost: a\r\n\n",
        "GET /health/live HTTP/1.1\nHost: a\n\n",
        "\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        check(&server, request, 400);
        // Also when it comes byte by byte.
        let mut wire = Wire::open(server.address());
        for byte in request.bytes() {
            wire.send([byte]);
        }
        assert_eq!(wire.answer().map(|(status, _)| status), Some(400), "{request:?}");
    }
    check(&server, "\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", 200);
    server.stop();
}

#[test]
fn line_feeds_in_a_body_are_its_own_and_the_next_head_is_looked_at() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let token = folder.operator_token();
    let post =
        format!("POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n");
    let body = "{\n\"name\":\n\"a\"\n}\n";
    let length = body.len();
    let plain = format!("{post}Content-Length: {length}\r\n\r\n{body}");
    let chunks =
        format!("{post}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
    for request in [plain, chunks] {
        check(&server, &request, 201);
        // Two in one go, the second of which ends a line as none may.
        let mut wire = Wire::open(server.address());
        wire.send(format!("{request}GET /health/live HTTP/1.1\nHost: a\r\n\r\n"));
        let text = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(text.contains("HTTP/1.1 201") && text.contains("HTTP/1.1 400"), "{text}");
    }
    server.stop();
}

#[test]
fn over_http2_a_host_is_what_the_authority_is() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/health/live")];
    for (more, expected) in [
        (&[(":authority", "a")][..], "live"),
        (&[(":authority", "a"), ("host", "A")][..], "live"),
        (&[("host", "a")][..], "live"),
        (&[(":authority", "a"), ("host", "b")][..], "BAD_REQUEST"),
        (&[(":authority", "a"), ("host", "")][..], "BAD_REQUEST"),
        (&[("host", "a"), ("host", "a")][..], "BAD_REQUEST"),
        (&[][..], "BAD_REQUEST"),
    ] {
        let head = frames::fields(&[&pseudo[..], more].concat());
        let mut wire = Wire::open(server.address());
        wire.send(frames::opening());
        wire.send(frames::frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, &head));
        wire.send(frames::frame(kind::GO_AWAY, 0, 0, &[0; 8]));
        let text = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(text.contains(expected), "{more:?} got {text}");
    }
    server.stop();
}
