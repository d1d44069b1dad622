//! The database crashes under load, and is started again.

use std::time::{Duration, Instant};

use bursar_testing::postgres::cluster::{Cluster, Mode};
use bursar_testing::process::books::Books;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_promises};
use bursar_testing::waiting::{scale, within};

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, Progress, write_while};
use crate::nodes::support::{Site, record, resident_kib};

const SEED: u64 = 20_261_122;
const NODES: usize = 2;
const WRITERS: usize = 16;
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// Steps of the writers before the first crash, and between two of them.
const STEPS: usize = 100;
/// How often each writer is refused before the database comes back.
const REFUSALS: usize = 20;
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// From the moment at which the database takes connections.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// What a node may take more of memory while the database is away.
const MORE_MEMORY_KIB: u64 = 64 * 1024;
const RECORDS: &str = "/api/v1/telemetry/llm-usage";

/// How a crash was got over.
#[derive(Debug)]
struct Recovery {
    /// From the first connection that the database takes to the first record, node after node.
    served_after: Vec<Duration>,
    /// What the largest node had more in memory than before.
    more_kib: u64,
}

/// Crashes the database in the middle of writing, and waits until every node serves again.
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

/// Claims that crashes under load are told in time, got over by each node itself, and cost nothing
/// that was acknowledged.
#[track_caller]
pub(crate) fn check_crashes(site: &Site, cluster: &Cluster, url: &str, crashes: usize) {
    let fleet = Fleet::by(site, url, NODES);
    let mut tenant = fleet.tenant(&[BUDGET_CENTS, BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);
    // What the writers do not know of.
    let probe = tenant.add_integration(fleet.server(0), BUDGET_CENTS);
    tenant.integrations.rotate_right(1);
    let (recoveries, met) =
        write_while(&tenant, &Addresses::of(&fleet), &mut writers, |progress| {
            (0..crashes)
                .map(|round| {
                    progress.wait_for(STEPS);
                    crash(&fleet, &tenant, cluster, progress, round)
                })
                .collect::<Vec<_>>()
        });
    println!("{recoveries:?}, {met:?}");
    let mut books = Books::read(fleet.server(0), &tenant);
    let probes = books.entries.len();
    books.entries.retain(|_, entry| entry.integration != probe);
    assert_eq!(probes - books.entries.len(), crashes * NODES, "each probe is there, once");
    let acknowledged = check_promises(&writers, &books);
    fleet.check_verified();
    println!("{acknowledged} records acknowledged, each there once");
    assert!(met.unavailable > 0 && met.lost == 0, "{met:?}");
    assert!(met.slowest_refusal < REFUSED_WITHIN, "a 503 took {:?}", met.slowest_refusal);
    for Recovery { served_after, more_kib } in &recoveries {
        assert!(served_after.iter().all(|after| *after < SERVED_WITHIN), "{served_after:?}");
        assert!(*more_kib < MORE_MEMORY_KIB, "{more_kib} KiB more while the database is away");
    }
    fleet.stop();
}

#[test]
fn a_crash_of_the_database_under_load_is_told_in_time_got_over_and_loses_nothing() {
    let cluster = Cluster::new();
    let site = Site::on(&cluster);
    check_crashes(&site, &cluster, site.database.app_url(), scale(1, 6));
}
