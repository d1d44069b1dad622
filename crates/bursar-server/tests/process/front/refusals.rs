//! An answer that did not need the body of its request leaves the connection usable, or says that
//! it closes it.

use std::time::{Duration, Instant};

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::wire::Wire;

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n";
const CHECK: &str = "/api/v1/enforcement/check";
const BATCH: &str = "/api/v1/telemetry/llm-usage/batch";
/// As long as the reading of a body that no route reads, and then some on a busy machine.
const DISCARD: Duration = Duration::from_secs(12);

/// A request with a body, whose length is said or which comes in one chunk.
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

/// Sends a request that is refused and then an honest one, several times on one connection.
#[track_caller]
fn check_kept(server: &Server, request: &[u8], expected: &[u16]) {
    let mut wire = Wire::open(server.address());
    for _ in 0..3 {
        wire.send(request);
        let (status, text) = wire.answer().expect("an answer");
        assert!(expected.contains(&status) && !says_close(&text), "{text}");
        wire.send(LIVE);
        let next = wire.answer().map(|(status, _)| status);
        assert_eq!(next, Some(200), "after {text}");
    }
}

/// Sends a request whose answer says that it ends the connection, which then ends without a reset.
#[track_caller]
fn check_closed(server: &Server, request: &[u8], expected: &[u16]) {
    let mut wire = Wire::open(server.address());
    wire.send_all(request);
    let (status, text) = wire.answer().expect("an answer");
    assert!(expected.contains(&status) && says_close(&text), "{text}");
    assert!(wire.ends(), "a reset");
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
    // Who is proved may send as much as any route reads.
    for is_chunked in [false, true] {
        let large = 5 * 1024 * 1024;
        check_kept(&server, &request(&post, &bearer, large, is_chunked), &[413]);
        check_kept(&server, &request("POST /nowhere", "", 900 * 1024, is_chunked), &[404]);
    }
    server.stop();
}

#[test]
fn a_body_that_is_too_large_to_pass_over_is_refused_with_a_close_that_is_announced() {
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
fn a_body_that_does_not_come_is_not_awaited_for_long() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for framing in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"] {
        let mut wire = Wire::open(server.address());
        let began = Instant::now();
        wire.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\n{framing}"));
        let (status, text) = wire.answer().expect("an answer");
        assert!(status == 401 && says_close(&text), "{text}");
        wire.cut_while_waiting(DISCARD);
        assert!(began.elapsed() < DISCARD, "{:?}", began.elapsed());
    }
    // Nor is one that is known to be too large, which is answered at once.
    let mut wire = Wire::open(server.address());
    wire.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"));
    let (status, text) = wire.answer().expect("an answer");
    assert!(status == 401 && says_close(&text), "{text}");
    server.stop();
}

#[test]
fn a_body_without_end_is_read_for_a_while_and_no_longer() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut wire = Wire::open(server.address());
    wire.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let mut sent = 0;
    let part = [b"4000\r\n".to_vec(), vec![b' '; 0x4000], b"\r\n".to_vec()].concat().repeat(4);
    wire.cut_while(DISCARD, || {
        sent += part.len();
        part.clone()
    });
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken");
    // One drop at a time gives no more time either.
    let mut wire = Wire::open(server.address());
    wire.send(format!("POST {CHECK} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
    wire.cut_while_sending(b" ", DISCARD);
    server.stop();
}

#[test]
fn a_client_that_asks_before_it_sends_is_refused_at_once_and_sends_nothing() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for line in [format!("POST {CHECK}"), "POST /nowhere".to_owned()] {
        let mut wire = Wire::open(server.address());
        wire.send(format!(
            "{line} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
        ));
        let (status, text) = wire.answer().expect("an answer");
        assert!([401, 404].contains(&status) && says_close(&text), "{text}");
    }
    // One that did not wait for the answer reads it all the same.
    let expecting = "Expect: 100-continue\r\n";
    for body_bytes in [10, 100_000] {
        let request = request(&format!("POST {CHECK}"), expecting, body_bytes, false);
        check_closed(&server, &request, &[401]);
    }
    server.stop();
}

/// How many of the requests of some clients, each on a connection of its own that must not end, are
/// answered with this status.
#[track_caller]
fn flood(server: &Server, request: &[u8], expected: u16) -> usize {
    let (clients, requests) = (4, 60);
    let count = || {
        let mut wire = Wire::open(server.address());
        let answers = (0..requests).map(|at| {
            wire.send(request);
            let (status, text) = wire.answer().unwrap_or_else(|| panic!("no answer to {at}"));
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
fn a_flood_that_is_turned_away_needs_no_new_connection() {
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
    let mut wire = Wire::open(server.address());
    wire.send(frames::opening());
    // The body does not come, so the stream is reset after its answer.
    let head = frames::head("POST", CHECK, &[("content-length", "100000")]);
    wire.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head));
    let seen = wire.read_until(|bytes| frames::read(bytes).contains(&(kind::RESET, 1)));
    assert!(seen.ends_with(&frames::frame(kind::RESET, 0, 1, &0_u32.to_be_bytes())), "{seen:?}");
    let seen: Vec<u8> = frames::read(&seen).iter().map(|(kind, _)| *kind).collect();
    assert!(seen.ends_with(&[kind::HEADERS, kind::DATA, kind::RESET]), "{seen:?}");
    wire.send(frames::get(3, "/health/live", &[]));
    wire.read_until(|bytes| frames::read(bytes).contains(&(kind::DATA, 3)));
    server.stop();
}

#[test]
fn over_http2_a_large_body_that_comes_after_its_answer_is_no_flood() {
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
            // Refused for its size; most of it is sent after that.
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
fn over_http2_a_flood_that_is_turned_away_needs_no_new_connection() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut wire = Wire::open(server.address());
    wire.send(frames::opening());
    // All answers together are more than the client's first window lets through.
    wire.send(frames::frame(kind::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()));
    let mut sent = Vec::new();
    let mut read_answers = |wire: &mut Wire, count: usize| {
        let part = wire.read_until(|part| {
            let frames = frames::read(&[sent.as_slice(), part].concat());
            assert!(!frames.iter().any(|(kind, _)| *kind == kind::GO_AWAY), "{frames:?}");
            frames.iter().filter(|(kind, _)| *kind == kind::DATA).count() >= count
        });
        sent.extend(part);
    };
    // As many streams at once as may still be known when a busy machine sends their bodies late.
    let (streams, at_once) = (400, 50);
    for round in 0..streams / at_once {
        let ids = (0..at_once).map(|at| 2 * (at_once * round + at) + 1);
        for id in ids.clone() {
            let head = frames::head("POST", CHECK, &[]);
            wire.send(frames::frame(kind::HEADERS, flag::END_HEADERS, id, &head));
        }
        read_answers(&mut wire, (at_once * (round + 1)) as usize);
        // The bodies come after the answers.
        for id in ids {
            wire.send(frames::frame(kind::DATA, 0, id, &[b' '; 5_000]));
            wire.send(frames::frame(kind::DATA, flag::END_STREAM, id, &[b' '; 5_000]));
        }
    }
    wire.send(frames::get(2 * streams + 1, "/health/live", &[]));
    read_answers(&mut wire, streams as usize + 1);
    server.stop();
}

#[test]
fn what_is_no_request_is_refused_with_a_close_that_is_announced() {
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
fn the_reserve_says_that_it_answers_one_request() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_MAX", "1");
    let server = Server::start(&folder);
    let mut busy = awaited(&folder, &server);
    for _ in 0..20 {
        check_closed(&server, LIVE.as_bytes(), &[200]);
        let post = request(&format!("POST {CHECK}"), "", 300_000, false);
        check_closed(&server, &post, &[503]);
    }
    busy.send("{\"name\":\"a\"}");
    assert_eq!(busy.answer().map(|(status, _)| status), Some(201));
    server.stop();
}

/// A request whose body the server waits for.
fn awaited(folder: &Folder, server: &Server) -> Wire {
    let mut wire = Wire::open(server.address());
    wire.send(format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Expect: 100-continue\r\nContent-Length: 12\r\n\r\n",
        folder.operator_token()
    ));
    wire.read_until(|bytes| bytes.starts_with(b"HTTP/1.1 100"));
    wire
}

#[test]
fn a_server_that_ends_says_that_it_closes() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut waits = awaited(&folder, &server);
    let mut idle = Wire::open(server.address());
    idle.send(LIVE);
    assert_eq!(idle.answer().map(|(status, _)| status), Some(200));
    server.ask_to_end();
    // The server has heard it once it closes what is idle.
    assert!(idle.ends());
    waits.send("{\"name\":\"a\"}");
    let (status, text) = waits.answer().expect("an answer");
    assert!(status == 201 && says_close(&text), "{text}");
    assert!(waits.ends());
    assert_eq!(server.end_within(Duration::from_secs(10)).code(), Some(0));
}
