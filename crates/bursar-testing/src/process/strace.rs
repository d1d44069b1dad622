//! Failing system calls: the server runs under strace, which injects the errors.

use std::process::{Command, Stdio};
use std::sync::Once;

use super::folder::Folder;

/// Calls that sync a file. Which one SQLite uses depends on its build options.
pub const SYNCS: &str = "fsync,fdatasync";
/// Calls that write to a file.
pub const WRITES: &str = "pwrite64,write";

/// Which system calls fail, how, and when.
#[derive(Clone, Debug)]
pub struct Fault {
    pub calls: &'static str,
    pub error: &'static str,
    /// In strace's syntax: `2` is the second call, `2+` from the second on, `2..5` the second to
    /// the fifth. strace counts per thread, which is exact with a single writing thread.
    pub when: String,
    /// The file in the data folder whose calls fail. Calls on other files do not count.
    pub file: &'static str,
}

impl Fault {
    /// A server with failing calls. It stays a child of the test: strace detaches itself (-D).
    pub fn serve(&self, folder: &Folder) -> Command {
        ensure_installed();
        let Self { calls, error, when, file } = self;
        let (trace, path) = (folder.beside("trace"), folder.file(file));
        // The trace of an earlier fault must not count.
        let _ = std::fs::remove_file(&trace);
        let trace = trace.to_string_lossy();
        let path = path.to_string_lossy();
        let (traced, injected) =
            (format!("trace={calls}"), format!("inject={calls}:error={error}:when={when}"));
        // With seccomp the server stops at the traced calls only.
        let arguments =
            ["-D", "-f", "-qq", "--seccomp-bpf", "-o", &trace, "-P", &path, "-e", &traced];
        folder.serve_under("strace", &[&arguments[..], &["-e", &injected]].concat())
    }

    /// The number of calls that failed.
    pub fn injected(folder: &Folder) -> usize {
        let trace = std::fs::read_to_string(folder.beside("trace")).unwrap_or_default();
        trace.matches("(INJECTED)").count()
    }
}

/// Installs strace if it is missing. The test fails if that is impossible: it is never skipped.
fn ensure_installed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if succeeds("strace", &["--version"]) {
            return;
        }
        // Without root or apt-get this fails, and the assertion below reports it.
        let _ = succeeds("apt-get", &["install", "--yes", "--no-install-recommends", "strace"]);
        assert!(
            succeeds("strace", &["--version"]),
            "these tests need strace: install it (apt-get install strace) or run them as root on \
             Debian"
        );
    });
}

/// Whether a command succeeds.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
