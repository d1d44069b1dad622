//! Whatever ends a test, what it started ends with it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits until its standard input closes, then ends the process whose id stands in a file, and
/// removes a folder: `$1` the folder, `$2` the file, `$3` the signal.
///
/// A process that ends takes the file away; one that cannot end in ten seconds is killed.
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

/// A shell that outlives the test by the moment it takes to clean up.
///
/// It holds the reading end of a pipe of which the test holds the only other end: the system closes
/// that one whether the test returns, panics or is killed.
pub(super) struct Supervisor {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Supervisor {
    /// Watches over a process that writes its id to `pid_file`, and over the folder it lives in.
    pub(super) fn start(folder: &Path, pid_file: &Path, signal: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "supervisor"]).arg(folder).arg(pid_file).arg(signal);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own: what a terminal or `timeout` sends to the test is not for it.
        command.process_group(0).current_dir("/");
        let mut shell = command.spawn().expect("a shell");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // The process and its folder are gone when the shell is.
        let _ = self.shell.wait();
    }
}
