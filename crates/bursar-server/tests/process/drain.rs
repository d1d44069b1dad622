//! SIGTERM under load: responses are complete, and acknowledged records are kept.

use std::time::{Duration, Instant};

use bursar_testing::chance::Chance;
use bursar_testing::process::bodies::record;
use bursar_testing::process::books::Books;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Http, NoAnswer};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::scale;
use serde_json::Value;

const SEED: u64 = 15;
const WRITERS: usize = 8;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
const STEPS_MAX: usize = 20_000;
/// The maximal duration of a shutdown under this load.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_terminated_server_truncates_no_response_and_loses_no_record() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    let mut chance = Chance::new(SEED);
    let (mut slowest, mut unanswered) = (Duration::ZERO, 0);

    for _ in 0..scale(4, 40) {
        let (took, ended) = terminate_under_load(
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
        check_acknowledged(&writers, &books);
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

/// Terminates a server while the writers write. Returns how long it took, and how the last request
/// of each writer ended.
fn terminate_under_load(
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
        // The sleep only chooses the moment of the end.
        std::thread::sleep(after);
        let signalled = Instant::now();
        server.terminate();
        let status = server.wait_for_exit(SHUTDOWN_MAX);
        assert_eq!(status.code(), Some(0));
        let ended = threads.into_iter().map(|thread| thread.join().expect("a writer")).collect();
        (signalled.elapsed(), ended)
    })
}

#[test]
fn an_unfinished_request_delays_shutdown_only_until_the_drain_timeout() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SERVER_DRAIN_SECONDS", "1");
    let mut server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration = tenant.add_integration(&server, BUDGET_CENTS);
    let mut idle = tenant.client(&server);
    assert_eq!(idle.get("/api/v1/integrations").expect("an answer").status, 200);
    let mut half = tenant.client(&server);
    half.send_half("/api/v1/telemetry/llm-usage", &record(&integration, "half", 1));

    let signalled = Instant::now();
    server.terminate();
    let status = server.wait_for_exit(Duration::from_secs(5));

    assert_eq!(status.code(), Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(3), "{:?}", signalled.elapsed());
    assert!(!folder.file("server-address").exists(), "the server has stopped listening");
    let server = Server::start(&folder);
    assert!(Books::read(&server, &tenant).entries.is_empty(), "an incomplete request is stored");
    server.stop();
}

#[test]
fn last_used_at_of_keys_is_saved_at_shutdown() {
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
fn idle_connections_do_not_delay_shutdown() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let mut idle: Vec<Http> = (0..50).map(|_| tenant.client(&server)).collect();
    for http in &mut idle {
        assert_eq!(http.get("/api/v1/integrations").expect("an answer").status, 200);
    }

    let signalled = Instant::now();
    server.terminate();
    let status = server.wait_for_exit(SHUTDOWN_MAX);

    assert_eq!(status.code(), Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(2), "{:?}", signalled.elapsed());
    for http in &mut idle {
        let how = http.get("/api/v1/integrations").expect_err("the server has ended");
        assert!(matches!(how, NoAnswer::Unanswered), "{how:?}");
    }
}
