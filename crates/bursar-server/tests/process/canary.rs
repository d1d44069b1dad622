//! A secret that is put where none belongs stays nowhere.

use std::path::Path;

use bursar_testing::process::canary::Walk;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::waiting::scale;

/// Files that are secrets themselves.
const SECRETS: [&str; 2] = ["operator-token", "secret-key"];

/// Claims that no file of the store has a canary, in whatever part of it.
#[track_caller]
fn check_files(data: &Path, walk: &Walk) {
    for file in std::fs::read_dir(data).expect("a folder") {
        let path = file.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if !SECRETS.contains(&name) {
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(walk.canaries.find(&bytes), None, "in {name}");
        }
    }
}

#[test]
fn a_secret_in_any_field_header_or_url_is_in_no_answer_log_metric_export_or_column() {
    let mut folder = Folder::new();
    folder.set("BURSAR_LOG", "trace");
    folder.set("BURSAR_SERVER_TRUSTED_PROXIES", "127.0.0.1");
    let server = Server::start(&folder);
    let mut walk = Walk::new(&folder, &server);
    walk.ask_all(scale(false, true));
    let shown = walk.read_all();
    // The walk got as far as where facts are kept without the key that they quote.
    assert!(shown.contains("[redacted]"), "no error message was kept");
    println!("{} requests, {} refused for a secret", walk.asked, walk.refused);
    assert!(walk.refused > 100, "{} of {} were refused", walk.refused, walk.asked);
    check_files(folder.data(), &walk);
    server.stop();
    check_files(folder.data(), &walk);
    let log = folder.log();
    assert!(log.contains("DEBUG bursar::http"), "the log tells every request");
    let line = log.lines().find(|line| walk.canaries.find(line.as_bytes()).is_some());
    assert_eq!(line, None, "a line of the log shows a secret");
}
