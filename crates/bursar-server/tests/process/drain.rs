//! SIGTERM under load: whoever is answered is answered whole, and what was acknowledged stays.

use std::time::{Duration, Instant};

use bursar_testing::chance::Chance;
use bursar_testing::process::books::Books;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Http, NoAnswer};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_promises};
use bursar_testing::waiting::scale;
use serde_json::{Value, json};

const SEED: u64 = 15;
const WRITERS: usize = 8;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
const STEPS_MAX: usize = 20_000;
/// In how long a server under this load must have ended.
const END_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_server_that_is_asked_to_end_cuts_no_answer_and_loses_no_record() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let mut chance = Chance::new(SEED);
    let (mut slowest, mut unanswered) = (Duration::ZERO, 0);

    for _ in 0..scale(4, 40) {
        let (took, ended) = end_under_load(
            &mut server,
            &tenant,
            &mut writers,
            Duration::from_millis(20 + chance.below(300)),
        );
        slowest = slowest.max(took);
        for how in &ended {
            if let NoAnswer::Cut(begun) = how {
                panic!("an answer was cut that began with {begun:?}");
            }
        }
        unanswered += ended.iter().filter(|how| matches!(how, NoAnswer::Unanswered)).count();
        server = Server::start(&folder);
        let books = Books::read(&server, &tenant);
        check_promises(&writers, &books);
        for writer in &writers {
            writer.check_nothing_unanswered_was_done(&books);
        }
    }
    let acknowledged: usize = writers.iter().map(Writer::acknowledged).sum();
    println!(
        "{acknowledged} records acknowledged; the slowest end took {slowest:?}; {unanswered} \
         requests on kept connections were turned away unanswered"
    );
    server.stop();
}

/// Asks a server to end while the writers write. Answers how long it took, and how each writer's
/// last request ended.
fn end_under_load(
    server: &mut Server,
    tenant: &Tenant,
    writers: &mut [Writer],
    after: Duration,
) -> (Duration, Vec<NoAnswer>) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                let mut http = tenant.client(server);
                scope.spawn(move || {
                    let lost = writer.write(&mut http, STEPS_MAX);
                    lost.expect("the server ends before the writer does")
                })
            })
            .collect();
        // The moment of the end is the point of the test, not a wait for something.
        std::thread::sleep(after);
        let asked = Instant::now();
        server.ask_to_end();
        let status = server.end_within(END_MAX);
        assert_eq!(status.code(), Some(0));
        let ended = threads.into_iter().map(|thread| thread.join().expect("a writer")).collect();
        (asked.elapsed(), ended)
    })
}

#[test]
fn a_request_that_never_ends_holds_the_end_up_for_the_time_to_drain_only() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_DRAIN_SECONDS", "1");
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration = tenant.add_integration(&server, BUDGET_CENTS);
    let mut idle = tenant.client(&server);
    assert_eq!(idle.get("/api/v1/integrations").expect("an answer").status, 200);
    let mut half = tenant.client(&server);
    half.send_half("/api/v1/telemetry/llm-usage", &record(&integration, "half"));

    let asked = Instant::now();
    server.ask_to_end();
    let status = server.end_within(Duration::from_secs(5));

    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert!(!folder.file("server-address").exists(), "nobody listens any more");
    let server = Server::start(&folder);
    assert!(Books::read(&server, &tenant).entries.is_empty(), "half a request");
    server.stop();
}

#[test]
fn when_keys_were_used_last_is_written_down_before_the_end() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let mut http = tenant.client(&server);
    assert_eq!(http.get("/api/v1/integrations").expect("an answer").status, 200);
    server.stop();
    let server = Server::start(&folder);
    let keys = tenant.client(&server).get("/api/v1/keys").expect("an answer");
    assert!(keys.body.pointer("/data/0/last_used_at").is_some_and(Value::is_string), "{keys:?}");
    server.stop();
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let mut idle: Vec<Http> = (0..50).map(|_| tenant.client(&server)).collect();
    for http in &mut idle {
        assert_eq!(http.get("/api/v1/integrations").expect("an answer").status, 200);
    }

    let asked = Instant::now();
    server.ask_to_end();
    let status = server.end_within(END_MAX);

    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    for http in &mut idle {
        let how = http.get("/api/v1/integrations").expect_err("the server has ended");
        assert!(matches!(how, NoAnswer::Unanswered), "{how:?}");
    }
}

fn record(integration: &str, call_id: &str) -> serde_json::Value {
    json!({
        "integration_id": integration, "call_id": call_id, "provider": "openai",
        "model": "gpt-4o", "tokens_in": 1, "tokens_out": 1, "cost_cents": 1,
    })
}
