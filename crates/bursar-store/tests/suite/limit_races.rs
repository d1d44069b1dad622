//! Races for the last amount that a limit admits: three nodes on PostgreSQL, one on SQLite.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "the columns are counted here")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bursar_core::{
    Caps, Day, IntegrationId, KeyId, Label, RecordOutcome, ReleaseOutcome, Reservation,
    ReserveOutcome, Scope, TenantId, Timestamp, Usage,
};
use bursar_store::{LimitRow, NoopObserver, Observer};
use bursar_testing::waiting::scale;
use tokio::task::JoinSet;

use crate::support::limit_recount::{KnownLimit, check_limits};
use crate::support::limits::{
    by_agent, calls, cost, daily, each, limit, limit_sums, only, put_limits, refusal, subject_of,
};
use crate::support::nodes::{Node, Nodes};
use crate::support::postgres_database::POSTGRES;
use crate::support::{NewDatabase, SQLITE, TestClock, call_id, day, usage};

const TASKS: usize = 64;
const REQUESTS: usize = 1_000;
/// How many requests the tightest limit admits.
const FITTING: usize = 10;

fn noop_observer() -> Arc<dyn Observer> {
    Arc::new(NoopObserver)
}

/// A limit on the tenant, one on the key and one on the agent; the one at `tightest` admits 10.
fn three_limits(tenant_id: TenantId, tightest: usize) -> Vec<KnownLimit> {
    let admitted = |at: usize| [FITTING, 12, 15][(at + 3 - tightest) % 3] as i64;
    let key = KeyId::from_number(7).unwrap().to_string();
    let rows = [
        limit(tenant_id, 1, Scope::Tenant, cost(daily(), 10 * admitted(0))),
        limit(tenant_id, 2, only(Label::Key, &key), calls(daily(), admitted(1).into())),
        limit(tenant_id, 3, each(Label::Agent), cost(daily(), 10 * admitted(2))),
    ];
    rows.into_iter().map(|row| KnownLimit { row, since: 1 }).collect()
}

fn rows(limits: &[KnownLimit]) -> Vec<LimitRow> {
    limits.iter().map(|known| known.row.clone()).collect()
}

/// Makes 1,000 requests from all tasks on all nodes, and returns the admitted reservations.
async fn reserve_all(
    nodes: &Nodes,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    before_request: impl Fn(usize) + Clone + Send + 'static,
) -> Vec<Reservation> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (Node { ledger, .. }, next) = (nodes.node(task), Arc::clone(&next));
        let before_request = before_request.clone();
        tasks.spawn(async move {
            let mut held = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= REQUESTS {
                    return held;
                }
                before_request(number);
                let asked = by_agent(integration_id, "agent", &format!("call {number}"));
                match ledger.reserve(tenant_id, asked).await.unwrap() {
                    ReserveOutcome::Held(reservation) => held.push(reservation),
                    ReserveOutcome::Refused(decision) => assert!(!decision.verdict.admits()),
                    other @ (ReserveOutcome::Replayed(_) | ReserveOutcome::Rejected(_)) => {
                        unreachable!("{other:?}")
                    }
                }
            }
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn the_tightest_limit_admits_what_fits(database: NewDatabase, count: usize) {
    let nodes = Nodes::new(database, count, &noop_observer(), Caps::DEFAULT);
    let mut all = Vec::new();
    for round in 0..scale(3, 20) {
        let (tenant_id, integration_id) = nodes.account().await;
        let limits = three_limits(tenant_id, round % 3);
        put_limits(&nodes.node(round).ledger, rows(&limits)).await;
        let held = reserve_all(&nodes, tenant_id, integration_id, |_| {}).await;
        assert_eq!(held.len(), FITTING, "round {round}");
        let of = subject_of(&by_agent(integration_id, "agent", "any"));
        for Node { store, .. } in &nodes.nodes {
            let sums = limit_sums(store.as_ref(), tenant_id, &of).await;
            assert_eq!(sums, [(1, 0, 100), (2, 0, 10), (3, 0, 100)], "round {round}");
        }
        all.extend(limits);
    }
    check_limits(nodes.database.as_ref(), &all, nodes.clock.now());
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tightest_limit_admits_what_fits_on_three_nodes() {
    the_tightest_limit_admits_what_fits(POSTGRES, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tightest_limit_admits_what_fits_on_a_file() {
    the_tightest_limit_admits_what_fits(SQLITE, 1).await;
}

async fn a_day_that_begins_during_a_race_admits_what_fits(database: NewDatabase, count: usize) {
    let nodes = Nodes::new(database, count, &noop_observer(), Caps::DEFAULT);
    for round in 0..scale(3_u8, 20) {
        let (tenant_id, integration_id) = nodes.account().await;
        let limits = three_limits(tenant_id, usize::from(round % 3));
        put_limits(&nodes.node(0).ledger, rows(&limits)).await;
        let midnight = day(2026, 4, 1 + round);
        let clock = nodes.clock.clone();
        clock.set(Timestamp::from_micros(midnight.micros() - 1).unwrap());
        let before_request = move |number: usize| {
            if number == REQUESTS / 2 {
                clock.set(midnight);
            }
        };
        let held = reserve_all(&nodes, tenant_id, integration_id, before_request).await;
        let of = |day: Day| held.iter().filter(|held| held.created_at.day() == day).count();
        assert_eq!((of(midnight.day()), held.len()), (FITTING, 2 * FITTING), "round {round}");
        let of = subject_of(&by_agent(integration_id, "agent", "any"));
        let sums = limit_sums(nodes.node(1).store.as_ref(), tenant_id, &of).await;
        assert_eq!(sums, [(1, 0, 100), (2, 0, 10), (3, 0, 100)], "round {round}");
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_day_that_begins_during_a_race_admits_what_fits_on_three_nodes() {
    a_day_that_begins_during_a_race_admits_what_fits(POSTGRES, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_day_that_begins_during_a_race_admits_what_fits_on_a_file() {
    a_day_that_begins_during_a_race_admits_what_fits(SQLITE, 1).await;
}

const VALUES_MAX: usize = 20;

/// The accounts of values in the period of a day, the shared one, and the stored number of values.
fn accounts_of(nodes: &Nodes, tenant_id: TenantId, of_day: Timestamp) -> (usize, i64, [i64; 2]) {
    let tables = nodes.database.rows(&[
        "select tenant_id, value, period_start, used_calls, held_calls from limit_accounts",
        "select tenant_id, period_start, accounts from limit_values",
    ]);
    let [accounts, values] = tables.as_slice() else { unreachable!("two statements") };
    let int = |cell: &Option<String>| cell.as_ref().unwrap().parse::<i64>().unwrap();
    let of_tenant = |row: &&Vec<Option<String>>| int(&row[0]) == tenant_id.number();
    let own = accounts.iter().filter(of_tenant).filter(|row| int(&row[2]) == of_day.micros());
    let count = own.clone().filter(|row| row[1].as_deref() != Some("")).count();
    let sums = own.fold([0, 0], |[used, held], row| [used + int(&row[3]), held + int(&row[4])]);
    let values = values.iter().filter(of_tenant).find(|row| int(&row[1]) == of_day.micros());
    (count, values.map_or(0, |row| int(&row[2])), sums)
}

/// Uses 60 values from all nodes at once; returns the calls that are used and held.
async fn use_values(
    nodes: &Nodes,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    name: &str,
) -> [i64; 2] {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (Node { ledger, .. }, name) = (nodes.node(task), name.to_owned());
        tasks.spawn(async move {
            let [mut used, mut held] = [0, 0];
            for number in 0..6 {
                let call = format!("{name} {task} {number}");
                let agent = format!("agent {}", (task * 7 + number * 11) % 60);
                let asked = by_agent(integration_id, &agent, &call);
                assert_eq!(refusal(&ledger, tenant_id, asked).await, None);
                match number % 3 {
                    0 => {
                        let agent_id = Some(agent.into());
                        let record = Usage { agent_id, ..usage(integration_id, &call) };
                        let outcome = ledger.record(tenant_id, vec![record]).await.unwrap();
                        assert!(matches!(outcome.as_slice(), [RecordOutcome::Accepted(_)]));
                        used += 1;
                    }
                    1 => {
                        let outcome = ledger.release(tenant_id, call_id(&call), None).await;
                        assert!(matches!(outcome, Ok(ReleaseOutcome::Released(_))), "{outcome:?}");
                    }
                    _ => held += 1,
                }
            }
            [used, held]
        });
    }
    let all = tasks.join_all().await;
    all.into_iter().fold([0, 0], |sum, one| [sum[0] + one[0], sum[1] + one[1]])
}

async fn new_values_from_all_sides_do_not_exceed_the_cap(database: NewDatabase, count: usize) {
    let caps = Caps { values_per_limit: VALUES_MAX as i64, ..Caps::DEFAULT };
    let nodes = Nodes::new(database, count, &noop_observer(), caps);
    for round in 0..scale(1, 10) {
        let (tenant_id, integration_id) = nodes.account().await;
        let row = limit(tenant_id, 1, each(Label::Agent), calls(daily(), 1_000_000));
        put_limits(&nodes.node(0).ledger, vec![row]).await;
        for of_day in [1, 2].map(|of_round| day(2026, 5, 2 * round + of_round)) {
            nodes.clock.set(of_day.plus_seconds(36_000));
            let calls = use_values(&nodes, tenant_id, integration_id, &format!("{of_day:?}")).await;
            let (count, values, sums) = accounts_of(&nodes, tenant_id, of_day);
            assert_eq!((count, values), (VALUES_MAX, VALUES_MAX as i64), "{of_day:?}");
            assert_eq!(sums, calls, "{of_day:?}");
        }
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_values_from_three_nodes_do_not_exceed_the_cap() {
    new_values_from_all_sides_do_not_exceed_the_cap(POSTGRES, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_values_do_not_exceed_the_cap_on_a_file() {
    new_values_from_all_sides_do_not_exceed_the_cap(SQLITE, 1).await;
}

/// A node whose time is a little behind must not begin the old period again, nor miss the account
/// that further values share.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_counts_values_in_the_period_that_another_began() {
    const CAPS: Caps = Caps { values_per_limit: 3, ..Caps::DEFAULT };
    let mut nodes = Nodes::new(POSTGRES, 1, &noop_observer(), CAPS);
    let (tenant_id, integration_id) = nodes.account().await;
    // The nodes share no account of an integration, which would tell the time of the last decision.
    let other = nodes.integration(tenant_id, "other").await;
    let row = limit(tenant_id, 1, each(Label::Agent), calls(daily(), 100));
    put_limits(&nodes.node(0).ledger, vec![row]).await;
    let midnight = day(2026, 3, 15);
    nodes.clock.set(Timestamp::from_micros(midnight.micros() - 1_000_000).unwrap());
    let ahead = TestClock::default();
    ahead.set(midnight.plus_seconds(1));
    nodes.add(&ahead, &noop_observer(), CAPS);
    let (behind, ahead) = (nodes.node(0).ledger, nodes.node(1).ledger);
    let first = by_agent(integration_id, "a", "1");
    assert_eq!(refusal(&behind, tenant_id, first).await, None);
    for agent in ["x", "y"] {
        assert_eq!(refusal(&ahead, tenant_id, by_agent(other, agent, agent)).await, None);
    }
    let record = |agent: &str, call: &str| Usage {
        agent_id: Some(agent.into()),
        ..usage(integration_id, call)
    };
    // One value is new for the old day, and both are new for the day that has begun.
    let both = vec![record("a", "2"), record("c", "3")];
    let outcomes = behind.record(tenant_id, both).await.unwrap();
    assert!(outcomes.iter().all(|one| matches!(one, RecordOutcome::Accepted(_))), "{outcomes:?}");
    assert_eq!(accounts_of(&nodes, tenant_id, midnight), (3, 3, [2, 2]));
    nodes.close().await;
}
