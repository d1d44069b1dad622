//! The log of a panic.

use std::process::Command;

use bursar_server::observe::log;
use bursar_server::observe::log::LogFormat;

/// The log filter of the child process that panics; its presence makes this test that process.
const FILTER: &str = "BURSAR_TEST_PANICS";

/// Panics in a thread of a process with this log filter.
fn panic_and_log(filter: &str) {
    log::start(LogFormat::Human, filter).expect("a log");
    let panicking = std::thread::Builder::new().name("worker".to_owned());
    let panicking = panicking.spawn(|| panic!("a mistake of the test")).expect("a thread");
    assert!(panicking.join().is_err());
    log::flush();
}

#[test]
fn a_panic_is_logged_whatever_the_log_filter() {
    if let Ok(filter) = std::env::var(FILTER) {
        return panic_and_log(&filter);
    }
    for filter in ["info", "bursar::http=debug", "off"] {
        let mut itself = Command::new(std::env::current_exe().expect("this test"));
        itself.args(["--exact", "--nocapture"]).env(FILTER, filter).env_remove("RUST_BACKTRACE");
        itself.arg("panics::a_panic_is_logged_whatever_the_log_filter");
        let output = itself.output().expect("an end");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        let logged: Vec<&str> =
            text.lines().filter(|line| line.contains("a mistake of the test")).collect();
        let [line] = logged.as_slice() else { panic!("{filter}: {text}") };
        assert!(line.contains("worker") && line.contains("process/panics.rs:"), "{line}");
        assert_eq!(line.contains("bursar::panic"), filter == "info", "{line}");
    }
}
