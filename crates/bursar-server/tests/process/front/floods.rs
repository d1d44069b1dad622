//! A flood of HTTP/2 frames ends only its own connection.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::raw_connection::RawConnection;

const LIMIT: Duration = Duration::from_secs(15);

fn server() -> (Folder, Server) {
    let mut folder = Folder::new();
    // Longer than the tests, because a flood does not read the responses.
    folder.set("BURSAR_SERVER_WRITE_SECONDS", "2");
    let server = Server::start(&folder);
    (folder, server)
}

/// Floods one connection until it is closed, while another is served.
#[track_caller]
fn check(make: impl FnMut() -> Vec<u8>) {
    let (_folder, server) = server();
    let mut honest = RawConnection::open(server.address());
    let mut hostile = RawConnection::open(server.address());
    hostile.send(frames::preface());
    hostile.cut_while(LIMIT, make);
    honest.send("GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(honest.status(), Some(200));
    server.stop();
}

#[test]
fn rapid_resets_are_cut_off() {
    let mut stream = 1;
    check(|| {
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(frames::get(stream, "/health/ready", &[]));
            bytes.extend(frames::frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            stream += 2;
        }
        bytes
    });
}

#[test]
fn endless_pings_are_cut_off() {
    check(|| frames::frame(kind::PING, 0, 0, &[0; 8]).repeat(500));
}

#[test]
fn endless_settings_are_cut_off() {
    check(|| frames::setting(frames::INITIAL_WINDOW_SIZE, 65_535).repeat(500));
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let mut first = true;
    check(|| {
        let part = frames::head("GET", "/", &[("x-long", &"a".repeat(1_000))]);
        if std::mem::take(&mut first) {
            frames::frame(kind::HEADERS, flag::END_STREAM, 1, &part)
        } else {
            frames::frame(kind::CONTINUATION, 0, 1, b"")
        }
    });
}

#[test]
fn endless_empty_data_frames_are_cut_off() {
    let mut first = true;
    check(|| {
        if std::mem::take(&mut first) {
            let head = frames::head("POST", "/health/live", &[]);
            frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head)
        } else {
            frames::frame(kind::DATA, 0, 1, b"").repeat(500)
        }
    });
}

#[test]
fn endless_unknown_frames_are_cut_off_during_a_request() {
    // An unknown kind causes no reply, so no other limit applies.
    const UNKNOWN: u8 = 0x40;
    const SENT_MAX: usize = 64 * 1024 * 1024;
    let (folder, server) = server();
    let bearer = folder.operator_bearer();
    let head = frames::head("POST", "/api/v1/tenants", &[("authorization", bearer.as_str())]);
    let flood = frames::frame(UNKNOWN, 0, 0, &[0; 1_000]).repeat(50);
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    connection.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head));
    connection.send(frames::frame(kind::DATA, 0, 1, b"{"));
    let mut sent = 0;
    connection.cut_while(LIMIT, || {
        sent += flood.len();
        flood.clone()
    });
    assert!(sent < SENT_MAX, "{sent} bytes were taken");
    server.stop();
}

#[test]
fn a_large_body_in_small_frames_is_accepted() {
    let (folder, server) = server();
    let bearer = folder.operator_bearer();
    let head = frames::head("POST", "/api/v1/tenants", &[("authorization", bearer.as_str())]);
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    connection.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head));
    connection.send(frames::frame(kind::DATA, 0, 1, b"{\"name\":\"a\"}"));
    connection.send(frames::frame(kind::DATA, 0, 1, &[b' '; 1_000]).repeat(60));
    connection.send(frames::frame(kind::DATA, flag::END_STREAM, 1, b""));
    connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
    let text = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
    assert!(text.contains("\"lifecycle_state\":\"ACTIVE\""), "{text}");
    server.stop();
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_STREAMS_MAX", "5");
    folder.set("BURSAR_SERVER_BODY_SECONDS", "1");
    let server = Server::start(&folder);
    let bearer = folder.operator_bearer();
    let mut connection = RawConnection::open(server.address());
    connection.send(frames::preface());
    let head = frames::head("POST", "/api/v1/tenants", &[("authorization", bearer.as_str())]);
    for at in 0..8 {
        connection.send(frames::frame(kind::HEADERS, flag::END_HEADERS, 2 * at + 1, &head));
    }
    connection.send(frames::frame(kind::GOAWAY, 0, 0, &[0; 8]));
    let sent = frames::read(&connection.read_to_end());
    let of = |wanted: u8| sent.iter().filter(|(kind, _)| *kind == wanted).count();
    assert_eq!(of(kind::HEADERS), 5, "{sent:?}");
    assert!(sent.contains(&(kind::RST_STREAM, 15)), "{sent:?}");
    server.stop();
}
