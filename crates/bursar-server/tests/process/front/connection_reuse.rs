//! Reuse of a connection after a response that did not read the body of its request: the connection
//! stays usable, or the response has `Connection: close`.

use std::time::{Duration, Instant};

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::raw_connection::RawConnection;

use crate::front::start_request;

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n";
const CHECK: &str = "/api/v1/enforcement/check";
const BATCH: &str = "/api/v1/telemetry/llm-usage/batch";
/// The time limit on discarding a body, with some slack for a busy machine.
const DISCARD: Duration = Duration::from_secs(12);

/// A request with a body, with Content-Length or in one chunk.
fn request(line: &str, headers: &str, body_bytes: usize, is_chunked: bool) -> Vec<u8> {
    let (framing, size, end) = if is_chunked {
        let size = format!("{body_bytes:x}\r\n");
        ("Transfer-Encoding: chunked".to_owned(), size, "\r\n0\r\n\r\n")
    } else {
        (format!("Content-Length: {body_bytes}"), String::new(), "")
    };
    let head = format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}{framing}\r\n\r\n{size}");
    [head.as_bytes(), " ".repeat(body_bytes).as_bytes(), end.as_bytes()].concat()
}

fn says_close(text: &str) -> bool {
    let (head, _) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    head.to_ascii_lowercase().contains("\r\nconnection: close")
}

/// Sends a refused request and then a valid one, several times on one connection.
#[track_caller]
fn check_kept(server: &Server, request: &[u8], expected: &[u16]) {
    let mut connection = RawConnection::open(server.address());
    for _ in 0..3 {
        connection.send(request);
        let (status, text) = connection.answer().expect("an answer");
        assert!(expected.contains(&status) && !says_close(&text), "{text}");
        connection.send(LIVE);
        let next = connection.status();
        assert_eq!(next, Some(200), "after {text}");
    }
}

/// Asserts that the response has `Connection: close` and the connection ends without a reset.
#[track_caller]
fn check_closed(server: &Server, request: &[u8], expected: &[u16]) {
    let mut connection = RawConnection::open(server.address());
    connection.send_all(request);
    let (status, text) = connection.answer().expect("an answer");
    assert!(expected.contains(&status) && says_close(&text), "{text}");
    assert!(connection.is_closed_cleanly(), "a reset");
}

#[test]
fn a_refusal_before_the_body_is_read_keeps_the_connection() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let bearer = format!("Authorization: {}\r\n", tenant.bearer);
    let post = format!("POST {CHECK}");
    for body_bytes in [1, 100 * 1024, 700 * 1024] {
        for is_chunked in [false, true] {
            let ask = |line: &str, headers: &str| request(line, headers, body_bytes, is_chunked);
            check_kept(&server, &ask(&post, ""), &[401]);
            check_kept(&server, &ask(&post, "Authorization: Bearer bur_x\r\n"), &[401]);
            check_kept(&server, &ask("POST /nowhere", ""), &[404]);
            check_kept(&server, &ask(&format!("PUT {CHECK}"), &bearer), &[405]);
            check_kept(&server, &ask("GET /health/live", ""), &[200]);
            check_kept(&server, &ask("POST /api/v1/tenants", &bearer), &[403]);
            let odd = format!("{bearer}Content-Type: text/plain\r\n");
            check_kept(&server, &ask(&post, &odd), &[415]);
            check_kept(&server, &ask(&post, &bearer), &[400, 413]);
            let foreign = format!("{bearer}X-Tenant-ID: 00000000-0000-0000-0000-000000000000\r\n");
            check_kept(&server, &ask(&post, &foreign), &[403, 404, 422]);
        }
    }
    // An authenticated client may send as much as any route reads.
    for is_chunked in [false, true] {
        let large = 5 * 1024 * 1024;
        check_kept(&server, &request(&post, &bearer, large, is_chunked), &[413]);
        check_kept(&server, &request("POST /nowhere", "", 900 * 1024, is_chunked), &[404]);
    }
    server.stop();
}

#[test]
fn a_body_too_large_to_discard_gets_connection_close() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let post = format!("POST {CHECK}");
    for is_chunked in [false, true] {
        let megabytes = |count: usize| count * 1024 * 1024;
        check_closed(&server, &request(&post, "", megabytes(5), is_chunked), &[401]);
        let bearer = format!("Authorization: {}\r\n", tenant.bearer);
        let large = request(&post, &bearer, megabytes(12), is_chunked);
        check_closed(&server, &large, &[413]);
    }
    server.stop();
}

#[test]
fn a_missing_body_is_not_awaited_for_long() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for framing in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"] {
        let mut connection = RawConnection::open(server.address());
        let began = Instant::now();
        connection.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\n{framing}"));
        let (status, text) = connection.answer().expect("an answer");
        assert!(status == 401 && says_close(&text), "{text}");
        connection.cut_while_waiting(DISCARD);
        assert!(began.elapsed() < DISCARD, "{:?}", began.elapsed());
    }
    // A body that is announced as too large is refused at once.
    let mut connection = RawConnection::open(server.address());
    connection.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"));
    let (status, text) = connection.answer().expect("an answer");
    assert!(status == 401 && says_close(&text), "{text}");
    server.stop();
}

#[test]
fn an_endless_body_is_discarded_for_a_limited_time() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut connection = RawConnection::open(server.address());
    connection
        .send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let mut sent = 0;
    let part = [b"4000\r\n".to_vec(), vec![b' '; 0x4000], b"\r\n".to_vec()].concat().repeat(4);
    connection.cut_while(DISCARD, || {
        sent += part.len();
        part.clone()
    });
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
    // Sending byte by byte does not extend the limit.
    let mut connection = RawConnection::open(server.address());
    connection.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
    connection.cut_while_sending(b" ", DISCARD);
    server.stop();
}

#[test]
fn a_client_that_expects_100_continue_is_refused_at_once() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for line in [format!("POST {CHECK}"), "POST /nowhere".to_owned()] {
        let mut connection = RawConnection::open(server.address());
        connection.send(format!(
            "{line} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
        ));
        let (status, text) = connection.answer().expect("an answer");
        assert!([401, 404].contains(&status) && says_close(&text), "{text}");
    }
    // A client that sends the body without waiting can read the response too.
    let expecting = "Expect: 100-continue\r\n";
    for body_bytes in [10, 100_000] {
        let request = request(&format!("POST {CHECK}"), expecting, body_bytes, false);
        check_closed(&server, &request, &[401]);
    }
    server.stop();
}

/// Sends requests from several clients, whose connections must stay open; returns how many
/// responses have this status.
#[track_caller]
fn flood(server: &Server, request: &[u8], expected: u16) -> usize {
    let (clients, requests) = (4, 60);
    let count = || {
        let mut connection = RawConnection::open(server.address());
        let answers = (0..requests).map(|at| {
            connection.send(request);
            let (status, text) = connection.answer().unwrap_or_else(|| panic!("no answer to {at}"));
            assert!(!says_close(&text), "{text}");
            status
        });
        answers.filter(|status| *status == expected).count()
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(count)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    })
}

#[test]
fn refused_requests_keep_their_connection_under_load() {
    for (setting, value, path, body_bytes, expected) in [
        ("BURSAR_PROTECTION_TRAFFIC_PER_MINUTE", "1", CHECK, 200_000, 429),
        ("BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "1", CHECK, 200_000, 503),
        ("BURSAR_SERVER_BODY_BYTES_MAX_TOTAL", "1048576", BATCH, 1_500_000, 503),
    ] {
        let mut folder = Folder::new();
        folder.set(setting, value);
        let server = Server::start(&folder);
        let tenant = Tenant::new(&folder, &server);
        let bearer = format!("Authorization: {}\r\n", tenant.bearer);
        for is_chunked in [false, true] {
            let request = request(&format!("POST {path}"), &bearer, body_bytes, is_chunked);
            let refused = flood(&server, &request, expected);
            assert!(refused > 150, "{refused} of 240 were {expected}");
        }
        server.stop();
    }
}

#[test]
fn over_http2_a_refusal_ends_its_stream_and_no_other() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    // The body is not sent, so the stream is reset after its response.
    let head = frames::head("POST", CHECK, &[("content-length", "100000")]);
    connection.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head));
    let seen = connection.read_until(|bytes| frames::read(bytes).contains(&(kind::RST_STREAM, 1)));
    assert!(
        seen.ends_with(&frames::frame(kind::RST_STREAM, 0, 1, &0_u32.to_be_bytes())),
        "{seen:?}"
    );
    let seen: Vec<u8> = frames::read(&seen).iter().map(|(kind, _)| *kind).collect();
    assert!(seen.ends_with(&[kind::HEADERS, kind::DATA, kind::RST_STREAM]), "{seen:?}");
    connection.send(frames::get(3, "/health/live", &[]));
    connection.read_until(|bytes| frames::read(bytes).contains(&(kind::DATA, 3)));
    server.stop();
}

#[test]
fn over_http2_a_large_body_after_its_response_keeps_the_connection() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.expect("a connection");
        let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        for _ in 0..4 {
            let request = hyper::Request::post(format!("http://a{CHECK}"))
                .header("authorization", &tenant.bearer)
                .body(())
                .expect("a request");
            sender = sender.ready().await.expect("a connection that goes on");
            let (answer, mut body) = sender.send_request(request, false).expect("a stream");
            // Refused for its size; most of the body is sent afterwards.
            let mut left = 7 * 1024 * 1024;
            while left > 0 {
                body.reserve_capacity(left);
                let capacity = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                let part = capacity.expect("a stream that goes on").expect("room").min(left);
                left -= part;
                body.send_data(vec![b' '; part].into(), left == 0).expect("sent");
            }
            assert_eq!(answer.await.expect("an answer").status(), 413);
        }
        let live = hyper::Request::get("http://a/health/live").body(()).expect("a request");
        sender = sender.ready().await.expect("a connection that goes on");
        let (answer, _) = sender.send_request(live, true).expect("a stream");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
    server.stop();
}

#[test]
fn over_http2_refused_requests_keep_their_connection_under_load() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    // All responses together exceed the initial window of the client.
    connection.send(frames::frame(kind::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()));
    let mut sent = Vec::new();
    let mut read_answers = |connection: &mut RawConnection, count: usize| {
        let part = connection.read_until(|part| {
            let frames = frames::read(&[sent.as_slice(), part].concat());
            assert!(!frames.iter().any(|(kind, _)| *kind == kind::GOAWAY), "{frames:?}");
            frames.iter().filter(|(kind, _)| *kind == kind::DATA).count() >= count
        });
        sent.extend(part);
    };
    // As many concurrent streams as the server remembers when their bodies are late.
    let (streams, at_once) = (400, 50);
    for round in 0..streams / at_once {
        let ids = (0..at_once).map(|at| 2 * (at_once * round + at) + 1);
        for id in ids.clone() {
            let head = frames::head("POST", CHECK, &[]);
            connection.send(frames::frame(kind::HEADERS, flag::END_HEADERS, id, &head));
        }
        read_answers(&mut connection, (at_once * (round + 1)) as usize);
        // The bodies are sent after the responses.
        for id in ids {
            connection.send(frames::frame(kind::DATA, 0, id, &[b' '; 5_000]));
            connection.send(frames::frame(kind::DATA, flag::END_STREAM, id, &[b' '; 5_000]));
        }
    }
    connection.send(frames::get(2 * streams + 1, "/health/live", &[]));
    read_answers(&mut connection, streams as usize + 1);
    server.stop();
}

#[test]
fn a_malformed_request_gets_connection_close() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let rest = "x".repeat(500_000);
    for odd in [
        format!("GET /health/live HTTP/1.1\r\nHost: a\r\nX-Long: {rest}\r\n\r\n"),
        format!("GET /health/live HTTP/1.1\r\nHost: a\r\nX Spaced: a\r\n\r\n{rest}"),
        format!("GET /health/live HTTP/1.1\nHost: a\r\n\r\n{rest}"),
        format!("GET /health/live\u{1} HTTP/1.1\r\nHost: a\r\n\r\n{rest}"),
        format!(
            "POST {CHECK} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{rest}"
        ),
        format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n{rest}"),
    ] {
        check_closed(&server, odd.as_bytes(), &[400, 401, 431]);
    }
    server.stop();
}

#[test]
fn a_reserve_connection_gets_connection_close_after_one_request() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_MAX", "1");
    let server = Server::start(&folder);
    let mut busy = start_request(&folder, &server);
    for _ in 0..20 {
        check_closed(&server, LIVE.as_bytes(), &[200]);
        let post = request(&format!("POST {CHECK}"), "", 300_000, false);
        check_closed(&server, &post, &[503]);
    }
    busy.send("{\"name\":\"a\"}");
    assert_eq!(busy.status(), Some(201));
    server.stop();
}

#[test]
fn a_terminating_server_sends_connection_close() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut busy = start_request(&folder, &server);
    let mut idle = RawConnection::open(server.address());
    idle.send(LIVE);
    assert_eq!(idle.status(), Some(200));
    server.terminate();
    // Closing the idle connection shows that the server handles the signal.
    assert!(idle.is_closed_cleanly());
    busy.send("{\"name\":\"a\"}");
    let (status, text) = busy.answer().expect("an answer");
    assert!(status == 201 && says_close(&text), "{text}");
    assert!(busy.is_closed_cleanly());
    assert_eq!(server.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
}
