//! Stops the programs of a test when the test process ends, however it ends.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits until its standard input closes, then stops the process in a pid file and removes a
/// folder: `$1` is the folder, `$2` the file, `$3` the signal.
///
/// The process removes the pid file when it exits. After ten seconds it is killed.
const SCRIPT: &str = r#"
cat > /dev/null
pid=$(head -n 1 "$2" 2> /dev/null)
if [ -n "$pid" ] && kill "-$3" "$pid" 2> /dev/null; then
    looks=0
    while [ -e "$2" ] && kill -0 "$pid" 2> /dev/null; do
        looks=$((looks + 1))
        [ "$looks" -lt 200 ] || kill -KILL "$pid"
        [ "$looks" -lt 220 ] || break
        sleep 0.05
    done
fi
rm -rf "$1"
"#;

/// A shell that cleans up after the test process.
///
/// It reads from a pipe whose only writing end is the test's: the kernel closes that end whether
/// the test returns, panics or is killed.
pub(super) struct Supervisor {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Supervisor {
    /// Supervises a process that writes its pid to `pid_file`, and its folder.
    pub(super) fn start(folder: &Path, pid_file: &Path, signal: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "supervisor"]).arg(folder).arg(pid_file).arg(signal);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In its own process group: signals of a terminal or `timeout` must not reach it.
        command.process_group(0).current_dir("/");
        let mut shell = command.spawn().expect("a shell");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // When the shell has exited, the process and its folder are gone.
        let _ = self.shell.wait();
    }
}
