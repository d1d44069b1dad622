//! Metrics and logs of a running server.

use std::io::{BufRead, BufReader, PipeReader};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bursar_testing::process::bodies::record;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::{Value, json};

const METRICS_TOKEN: &str = "only for the metrics";

/// Scrapes until the metrics have a line with this prefix; returns the line.
#[track_caller]
fn scrape(server: &Server, prefix: &str) -> String {
    let bearer = format!("Bearer {METRICS_TOKEN}");
    let mut http = Http::new(server.address(), &[("Authorization", &bearer)]);
    let found = within(Duration::from_secs(10), || {
        let answer = http.get("/metrics").ok()?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.body.as_str()?;
        text.lines().find(|line| line.starts_with(prefix)).map(str::to_owned)
    });
    found.unwrap_or_else(|| panic!("no {prefix} in the metrics"))
}

#[test]
fn metrics_show_a_used_up_budget_right_after_a_restart() {
    let mut folder = Folder::new();
    folder.set("BURSAR_METRICS_TOKEN", METRICS_TOKEN);
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration_id = tenant.add_integration(&server, 100);
    let record = record(&integration_id, "call", 150);
    let answer = tenant.client(&server).post("/api/v1/telemetry/llm-usage", &record);
    assert_eq!(answer.expect("an answer").status, 201);
    assert!(scrape(&server, "bursar_calls_total").ends_with(" 1"));
    server.stop();

    let server = Server::start(&folder);
    let line = scrape(&server, "bursar_budget_used_ratio");
    assert!(line.contains(&integration_id) && line.ends_with(" 1.5"), "{line}");
    server.stop();
}

#[test]
fn json_logs_have_routes_and_ids_and_no_secret() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "info,bursar::http=debug");
    folder.set("BURSAR_LOG_FORMAT", "json");
    let server = Server::start(&folder);
    let tenant = Tenant::new(&folder, &server);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let named = [
        ("X-AOS-Key", "not-a-key-of-anyone"),
        ("X-Request-ID", "the-request"),
        ("traceparent", &format!("00-{trace}-b7ad6b7169203331-01")),
    ];
    let mut http = Http::new(server.address(), &named);
    let answer = http.get("/api/v1/integrations/not-an-id?name=not-a-name");
    assert_eq!(answer.expect("an answer").status, 401);
    let token = folder.operator_token();
    server.stop();

    let log = folder.log();
    let lines = folder.json_log();
    let of_request: Vec<&Value> =
        lines.iter().filter(|line| line.get("request_id") == Some(&json!("the-request"))).collect();
    let [refused, line] = of_request.as_slice() else { panic!("{of_request:?}") };
    for (field, value) in [
        ("level", json!("WARN")),
        ("target", json!("bursar::auth")),
        ("event", json!("login_failed")),
        ("address", json!("127.0.0.1")),
        ("count", json!(1)),
        ("kinds", json!("api_key")),
    ] {
        assert_eq!(refused.get(field), Some(&value), "{refused}");
    }
    for (field, value) in [
        ("level", json!("DEBUG")),
        ("target", json!("bursar::http")),
        ("method", json!("GET")),
        ("route", json!("/api/v1/integrations/{id}")),
        ("status", json!(401)),
        ("trace_id", json!(trace)),
    ] {
        assert_eq!(line.get(field), Some(&value), "{line}");
    }
    assert!(line.get("latency_ms").is_some_and(Value::is_f64), "{line}");
    let api_key = tenant.api_key();
    for secret in [token.as_str(), "not-a-key", "not-an-id", "not-a-name", api_key] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_refusal_of_protection_is_one_event_in_the_log() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "info");
    folder.set("BURSAR_LOG_FORMAT", "json");
    folder.set("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1");
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration_id = tenant.add_integration(&server, 100);
    let mut http = tenant.client(&server);
    let record = record(&integration_id, "call", 1);
    let accepted = http.post("/api/v1/telemetry/llm-usage", &record).expect("an answer");
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let path = format!("/api/v1/integrations/{integration_id}");
    let integration = http.get(&path).expect("an answer");
    assert_eq!(integration.status, 200, "{integration:?}");
    let refused = http.get(&path).expect("an answer");
    assert_eq!((refused.status, refused.code()), (429, "RATE_LIMITED"), "{refused:?}");
    server.stop();

    let log = folder.log();
    let lines = folder.json_log();
    let events: Vec<&Value> = lines.iter().filter(|line| line.get("event").is_some()).collect();
    let [line] = events.as_slice() else { panic!("{events:?}") };
    for (field, value) in [
        ("level", json!("WARN")),
        ("target", json!("bursar::protection")),
        ("event", json!("abuse_protection_triggered")),
        ("tenant_id", json!(tenant.id)),
        ("dimension", json!("rate")),
        ("action", json!("reject")),
        ("endpoint", json!("/api/v1/integrations/{id}")),
        ("operation", json!("GET")),
        ("current_value", json!(1)),
        ("allowed_value", json!(1)),
    ] {
        assert_eq!(line.get(field), Some(&value), "{line}");
    }
    assert!(line.get("timestamp").is_some() && line.get("anomaly").is_none(), "{line}");
    assert!(line.get("retry_after_ms").is_some_and(Value::is_i64), "{line}");
    assert!(!log.contains(&path), "a path with an id is in the log");
}

/// A server that logs into a pipe, and the reader of the pipe. Requests to the returned path are
/// refused and logged.
fn start_with_piped_log(folder: &mut Folder) -> (Server, PipeReader, Http, String) {
    folder.set("BURSAR_LOG", "info,bursar::http=debug");
    folder.set("BURSAR_METRICS_TOKEN", METRICS_TOKEN);
    folder.set("BURSAR_PROTECTION_REQUESTS_PER_MINUTE", "1");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = folder.serve();
    command.stderr(writer);
    let server = Server::start_with(folder, command);
    let mut tenant = Tenant::new(folder, &server);
    let integration_id = tenant.add_integration(&server, 0);
    let mut http = tenant.client(&server);
    let record = record(&integration_id, "call", 1);
    let accepted = http.post("/api/v1/telemetry/llm-usage", &record).expect("an answer");
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let path = format!("/api/v1/integrations/{integration_id}");
    assert_eq!(http.get(&path).expect("an answer").status, 200);
    (server, reader, http, path)
}

/// Sends requests that are refused, each of which writes two lines to the log.
#[track_caller]
fn send_refused(http: &mut Http, path: &str, times: usize) {
    for _ in 0..times {
        let refused = http.get(path).expect("an answer");
        assert_eq!((refused.status, refused.code()), (429, "RATE_LIMITED"), "{refused:?}");
    }
}

/// The lines of a pipe, read in a thread.
fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            // The receiver is gone.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Reads until a line contains this; returns the line.
#[track_caller]
fn read_until(lines: &Receiver<String>, part: &str) -> String {
    loop {
        let line = lines.recv_timeout(Duration::from_secs(30));
        let line = line.unwrap_or_else(|_| panic!("no line with {part}"));
        if line.contains(part) {
            return line;
        }
    }
}

#[test]
fn a_blocked_log_output_delays_no_request_and_resumes_when_it_is_read() {
    let mut folder = Folder::new();
    let (server, reader, mut http, path) = start_with_piped_log(&mut folder);
    // More lines than the pipe and the queue of the log hold.
    send_refused(&mut http, &path, 4_500);
    let dropped = "bursar_log_lines_dropped_total ";
    let count = |line: String| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
    assert!(count(scrape(&server, dropped)).is_some_and(|count| count > 0));
    let mut anyone = Http::new(server.address(), &[]);
    for health in ["/health/live", "/health/ready"] {
        assert_eq!(anyone.get(health).expect("an answer").status, 200, "{health}");
    }
    let integration_id = path.rsplit('/').next().expect("an id");
    let check = json!({ "integration_id": integration_id });
    let checked = http.post("/api/v1/enforcement/check", &check).expect("an answer");
    assert_eq!(checked.status, 200, "{checked:?}");

    let lines = lines_of(reader);
    assert!(read_until(&lines, "abuse_protection_triggered").contains("WARN"));
    let line = read_until(&lines, "lines of the log were dropped");
    assert!(line.contains("ERROR"), "{line}");
    // Afterwards no line is dropped.
    let before = count(scrape(&server, dropped));
    let named = [("X-Request-ID", "after-the-flood"), ("X-AOS-Key", "nobodys")];
    let refused = Http::new(server.address(), &named).get(&path).expect("an answer");
    assert_eq!(refused.status, 401);
    read_until(&lines, "after-the-flood");
    assert_eq!(count(scrape(&server, dropped)), before);
    server.stop();
    read_until(&lines, "stopped");
}

#[test]
fn a_server_with_a_blocked_log_output_terminates() {
    let mut folder = Folder::new();
    let (server, reader, mut http, path) = start_with_piped_log(&mut folder);
    send_refused(&mut http, &path, 500);
    server.stop();
    drop(reader);
}
