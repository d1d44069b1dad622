//! A running server, which ends with its guard.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::folder::Folder;
use super::http::Http;
use crate::waiting::within;

/// How long a server may take to answer before the test gives up on it. What it should take is the
/// claim of a test.
const START_MAX: Duration = Duration::from_secs(30);
/// Lines of the log that are shown when a test fails.
const LOG_LINES: usize = 30;

/// A server that answers. Dropping it kills it.
pub struct Server {
    process: Process,
    address: String,
    log: std::path::PathBuf,
    /// From its start until its first answer.
    pub ready_after: Duration,
}

/// A process that is killed when its guard is dropped.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("the state of a child")
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let status = within(limit, || self.ended());
        status.unwrap_or_else(|| panic!("process {} did not end within {limit:?}", self.pid()))
    }

    pub fn kill(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal, by the shell's command because the standard library knows only SIGKILL.
pub fn send_signal(signal: &str, pid: u32) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(sent.expect("the command kill").success(), "{signal} was not sent to {pid}");
}

impl Server {
    /// Starts a server and waits until it answers.
    #[track_caller]
    pub fn start(folder: &Folder) -> Self {
        Self::start_by(folder, folder.serve())
    }

    /// The same by another command.
    #[track_caller]
    pub fn start_by(folder: &Folder, mut command: Command) -> Self {
        forget_address(folder);
        let started = Instant::now();
        let mut process = Process::start(&mut command);
        let token = folder.file("operator-token");
        let found = within(START_MAX, || {
            if let Some(status) = process.ended() {
                panic!("the server ended with {status}:\n{}", last_lines(&folder.log()));
            }
            let address = read_address(folder)?;
            let token = std::fs::read_to_string(&token).ok()?;
            let bearer = format!("Bearer {}", token.trim());
            let mut http = Http::new(&address, &[("Authorization", &bearer)]);
            let answer = http.get("/api/v1/tenants").ok()?;
            (answer.status == 200).then_some(address)
        });
        let address = found.unwrap_or_else(|| {
            panic!("no answer within {START_MAX:?}:\n{}", last_lines(&folder.log()))
        });
        Self { process, address, log: folder.beside("log"), ready_after: started.elapsed() }
    }

    /// Says that the clock is right, as an operator does after it jumped.
    #[track_caller]
    pub fn confirm_clock(&self, folder: &Folder) {
        let operator = format!("Bearer {}", folder.operator_token());
        let mut http = Http::new(self.address(), &[("Authorization", &operator)]);
        let confirmed = http.post("/fdr/clock/confirm", &Value::Null).expect("an answer");
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it with SIGKILL, as a crash would.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) {
        send_signal("TERM", self.pid());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end_within(&mut self, limit: Duration) -> ExitStatus {
        self.process.end_within(limit)
    }

    /// Asks it to end, and expects that it does so in good order.
    #[track_caller]
    pub fn stop(mut self) {
        self.ask_to_end();
        let status = self.end_within(Duration::from_secs(15));
        assert_eq!(status.code(), Some(0), "a server that was asked to end");
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

/// Where the running server says that it listens, as `host:port`.
pub fn read_address(folder: &Folder) -> Option<String> {
    let text = std::fs::read_to_string(folder.file("server-address")).ok()?;
    text.trim().strip_prefix("http://").map(str::to_owned)
}

/// Takes away what a killed server left, whose port may be another program's by now.
fn forget_address(folder: &Folder) {
    let _ = std::fs::remove_file(folder.file("server-address"));
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).copied().collect::<Vec<_>>().join("\n")
}
