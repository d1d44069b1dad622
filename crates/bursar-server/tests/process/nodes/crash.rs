//! Crashes of the database under load.

use std::time::{Duration, Instant};

use bursar_testing::postgres::cluster::{Cluster, Mode};
use bursar_testing::process::bodies::record;
use bursar_testing::process::books::Books;
use bursar_testing::process::memory::resident_kib;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::{scale, within};

use crate::nodes::support::Site;
use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, Progress, write_while};

const SEED: u64 = 20_261_122;
const NODES: usize = 2;
const WRITERS: usize = 16;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// Steps of the writers before the first crash, and between two of them.
const STEPS: usize = 100;
/// Refusals of each writer before the database is restarted.
const REFUSALS: usize = 20;
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// Counted from the first connection that the database accepts.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// The maximal growth of a node's memory during the outage.
const MORE_MEMORY_KIB: u64 = 64 * 1024;
const RECORDS: &str = "/api/v1/telemetry/llm-usage";

/// The recovery from a crash.
#[derive(Debug)]
struct Recovery {
    /// For each node, the time from the database's first connection to the first record.
    served_after: Vec<Duration>,
    /// The largest growth of a node's memory.
    more_kib: u64,
}

/// Crashes the database under load, and waits until each node serves again.
#[track_caller]
fn crash(
    fleet: &Fleet,
    tenant: &Tenant,
    cluster: &Cluster,
    progress: &Progress,
    round: usize,
) -> Recovery {
    let residents =
        || -> Vec<u64> { fleet.nodes.iter().map(|node| resident_kib(node.server.pid())).collect() };
    let before = residents();
    cluster.stop(Mode::Immediate);
    let mut more_kib = 0;
    progress.wait_for_refusals(WRITERS, REFUSALS, || {
        let more =
            residents().into_iter().zip(&before).map(|(now, then)| now.saturating_sub(*then));
        more_kib = more.max().unwrap_or_default().max(more_kib);
    });
    cluster.start();
    let up = Instant::now();
    let integration = tenant.integrations.first().expect("an integration");
    let served_after = fleet.nodes.iter().enumerate().map(|(number, node)| {
        let mut http = tenant.client(&node.server);
        let call = record(integration, &format!("after-{round}-{number}"), 1);
        let served = within(SERVED_WITHIN.saturating_sub(up.elapsed()), || {
            let answer = http.post(RECORDS, &call).expect("an answer");
            assert!(answer.is_success() || answer.status == 503, "{answer:?}");
            answer.is_success().then(|| up.elapsed())
        });
        served.unwrap_or_else(|| panic!("node {number} serves nothing after {SERVED_WITHIN:?}"))
    });
    Recovery { served_after: served_after.collect(), more_kib }
}

/// Asserts that nodes return 503 in time during crashes, recover without a restart, and lose no
/// acknowledged record.
#[track_caller]
pub(crate) fn check_crashes(site: &Site, cluster: &Cluster, url: &str, crashes: usize) {
    let fleet = Fleet::with_url(site, url, NODES);
    let mut tenant = fleet.tenant(&[BUDGET_CENTS, BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    // Records that the writers do not track.
    let probe = tenant.add_integration(fleet.server(0), BUDGET_CENTS);
    tenant.integrations.rotate_right(1);
    let (recoveries, outcomes) =
        write_while(&tenant, &Addresses::of(&fleet), &mut writers, |progress| {
            (0..crashes)
                .map(|round| {
                    progress.wait_for(STEPS);
                    crash(&fleet, &tenant, cluster, progress, round)
                })
                .collect::<Vec<_>>()
        });
    println!("{recoveries:?}, {outcomes:?}");
    let mut books = Books::read(fleet.server(0), &tenant);
    let probes = books.entries.len();
    books.entries.retain(|_, entry| entry.integration != probe);
    assert_eq!(probes - books.entries.len(), crashes * NODES, "each probe is stored once");
    let acknowledged = check_acknowledged(&writers, &books);
    fleet.check_verified();
    println!("{acknowledged} records acknowledged, each there once");
    assert!(outcomes.unavailable > 0 && outcomes.lost == 0, "{outcomes:?}");
    assert!(outcomes.slowest_refusal < REFUSED_WITHIN, "a 503 took {:?}", outcomes.slowest_refusal);
    for Recovery { served_after, more_kib } in &recoveries {
        assert!(served_after.iter().all(|after| *after < SERVED_WITHIN), "{served_after:?}");
        assert!(*more_kib < MORE_MEMORY_KIB, "{more_kib} KiB more while the database is away");
    }
    fleet.stop();
}

#[test]
fn a_database_crash_under_load_returns_503_in_time_and_loses_nothing() {
    let cluster = Cluster::new();
    let site = Site::on(&cluster);
    check_crashes(&site, &cluster, site.database.app_url(), scale(1, 6));
}
