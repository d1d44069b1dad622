//! A data folder, and the command that starts the binary on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::clock::ClockFile;

/// The binary under test. cargo builds it for the tests of its package and tells them where it is.
///
/// # Panics
/// Outside a test run by cargo.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("CARGO_BIN_EXE_bursar");
    path.expect("CARGO_BIN_EXE_bursar, which cargo sets for the tests of bursar-server").into()
}

/// Thresholds that tests would otherwise exceed without intending to.
const UNPROTECTED: [&str; 4] = [
    "BURSAR_PROTECTION_REQUESTS_PER_MINUTE",
    "BURSAR_PROTECTION_REQUESTS_PER_SECOND",
    "BURSAR_PROTECTION_TRAFFIC_PER_MINUTE",
    "BURSAR_PROTECTION_TRAFFIC_PER_SECOND",
];

/// A data folder, and the settings of the servers on it.
pub struct Folder {
    root: TempDir,
    data: PathBuf,
    settings: Vec<(&'static str, String)>,
    /// The clock of its servers. It starts in the middle of a month.
    pub clock: ClockFile,
}

impl Folder {
    /// A new folder on disk.
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder for the test");
        // Without symbolic links, because strace compares paths as text.
        let data = root.path().canonicalize().expect("a path").join("data");
        let clock = ClockFile::new(root.path().join("clock"));
        Self { root, data, settings: Vec::new(), clock }
    }

    /// The same folder with its data elsewhere.
    pub fn with_data(mut self, data: PathBuf) -> Self {
        self.data = data;
        self
    }

    /// Sets a variable of the server's environment.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.into()));
    }

    /// A path beside the data.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A path in the data folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn operator_token(&self) -> String {
        let path = self.file("operator-token");
        std::fs::read_to_string(path).expect("the operator's token").trim().to_owned()
    }

    /// The value of the operator's `Authorization` header.
    pub fn operator_bearer(&self) -> String {
        format!("Bearer {}", self.operator_token())
    }

    /// The log of all servers on this folder.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.beside("log")).unwrap_or_default()
    }

    /// The lines of a log in JSON.
    ///
    /// # Panics
    /// When a line is not JSON.
    pub fn json_log(&self) -> Vec<Value> {
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        self.log().lines().map(line).collect()
    }

    /// `bursar serve` on this folder, on a port that the system chooses.
    pub fn serve(&self) -> Command {
        self.prepared(Command::new(binary()))
    }

    /// The same under another program, which gets the binary and its arguments as its last ones.
    pub fn serve_under(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg(binary());
        self.prepared(command)
    }

    /// A command of the binary on this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        self.set_environment(&mut command);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command of the binary that must succeed, and returns its output.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("a text")
    }

    fn prepared(&self, mut command: Command) -> Command {
        self.set_environment(&mut command);
        let log = File::options().create(true).append(true).open(self.beside("log"));
        command
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"));
        command
    }

    fn set_environment(&self, command: &mut Command) {
        // The developer's environment must not configure the test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BURSAR_") {
                command.env_remove(name);
            }
        }
        command
            .env("BURSAR_DATA_DIR", &self.data)
            .env("BURSAR_LISTEN", "127.0.0.1:0")
            .env("BURSAR_LOG", "warn")
            .env("BURSAR_TEST_CLOCK_FILE", self.clock.path())
            .envs(UNPROTECTED.map(|name| (name, "1000000000")))
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
    }
}
