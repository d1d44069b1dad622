//! A full connection pool: idle connections are closed, busy ones stay, and the operator is
//! admitted.

use std::collections::BTreeSet;
use std::time::Duration;

use bursar_testing::frames::{self, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::raw_connection::RawConnection;
use bursar_testing::waiting::within;
use serde_json::json;

use crate::front::listeners::operator_address;
use crate::front::start_request;

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n";

fn server(connections_max: &'static str) -> (Folder, Server) {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_MAX", connections_max);
    let server = Server::start(&folder);
    (folder, server)
}

fn status(connection: &mut RawConnection, request: &str) -> Option<u16> {
    connection.send(request);
    connection.status()
}

#[test]
fn idle_connections_make_way_for_new_ones() {
    let (_folder, server) = server("10");
    let mut idle: Vec<RawConnection> =
        (0..12).map(|_| RawConnection::open(server.address())).collect();
    let mut next = RawConnection::open(server.address());
    assert_eq!(status(&mut next, LIVE), Some(200));
    idle[0].cut_while_waiting(Duration::from_secs(10));
    // Any number of new connections is served.
    for _ in 0..50 {
        idle.push(RawConnection::open(server.address()));
    }
    assert_eq!(status(&mut RawConnection::open(server.address()), LIVE), Some(200));
    server.stop();
}

#[test]
fn an_idle_http2_connection_gets_goaway_when_the_pool_is_full() {
    let (_folder, server) = server("1");
    let mut idle = RawConnection::open(server.address());
    idle.send(frames::preface());
    idle.send(frames::get(1, "/health/live", &[]));
    idle.read_until(|bytes| frames::read(bytes).contains(&(kind::HEADERS, 1)));
    // Its response needs time to arrive completely.
    let sent = idle.read_while(Duration::from_secs(30), || {
        assert_eq!(status(&mut RawConnection::open(server.address()), LIVE), Some(200));
    });
    let sent = frames::read(&sent);
    assert!(sent.contains(&(kind::GOAWAY, 0)), "{sent:?}");
    server.stop();
}

#[test]
fn a_full_pool_keeps_busy_connections_and_admits_the_operator() {
    let (folder, server) = server("2");
    let mut busy = [start_request(&folder, &server), start_request(&folder, &server)];
    let token = folder.operator_token();
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let mut connection = RawConnection::open(server.address());
        connection.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        let text = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    let mut other = RawConnection::open(server.address());
    other.send("GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&other.read_to_end()).into_owned();
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("OVERLOADED") && text.contains("retry-after: 1"), "{text}");
    // More silent connections than the reserve.
    let silent: Vec<RawConnection> =
        (0..100).map(|_| RawConnection::open(server.address())).collect();
    assert_eq!(status(&mut RawConnection::open(server.address()), LIVE), Some(200));
    for connection in &mut busy {
        assert_eq!(status(connection, "{\"name\":\"a\"}"), Some(201));
    }
    drop(silent);
    server.stop();
}

#[test]
fn connections_with_discarded_bodies_make_way_for_new_ones() {
    let (_folder, server) = server("10");
    let mut held = Vec::new();
    for at in 0..60 {
        let mut connection = RawConnection::open(server.address());
        if at % 2 == 0 {
            connection
                .send("POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{");
        } else {
            // Refused with a part of its body unread, so the server discards the rest.
            connection.send("POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
        }
        held.push(connection);
        if at % 6 == 5 {
            let mut other = RawConnection::open(server.address());
            let request = "GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\n\r\n";
            assert_eq!(status(&mut other, request), Some(401), "after {at}, on no reserve");
        }
    }
    drop(held);
    server.stop();
}

#[test]
fn http2_connections_with_discarded_bodies_make_way_for_new_ones() {
    let (_folder, server) = server("1");
    let mut held = RawConnection::open(server.address());
    held.send(frames::preface());
    // The end of its body is never sent.
    let head = frames::head("POST", "/api/v1/tenants", &[]);
    held.send(frames::frame(kind::HEADERS, 4, 1, &head));
    held.read_until(|bytes| frames::read(bytes).contains(&(kind::HEADERS, 1)));
    let request = "GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\n\r\n";
    // New connections are refused while the response is being sent.
    let admitted = within(Duration::from_secs(10), || {
        let status = status(&mut RawConnection::open(server.address()), request);
        (status == Some(401)).then_some(())
    });
    assert!(admitted.is_some(), "no connection was admitted to the pool");
    drop(held);
    server.stop();
}

/// Adds label sets, so that the metrics are a large response.
fn fill_metrics(folder: &Folder, server: &Server) {
    let mut tenant = Tenant::new(folder, server);
    let integration = tenant.add_integration(server, 0);
    let records: Vec<_> = (0..200)
        .map(|at| {
            json!({
                "integration_id": integration, "call_id": at.to_string(), "provider": "openai",
                "model": format!("model-{at}"), "tokens_in": 1, "tokens_out": 1, "cost_cents": 1,
            })
        })
        .collect();
    let path = "/api/v1/telemetry/llm-usage/batch";
    let answer = tenant.client(server).post(path, &json!({ "records": records }));
    assert_eq!(answer.expect("an answer").status, 200);
}

#[test]
fn unread_responses_do_not_block_the_operator() {
    for has_own_listener in [false, true] {
        let mut folder = Folder::new();
        folder.set("BURSAR_LOG", "info");
        if has_own_listener {
            folder.set("BURSAR_OPERATOR_LISTEN", "127.0.0.1:0");
        }
        let server = Server::start(&folder);
        fill_metrics(&folder, &server);
        let mut stalled = RawConnection::open(server.address());
        stalled.send(frames::preface());
        stalled.send(frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
        for at in 0..100 {
            let path = if at % 2 == 0 { "/openapi.json" } else { "/docs" };
            stalled.send(frames::get(2 * at + 1, path, &[]));
        }
        let answers = |bytes: &[u8]| {
            frames::read(bytes).iter().filter(|(kind, _)| *kind == kind::HEADERS).count()
        };
        stalled.read_until(|bytes| answers(bytes) == 100);
        let address = match has_own_listener {
            true => operator_address(&folder),
            false => server.address().to_owned(),
        };
        let token = folder.operator_token();
        let mut connection = RawConnection::open(&address);
        connection.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        let (status, text) = connection.answer().expect("an answer");
        assert_eq!(status, 200, "{text}");
        assert!(text.len() > 64 * 1024, "the metrics are too small for this test");
        // The OpenAPI document is still served too.
        let docs = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut connection = RawConnection::open(server.address());
        connection.send(docs);
        assert_eq!(connection.status(), Some(200));
        drop(stalled);
        server.stop();
    }
}

#[test]
fn unread_scrapes_do_not_block_the_metrics() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "info");
    folder.set("BURSAR_OPERATOR_LISTEN", "127.0.0.1:0");
    let server = Server::start(&folder);
    let address = operator_address(&folder);
    let mut stalled = RawConnection::open(&address);
    stalled.send(frames::preface());
    stalled.send(frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
    for at in 0..40 {
        stalled.send(frames::get(2 * at + 1, "/metrics", &[]));
    }
    // A later scrape can end an earlier one before its head is sent.
    let answered = |bytes: &[u8]| {
        let frames = frames::read(bytes);
        let answers =
            frames.iter().filter(|(kind, _)| [kind::HEADERS, kind::RST_STREAM].contains(kind));
        answers.map(|(_, stream)| stream).collect::<BTreeSet<_>>().len()
    };
    stalled.read_until(|bytes| answered(bytes) == 40);
    let mut connection = RawConnection::open(&address);
    for _ in 0..3 {
        connection.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, text) = connection.answer().expect("an answer");
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("\r\n0\r\n\r\n"), "whole");
    }
    drop(stalled);
    server.stop();
}
