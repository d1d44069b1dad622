//! The tests of several nodes through a pooler in transaction mode.

use bursar_testing::postgres::bouncer::Bouncer;
use bursar_testing::postgres::cluster::Cluster;

use crate::nodes::crash::check_crashes;
use crate::nodes::exact::check_exact;
use crate::nodes::once::check_once;
use crate::nodes::support::Site;
use crate::nodes::support::fleet::Fleet;

/// Fewer connections than the nodes together open.
const POOL_SIZE: u32 = 8;

#[test]
fn budgets_are_exact_and_calls_are_stored_once_through_a_pooler() {
    let site = Site::new();
    let bouncer = Bouncer::start(Cluster::shared(), POOL_SIZE);
    let url = bouncer.through(site.database.app_url());
    let fleet = Fleet::with_url(&site, &url, 3);
    check_once(&fleet, 1);
    check_exact(&fleet, 2);
    fleet.stop();
}

#[test]
fn a_database_crash_behind_a_pooler_returns_503_in_time_and_loses_nothing() {
    let cluster = Cluster::new();
    let site = Site::on(&cluster);
    let bouncer = Bouncer::start(&cluster, POOL_SIZE);
    check_crashes(&site, &cluster, &bouncer.through(site.database.app_url()), 1);
}
