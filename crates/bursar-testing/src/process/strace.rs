//! System calls that fail on purpose: the server runs under strace, which injects the errors.

use std::process::{Command, Stdio};
use std::sync::Once;

use super::folder::Folder;

/// Calls that make a file durable. Which one SQLite uses depends on how it was compiled.
pub const SYNCS: &str = "fsync,fdatasync";
/// Calls that write to a file at a place.
pub const WRITES: &str = "pwrite64,write";

/// Which system calls fail, how, and when.
#[derive(Clone, Debug)]
pub struct Fault {
    pub calls: &'static str,
    pub error: &'static str,
    /// In the words of strace: `2` the second call, `2+` from the second on, `2..5` these. Each
    /// thread counts for itself, so with one thread that writes this is exact.
    pub when: String,
    /// The file in the data folder on which they fail; calls on others are not counted.
    pub file: &'static str,
}

impl Fault {
    /// A server whose calls fail. It stays the child of the test: strace traces it from aside (-D).
    pub fn serve(&self, folder: &Folder) -> Command {
        ensure_installed();
        let Self { calls, error, when, file } = self;
        let (trace, path) = (folder.beside("trace"), folder.file(file));
        // What an earlier fault left must not count for this one.
        let _ = std::fs::remove_file(&trace);
        let trace = trace.to_string_lossy();
        let path = path.to_string_lossy();
        let (traced, injected) =
            (format!("trace={calls}"), format!("inject={calls}:error={error}:when={when}"));
        // The filter in the kernel stops the server at the traced calls only.
        let arguments =
            ["-D", "-f", "-qq", "--seccomp-bpf", "-o", &trace, "-P", &path, "-e", &traced];
        folder.serve_under("strace", &[&arguments[..], &["-e", &injected]].concat())
    }

    /// How often the calls failed.
    pub fn met(folder: &Folder) -> usize {
        let trace = std::fs::read_to_string(folder.beside("trace")).unwrap_or_default();
        trace.matches("(INJECTED)").count()
    }
}

/// Installs strace once where that is possible; a proof is never left out in silence.
fn ensure_installed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if runs("strace", &["--version"]) {
            return;
        }
        // Fails for want of rights or of apt-get, which the next line tells.
        let _ = runs("apt-get", &["install", "--yes", "--no-install-recommends", "strace"]);
        assert!(
            runs("strace", &["--version"]),
            "these proofs need strace: install it (apt-get install strace) or run them as root on \
             Debian"
        );
    });
}

/// Whether a command runs and succeeds.
pub fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
