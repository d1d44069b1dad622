//! A running server, which is killed when its guard is dropped.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::folder::Folder;
use super::http::{Answer, Http};
use crate::waiting::within;

/// The timeout of a start. Tests assert tighter limits themselves.
const START_MAX: Duration = Duration::from_secs(30);
/// Log lines that a failed test prints.
const LOG_LINES: usize = 30;

/// A server that is ready. Dropping it kills it.
pub struct Server {
    process: Process,
    address: String,
    log: std::path::PathBuf,
    /// The time from its start to its first response.
    pub ready_after: Duration,
}

/// A process. Dropping it kills it.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("the state of a child")
    }

    /// Waits until the process exits.
    #[track_caller]
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let status = within(limit, || self.exit_status());
        status.unwrap_or_else(|| panic!("process {} did not exit within {limit:?}", self.pid()))
    }

    pub fn kill(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal through the command `kill`, because the standard library supports only SIGKILL.
pub fn send_signal(signal: &str, pid: u32) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(sent.expect("the command kill").success(), "{signal} was not sent to {pid}");
}

impl Server {
    /// Starts a server and waits until it is ready.
    #[track_caller]
    pub fn start(folder: &Folder) -> Self {
        Self::start_with(folder, folder.serve())
    }

    /// Starts a server by this command and waits until it is ready.
    #[track_caller]
    pub fn start_with(folder: &Folder, mut command: Command) -> Self {
        forget_address(folder);
        let started = Instant::now();
        let mut process = Process::start(&mut command);
        let token = folder.file("operator-token");
        let found = within(START_MAX, || {
            if let Some(status) = process.exit_status() {
                panic!("the server exited with {status}:\n{}", last_lines(&folder.log()));
            }
            let address = read_address(folder)?;
            let token = std::fs::read_to_string(&token).ok()?;
            let bearer = format!("Bearer {}", token.trim());
            let mut http = Http::new(&address, &[("Authorization", &bearer)]);
            let answer = http.get("/api/v1/tenants").ok()?;
            (answer.status == 200).then_some(address)
        });
        let address = found.unwrap_or_else(|| {
            panic!("not ready within {START_MAX:?}:\n{}", last_lines(&folder.log()))
        });
        Self { process, address, log: folder.beside("log"), ready_after: started.elapsed() }
    }

    /// A client with the operator's token.
    pub fn operator(&self, folder: &Folder) -> Http {
        Http::new(self.address(), &[("Authorization", &folder.operator_bearer())])
    }

    /// Confirms the clock after a jump, as the operator does.
    #[track_caller]
    pub fn confirm_clock(&self, folder: &Folder) {
        let confirmed =
            self.operator(folder).post("/fdr/clock/confirm", &Value::Null).expect("an answer");
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
    }

    /// Waits until `/health/ready` has this status; `/health/live` must be 200 meanwhile.
    #[track_caller]
    pub fn wait_for_readiness(&self, status: u16, limit: Duration) -> Answer {
        let mut http = Http::new(self.address(), &[]);
        let ready = within(limit, || {
            let answer = http.get("/health/ready").expect("an answer");
            (answer.status == status).then_some(answer)
        });
        assert_eq!(http.get("/health/live").expect("an answer").status, 200);
        ready.unwrap_or_else(|| panic!("/health/ready is not {status} within {limit:?}"))
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it with SIGKILL, like a crash.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        send_signal("TERM", self.pid());
    }

    /// Waits until it exits.
    #[track_caller]
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait_for_exit(limit)
    }

    /// Terminates it, and asserts that it exits with 0.
    #[track_caller]
    pub fn stop(mut self) {
        self.terminate();
        let status = self.wait_for_exit(Duration::from_secs(15));
        assert_eq!(status.code(), Some(0), "after SIGTERM");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the end of the server's log:\n{}", last_lines(&log));
        }
    }
}

/// The address that the running server wrote to its data folder, as `host:port`.
pub fn read_address(folder: &Folder) -> Option<String> {
    let text = std::fs::read_to_string(folder.file("server-address")).ok()?;
    text.trim().strip_prefix("http://").map(str::to_owned)
}

/// Removes the address of a killed server, whose port another program may have by now.
fn forget_address(folder: &Folder) {
    let _ = std::fs::remove_file(folder.file("server-address"));
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).copied().collect::<Vec<_>>().join("\n")
}
