//! Host headers and line ends: requests that two servers could read differently are refused.

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::raw_connection::RawConnection;

#[track_caller]
fn check(server: &Server, request: &str, expected: u16) {
    let mut connection = RawConnection::open(server.address());
    connection.send(request);
    let (status, text) = connection.answer().expect("an answer");
    assert_eq!(status, expected, "{request:?} got {text}");
}

#[test]
fn a_request_must_name_exactly_one_host() {
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
fn a_head_with_a_bare_line_feed_is_refused() {
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
        // Also when it arrives byte by byte.
        let mut connection = RawConnection::open(server.address());
        for byte in request.bytes() {
            connection.send([byte]);
        }
        assert_eq!(connection.status(), Some(400), "{request:?}");
    }
    check(&server, "\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", 200);
    server.stop();
}

#[test]
fn line_feeds_in_a_body_are_accepted_and_the_next_head_is_checked() {
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
        // Two pipelined requests, of which the second has a bare line feed.
        let mut connection = RawConnection::open(server.address());
        connection.send(format!("{request}GET /health/live HTTP/1.1\nHost: a\r\n\r\n"));
        let text = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(text.contains("HTTP/1.1 201") && text.contains("HTTP/1.1 400"), "{text}");
    }
    server.stop();
}

#[test]
fn over_http2_the_host_must_equal_the_authority() {
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
        let mut connection = RawConnection::open(server.address());
        connection.send(frames::preface());
        connection.send(frames::frame(
            kind::HEADERS,
            flag::END_STREAM | flag::END_HEADERS,
            1,
            &head,
        ));
        connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
        let text = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(text.contains(expected), "{more:?} got {text}");
    }
    server.stop();
}
