//! Jumps of the wall clock under a running server on SQLite.

use bursar_testing::process::clock::LATE_JUNE_2031;
use bursar_testing::process::clock_jump::{FOUR_DAYS, HOUR, JumpChecker, wait_for_clock};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::scale;
use serde_json::Value;

const JUNE: &str = "2031-06-28T12:";
const AN_HOUR_LATER: &str = "2031-06-28T13:";
const JULY: &str = "2031-07-02T12:";

/// A server whose clock shows late June.
struct World {
    folder: Folder,
    server: Server,
    checker: JumpChecker,
}

impl World {
    fn new() -> Self {
        let folder = Folder::new();
        folder.clock.set(LATE_JUNE_2031);
        let server = Server::start(&folder);
        let checker = JumpChecker::start(&server, Tenant::new(&folder, &server));
        Self { folder, server, checker }
    }

    #[track_caller]
    fn wait(&self, state: &str, now: &str) {
        wait_for_clock(&self.folder, &self.server, state, now);
    }

    /// The server after a kill and a restart.
    fn kill_and_restart(self) -> Self {
        let Self { folder, server, checker } = self;
        server.kill();
        let server = Server::start(&folder);
        Self { folder, server, checker }
    }

    #[track_caller]
    fn check_month(&self, is_july: bool) {
        self.checker.check_month(&[&self.server], is_july);
    }

    #[track_caller]
    fn check_key(&self, is_valid: bool) {
        self.checker.check_key(&[&self.server], is_valid);
    }

    /// The output of a clock command as JSON.
    #[track_caller]
    fn run_json(&self, command: &str) -> Value {
        let stdout = self.folder.run(&["clock", command, "--json"]);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Checks the output of the commands for a clock that jumped by these seconds, and confirms it.
    #[track_caller]
    fn confirm(&self, state: &str, seconds: i64) {
        let status = self.run_json("status");
        assert_eq!(status.get("state"), Some(&Value::from(state)), "{status}");
        let is_jump = state == "jumped";
        assert_eq!(status.get("refuses"), Some(&Value::from(is_jump)), "{status}");
        let ends_in = status.get("adopted_in_seconds").and_then(Value::as_u64);
        assert_eq!(ends_in.is_some_and(|left| (1..=60).contains(&left)), is_jump, "{status}");
        check_near(&status, "ahead_seconds", seconds);
        let shown = self.folder.run(&["clock", "status"]);
        let first = shown.lines().next().unwrap_or_default().split_whitespace();
        assert_eq!(first.collect::<Vec<_>>(), ["state", state], "{shown}");

        let confirmed = self.run_json("confirm");
        assert_eq!(confirmed.get("adopted"), Some(&Value::from(true)), "{confirmed}");
        check_near(&confirmed, "was_ahead_seconds", seconds);
        let status = self.run_json("status");
        assert_eq!(status.get("state"), Some(&Value::from("steady")), "{status}");
    }

    #[track_caller]
    fn end(self) {
        for noun in ["db", "audit"] {
            let stdout = self.folder.run(&[noun, "verify"]);
            assert!(stdout.ends_with(" 0 differences\n"), "{stdout}");
        }
        self.server.stop();
    }
}

/// Asserts a number of seconds, with a tolerance for the time that has passed.
#[track_caller]
fn check_near(data: &Value, field: &str, seconds: i64) {
    let found = data.get(field).and_then(Value::as_i64);
    assert!(found.is_some_and(|found| (found - seconds).abs() <= 30), "{field} of {data}");
}

#[test]
fn a_short_jump_of_the_clock_changes_nothing() {
    let mut world = World::new();
    for (seconds, is_refused) in [(HOUR, true), (FOUR_DAYS, true), (-HOUR, false)] {
        let jump = |seconds| world.folder.clock.jump(seconds);
        world.checker.check_short_jump(&[&world.server], jump, (seconds, is_refused));
        world.wait("steady", JUNE);
        world = world.kill_and_restart();
        world.wait("steady", JUNE);
        world.check_month(false);
    }
    let jump = |seconds| world.folder.clock.jump(seconds);
    world.checker.check_set_back(&[&world.server], jump);
    world = world.kill_and_restart();
    world.wait("behind", JUNE);
    world.check_month(false);
    world.folder.clock.jump(HOUR);
    world.wait("steady", JUNE);
    world.check_month(false);
    world.end();
}

#[test]
fn the_clock_command_confirms_a_jump_and_its_reversal_across_restarts() {
    let world = World::new();
    world.check_month(false);
    world.check_key(true);
    world.folder.clock.jump(HOUR);
    world.wait("jumped", JUNE);
    world.confirm("jumped", HOUR);
    world.check_month(false);
    world.check_key(false);
    let world = world.kill_and_restart();
    world.wait("steady", AN_HOUR_LATER);

    world.folder.clock.jump(FOUR_DAYS - HOUR);
    world.wait("jumped", AN_HOUR_LATER);
    world.confirm("jumped", FOUR_DAYS - HOUR);
    world.check_month(true);
    world.check_key(false);
    let world = world.kill_and_restart();
    world.wait("steady", JULY);
    world.check_month(true);

    world.folder.clock.jump(-FOUR_DAYS);
    world.wait("behind", JULY);
    let world = world.kill_and_restart();
    world.wait("behind", JULY);
    world.check_month(true);
    world.confirm("behind", -FOUR_DAYS);
    world.check_month(false);
    world.check_key(true);
    let world = world.kill_and_restart();
    world.wait("steady", JUNE);
    world.check_month(false);
    world.end();
}

#[test]
fn a_clock_that_stays_ahead_is_adopted_after_a_minute() {
    if !scale(false, true) {
        println!("it takes a minute: BURSAR_PROVE=1");
        return;
    }
    let world = World::new();
    let jump = |seconds| world.folder.clock.jump(seconds);
    world.checker.check_adopted(&[&world.server], jump);
    let world = world.kill_and_restart();
    world.wait("steady", JULY);
    world.check_month(true);
    world.end();
}
