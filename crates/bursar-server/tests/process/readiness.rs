//! A server is ready only while its disk has space for writes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bursar_testing::process::disk::SmallDisk;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::{Value, json};

/// The maximal time until a server notices that its disk became full or has space again.
const NOTICED_MAX: Duration = Duration::from_secs(3);

fn record(integration_id: &str, call_id: &str) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "provider": "openai",
        "model": "gpt", "tokens_in": 1, "tokens_out": 1, "cost_cents": 1,
        "metadata": { "text": "x".repeat(30_000) },
    })
}

/// Fills a disk.
fn fill(filler: &Path) {
    let mut file = File::create(filler).expect("a file");
    while file.write_all(&[0; 4_096]).is_ok() {}
}

/// Sends records until the disk is full; returns the refusal.
#[track_caller]
fn record_until_refused(http: &mut Http, integration_id: &str) -> Answer {
    for call in 0..1_000 {
        let sent = record(integration_id, &format!("call {call}"));
        let answer = http.post("/api/v1/telemetry/llm-usage", &sent).expect("an answer");
        if answer.status != 201 {
            return answer;
        }
    }
    panic!("the disk was never full");
}

/// Mounting needs root; where it is forbidden, `tests/suite/faults.rs` of the store covers this.
#[test]
fn a_server_with_a_full_disk_is_not_ready_until_there_is_space() {
    let folder = Folder::new();
    let Some(disk) = SmallDisk::mount(folder.beside("disk"), 64) else {
        return;
    };
    let filler = disk.path().join("filler");
    let data = disk.path().canonicalize().expect("a path").join("data");
    let folder = folder.with_data(data);
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    let integration_id = tenant.add_integration(&server, 1_000_000);
    server.wait_for_readiness(200, NOTICED_MAX);

    fill(&filler);
    let mut http = tenant.client(&server);
    let answer = record_until_refused(&mut http, &integration_id);
    assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{answer:?}");
    let refused = server.wait_for_readiness(503, NOTICED_MAX);
    let message = refused.body.pointer("/error/message").and_then(Value::as_str);
    assert!(message.is_some_and(|message| message.contains("disk_full")), "{refused:?}");
    let check = json!({ "integration_id": integration_id, "estimated_cost_cents": 1 });
    let checked = http.post("/api/v1/enforcement/check", &check).expect("an answer");
    assert_eq!(checked.status, 200, "{checked:?}");
    let size = || fs::read_dir(folder.data()).expect("a folder").count();
    let files = size();

    fs::remove_file(&filler).expect("a file");
    server.wait_for_readiness(200, NOTICED_MAX);
    assert_eq!(size(), files, "a probe leaves no file");
    let answer = http.post("/api/v1/telemetry/llm-usage", &record(&integration_id, "after"));
    assert_eq!(answer.expect("an answer").status, 201);
    server.stop();
    let log = folder.log();
    assert_eq!(log.matches("accepts no writes").count(), 1, "{log}");
}

#[test]
fn an_idle_server_detects_that_its_disk_became_full() {
    let folder = Folder::new();
    let Some(disk) = SmallDisk::mount(folder.beside("disk"), 64) else {
        return;
    };
    let filler = disk.path().join("filler");
    let data = disk.path().canonicalize().expect("a path").join("data");
    let folder = folder.with_data(data);
    let server = Server::start(&folder);
    // A restart empties the WAL, so that the next write needs space.
    server.stop();
    let server = Server::start(&folder);
    server.wait_for_readiness(200, NOTICED_MAX);

    fill(&filler);
    server.wait_for_readiness(503, NOTICED_MAX);
    fs::remove_file(&filler).expect("a file");
    server.wait_for_readiness(200, NOTICED_MAX);
    server.stop();
}
