//! A full pool of connections: idle ones give way, busy ones stay, and the operator gets in.

use std::collections::BTreeSet;
use std::time::Duration;

use bursar_testing::frames::{self, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use bursar_testing::wire::Wire;
use serde_json::json;

use crate::front::listeners::operator_address;

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n";

fn server(connections_max: &'static str) -> (Folder, Server) {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_CONNECTIONS_MAX", connections_max);
    let server = Server::start(&folder);
    (folder, server)
}

fn status(wire: &mut Wire, request: &str) -> Option<u16> {
    wire.send(request);
    wire.answer().map(|(status, _)| status)
}

#[test]
fn idle_connections_keep_nobody_out() {
    let (_folder, server) = server("10");
    let mut idle: Vec<Wire> = (0..12).map(|_| Wire::open(server.address())).collect();
    let mut next = Wire::open(server.address());
    assert_eq!(status(&mut next, LIVE), Some(200));
    idle[0].cut_while_waiting(Duration::from_secs(10));
    // However many come.
    for _ in 0..50 {
        idle.push(Wire::open(server.address()));
    }
    assert_eq!(status(&mut Wire::open(server.address()), LIVE), Some(200));
    server.stop();
}

#[test]
fn over_http2_an_idle_connection_is_told_to_give_way() {
    let (_folder, server) = server("1");
    let mut idle = Wire::open(server.address());
    idle.send(frames::opening());
    idle.send(frames::get(1, "/health/live", &[]));
    idle.read_until(|bytes| frames::read(bytes).contains(&(kind::HEADERS, 1)));
    // Once the end of its answer had the time to arrive.
    let sent = idle.rest_while(Duration::from_secs(30), || {
        assert_eq!(status(&mut Wire::open(server.address()), LIVE), Some(200));
    });
    let sent = frames::read(&sent);
    assert!(sent.contains(&(kind::GO_AWAY, 0)), "{sent:?}");
    server.stop();
}

/// A request whose body the server waits for.
fn busy(folder: &Folder, server: &Server) -> Wire {
    let token = folder.operator_token();
    let mut wire = Wire::open(server.address());
    wire.send(format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Expect: 100-continue\r\nContent-Length: 12\r\n\r\n"
    ));
    wire.read_until(|bytes| bytes.starts_with(b"HTTP/1.1 100"));
    wire
}

#[test]
fn busy_connections_stay_and_the_operator_gets_in() {
    let (folder, server) = server("2");
    let mut busy = [busy(&folder, &server), busy(&folder, &server)];
    let token = folder.operator_token();
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let mut wire = Wire::open(server.address());
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        let text = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    let mut other = Wire::open(server.address());
    other.send("GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&other.rest()).into_owned();
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("OVERLOADED") && text.contains("retry-after: 1"), "{text}");
    // More than the reserve has, which ask nothing.
    let silent: Vec<Wire> = (0..100).map(|_| Wire::open(server.address())).collect();
    assert_eq!(status(&mut Wire::open(server.address()), LIVE), Some(200));
    for wire in &mut busy {
        assert_eq!(status(wire, "{\"name\":\"a\"}"), Some(201));
    }
    drop(silent);
    server.stop();
}

#[test]
fn bodies_that_are_discarded_for_callers_without_a_credential_keep_nobody_out() {
    let (_folder, server) = server("10");
    let mut held = Vec::new();
    for at in 0..60 {
        let mut wire = Wire::open(server.address());
        if at % 2 == 0 {
            wire.send("POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{");
        } else {
            // Refused with a part of its body unread, after which it lingers.
            wire.send("POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
        }
        held.push(wire);
        if at % 6 == 5 {
            let mut other = Wire::open(server.address());
            let request = "GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\n\r\n";
            assert_eq!(status(&mut other, request), Some(401), "after {at}, on no reserve");
        }
    }
    drop(held);
    server.stop();
}

#[test]
fn over_http2_bodies_that_are_discarded_keep_nobody_out() {
    let (_folder, server) = server("1");
    let mut held = Wire::open(server.address());
    held.send(frames::opening());
    // The end of its body never comes.
    let head = frames::head("POST", "/api/v1/tenants", &[]);
    held.send(frames::frame(kind::HEADERS, 4, 1, &head));
    held.read_until(|bytes| frames::read(bytes).contains(&(kind::HEADERS, 1)));
    let request = "GET /api/v1/session/context HTTP/1.1\r\nHost: a\r\n\r\n";
    // Those that come while the answer is handed over find no room.
    let admitted = within(Duration::from_secs(10), || {
        let status = status(&mut Wire::open(server.address()), request);
        (status == Some(401)).then_some(())
    });
    assert!(admitted.is_some(), "all came on the reserve");
    drop(held);
    server.stop();
}

/// Fills the metrics, so that they are an answer that counts.
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
fn answers_that_nobody_takes_keep_the_operator_from_nothing() {
    for has_own_listener in [false, true] {
        let mut folder = Folder::new();
        folder.set("BURSAR_LOG", "info");
        if has_own_listener {
            folder.set("BURSAR_OPERATOR_LISTEN", "127.0.0.1:0");
        }
        let server = Server::start(&folder);
        fill_metrics(&folder, &server);
        let mut stalled = Wire::open(server.address());
        stalled.send(frames::opening());
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
        let mut wire = Wire::open(&address);
        wire.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        let (status, text) = wire.answer().expect("an answer");
        assert_eq!(status, 200, "{text}");
        assert!(text.len() > 64 * 1024, "an answer that counts");
        // Nor does it keep others from the documents.
        let docs = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut wire = Wire::open(server.address());
        wire.send(docs);
        assert_eq!(wire.answer().map(|(status, _)| status), Some(200));
        drop(stalled);
        server.stop();
    }
}

#[test]
fn scrapes_that_nobody_takes_keep_nobody_from_the_metrics() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "info");
    folder.set("BURSAR_OPERATOR_LISTEN", "127.0.0.1:0");
    let server = Server::start(&folder);
    let address = operator_address(&folder);
    let mut stalled = Wire::open(&address);
    stalled.send(frames::opening());
    stalled.send(frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
    for at in 0..40 {
        stalled.send(frames::get(2 * at + 1, "/metrics", &[]));
    }
    // A later one can cut an earlier one before its head is sent.
    let answered = |bytes: &[u8]| {
        let frames = frames::read(bytes);
        let answers = frames.iter().filter(|(kind, _)| [kind::HEADERS, kind::RESET].contains(kind));
        answers.map(|(_, stream)| stream).collect::<BTreeSet<_>>().len()
    };
    stalled.read_until(|bytes| answered(bytes) == 40);
    let mut wire = Wire::open(&address);
    for _ in 0..3 {
        wire.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, text) = wire.answer().expect("an answer");
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("\r\n0\r\n\r\n"), "whole");
    }
    drop(stalled);
    server.stop();
}
