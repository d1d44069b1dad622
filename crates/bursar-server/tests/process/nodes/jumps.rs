//! Jumps of the database's clock, and of the clock of a single node, while nodes run.

use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::process::clock::LATE_JUNE_2031;
use bursar_testing::process::clock_jump::{FOUR_DAYS, HOUR, JumpChecker, wait_for_clock};
use bursar_testing::process::server::Server;
use bursar_testing::waiting::scale;

use crate::nodes::support::Site;
use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::skew::{Skew, follow_database};

const JUNE: &str = "2031-06-28T12:";
const AN_HOUR_LATER: &str = "2031-06-28T13:";
const JULY: &str = "2031-07-02T12:";

/// Two nodes over a database in late June. The first has a clock of its own.
struct World {
    fleet: Fleet,
    checker: JumpChecker,
    database: Skew,
    node: Skew,
    _site: Site,
    _cluster: Cluster,
}

impl World {
    fn new() -> Self {
        let (database, node) = (Skew::showing(LATE_JUNE_2031), Skew::by(0));
        let environment = database.environment();
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let cluster = Cluster::with_environment(&[], &environment);
        let site = Site::on(&cluster);
        let fleet = Fleet::prepared(&site, site.database.app_url(), 2, |number, folder| {
            folder.set("BURSAR_LOG", "info");
            if number == 0 { node.shift(folder) } else { follow_database(folder) }
        });
        let checker = JumpChecker::start(fleet.server(0), fleet.tenant(&[]));
        let world = Self { fleet, checker, database, node, _site: site, _cluster: cluster };
        world.wait("steady", JUNE);
        world
    }

    fn servers(&self) -> [&Server; 2] {
        [self.fleet.server(0), self.fleet.server(1)]
    }

    /// Waits until both nodes show this state.
    #[track_caller]
    fn wait(&self, state: &str, now: &str) {
        for node in &self.fleet.nodes {
            wait_for_clock(&node.folder, &node.server, state, now);
        }
    }

    #[track_caller]
    fn confirm(&self, number: usize) {
        let node = self.fleet.node(number);
        node.server.confirm_clock(&node.folder);
    }

    #[track_caller]
    fn end(self) {
        self.fleet.check_verified();
        self.fleet.stop();
    }
}

#[test]
fn a_short_jump_of_the_databases_clock_changes_nothing() {
    let world = World::new();
    for (seconds, is_refused) in [(HOUR, true), (FOUR_DAYS, true), (-HOUR, false)] {
        let jump = |seconds| world.database.jump(seconds);
        world.checker.check_short_jump(&world.servers(), jump, (seconds, is_refused));
        world.wait("steady", JUNE);
    }
    world.checker.check_set_back(&world.servers(), |seconds| world.database.jump(seconds));
    world.wait("behind", JUNE);
    world.database.jump(HOUR);
    world.wait("steady", JUNE);
    for node in &world.fleet.nodes {
        let log = node.folder.log();
        for event in ["the clock jumped forward", "the clock is back", "the clock is behind"] {
            assert!(log.contains(event), "{event}: {log}");
        }
    }
    world.end();
}

#[test]
fn a_clock_confirmed_on_one_node_is_followed_by_the_other() {
    let mut world = World::new();
    world.checker.check_month(&world.servers(), false);
    world.checker.check_key(&world.servers(), true);
    world.database.jump(HOUR);
    world.wait("jumped", JUNE);
    world.confirm(1);
    world.wait("steady", AN_HOUR_LATER);
    world.checker.check_month(&world.servers(), false);
    world.checker.check_key(&world.servers(), false);

    world.database.jump(FOUR_DAYS - HOUR);
    world.wait("jumped", AN_HOUR_LATER);
    world.confirm(0);
    world.wait("steady", JULY);
    world.checker.check_month(&world.servers(), true);
    world.checker.check_key(&world.servers(), false);

    world.database.jump(-FOUR_DAYS);
    world.wait("behind", JULY);
    // Nothing is refused, and it is still July.
    world.checker.check_month(&world.servers(), true);
    world.confirm(1);
    world.wait("steady", JUNE);
    world.checker.check_month(&world.servers(), false);
    world.checker.check_key(&world.servers(), true);

    for number in [0, 1] {
        world.fleet.kill_and_restart(number);
    }
    world.wait("steady", JUNE);
    world.checker.check_month(&world.servers(), false);
    world.end();
}

#[test]
fn the_clock_of_a_single_node_changes_nothing() {
    let world = World::new();
    for seconds in [-HOUR, HOUR, FOUR_DAYS] {
        let jump = |seconds| world.node.jump(seconds);
        world.checker.check_short_jump(&world.servers(), jump, (seconds, false));
        world.wait("steady", JUNE);
        jump(seconds);
        world.wait("steady", JUNE);
        world.checker.check_month(&world.servers(), false);
        jump(-seconds);
    }
    world.end();
}

#[test]
fn a_databases_clock_that_stays_ahead_is_adopted_after_a_minute() {
    if !scale(false, true) {
        println!("it takes a minute: BURSAR_PROVE=1");
        return;
    }
    let world = World::new();
    world.checker.check_adopted(&world.servers(), |seconds| world.database.jump(seconds));
    world.wait("steady", JULY);
    world.end();
}
