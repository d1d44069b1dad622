//! Secrets sent in the wrong places are stored and shown nowhere.

use std::path::Path;

use bursar_testing::process::canary::CanaryRequests;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::waiting::scale;

/// Files of the data folder that contain a secret by design.
const SECRETS: [&str; 2] = ["operator-token", "secret-key"];

/// Asserts that no file of the store contains a canary.
#[track_caller]
fn check_files(data: &Path, requests: &CanaryRequests) {
    for file in std::fs::read_dir(data).expect("a folder") {
        let path = file.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if !SECRETS.contains(&name) {
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(requests.canaries.find(&bytes), None, "in {name}");
        }
    }
}

#[test]
fn a_secret_in_any_field_header_or_url_is_in_no_answer_log_metric_export_or_column() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "trace");
    folder.set("BURSAR_SERVER_TRUSTED_PROXIES", "127.0.0.1");
    let server = Server::start(&folder);
    let mut requests = CanaryRequests::new(&folder, &server);
    requests.send_all(scale(false, true));
    let shown = requests.read_all();
    // Some requests were stored, with the key redacted.
    assert!(shown.contains("[redacted]"), "no error message was stored");
    println!("{} requests, {} refused for a secret", requests.sent, requests.refused);
    assert!(requests.refused > 100, "{} of {} were refused", requests.refused, requests.sent);
    check_files(folder.data(), &requests);
    server.stop();
    check_files(folder.data(), &requests);
    let log = folder.log();
    assert!(log.contains("DEBUG bursar::http"), "the log tells every request");
    let line = log.lines().find(|line| requests.canaries.find(line.as_bytes()).is_some());
    assert_eq!(line, None, "a line of the log shows a secret");
}
