//! Many reservations expire at once: they stop counting at that instant, and their removal delays
//! no other tenant.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bursar_core::{IntegrationId, LimitSettings, ReserveOutcome, ReserveRequest, TenantId, Totals};
use bursar_store::{Facts, Observer, SweepOutcome, TransactionTiming};
use tokio::task::JoinSet;

use crate::support::accounts::account_snapshot;
use crate::support::{NewDatabase, SQLITE, World, request, usage};

/// The limit on the reservations that one sweep removes.
const STEP_MAX: u64 = 500;
const INTEGRATIONS: usize = 4;
const TASKS: usize = 64;
/// The limit on the 99th percentile of another tenant's records, in a long run with one writer.
const RECORD_P99_MAX: Duration = Duration::from_millis(50);
/// The limit on the longest group in a long run.
const GROUP_MAX: Duration = Duration::from_millis(50);

/// The most holds that one transaction removed, and the longest transaction.
#[derive(Default)]
struct Longest {
    expired: AtomicU64,
    micros: AtomicU64,
}

impl Observer for Longest {
    fn committed(&self, timing: TransactionTiming) {
        let micros = u64::try_from(timing.transaction.as_micros()).unwrap();
        self.micros.fetch_max(micros, Ordering::SeqCst);
    }

    fn written(&self, facts: &Facts<'_>) {
        self.expired.fetch_max(facts.holds.expired, Ordering::SeqCst);
    }
}

fn is_long() -> bool {
    std::env::var_os("BURSAR_PROVE").is_some()
}

/// Reserves `count` calls for a minute, spread over integrations.
async fn reserve_all(
    world: &Arc<World>,
    tenant_id: TenantId,
    integrations: &[IntegrationId],
    count: usize,
) {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (world, integrations) = (Arc::clone(world), integrations.to_vec());
        tasks.spawn(async move {
            for call in (task..count).step_by(TASKS) {
                let integration_id = *integrations.get(call % INTEGRATIONS).unwrap();
                let request = request(integration_id, &format!("call {call}"));
                let request = ReserveRequest { ttl_seconds: 60, ..request };
                let outcome = world.ledger.reserve(tenant_id, request).await.unwrap();
                assert!(matches!(outcome, ReserveOutcome::Held(_)), "{outcome:?}");
            }
        });
    }
    tasks.join_all().await;
}

/// Sweeps until nothing is due, and returns the number of sweeps.
async fn sweep_all(world: &World) -> u64 {
    let mut steps = 1;
    while world.ledger.sweep().await.unwrap() == SweepOutcome::Partial {
        steps += 1;
    }
    steps
}

async fn holds_that_expire_together_are_removed_in_steps(database: NewDatabase) {
    let longest = Arc::new(Longest::default());
    let observer = Arc::clone(&longest) as Arc<dyn Observer>;
    let world = Arc::new(World::observed(database, Arc::new(|writer| writer), observer));
    let count = if is_long() { 150_000 } else { 6_000 };
    let none = LimitSettings::default();
    let tenant_id = world.tenant("many").await;
    let mut integrations = Vec::new();
    for name in ["a", "b", "c", "d"] {
        integrations.push(world.integration(tenant_id, name, none).await);
    }
    let other = world.tenant("other").await;
    let of_other = world.integration(other, "integration", none).await;
    reserve_all(&world, tenant_id, &integrations, count).await;
    let month = world.clock.now().month();

    world.clock.advance(61);
    longest.micros.store(0, Ordering::SeqCst);
    // A command on the account does not wait for the due holds, and leaves them.
    let first = *integrations.first().unwrap();
    let outcome = world.ledger.reserve(tenant_id, request(first, "fresh")).await.unwrap();
    assert!(matches!(outcome, ReserveOutcome::Held(_)), "{outcome:?}");
    assert_eq!(longest.expired.load(Ordering::SeqCst), 0);
    let snapshot = account_snapshot(&world.store, tenant_id, first).await.unwrap();
    assert_eq!(snapshot.account.counter(month).unwrap().held.calls, 1);

    let sweeping = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { sweep_all(&world).await })
    };
    let mut waited = Vec::new();
    while !sweeping.is_finished() {
        let began = Instant::now();
        let record = usage(of_other, &format!("record {}", waited.len()));
        world.ledger.record(other, vec![record]).await.unwrap();
        waited.push(began.elapsed());
    }
    let steps = sweeping.await.unwrap();
    waited.sort_unstable();
    let p99 = waited.get(waited.len() * 99 / 100).copied().unwrap_or_default();
    let group = Duration::from_micros(longest.micros.load(Ordering::SeqCst));
    let records = waited.len();
    println!("{count} in {steps} steps: group {group:?}, {records} records, p99 {p99:?}");

    assert!(longest.expired.load(Ordering::SeqCst) <= STEP_MAX);
    assert!(steps >= count as u64 / STEP_MAX, "{steps} steps");
    assert!(records as u64 >= steps / 2, "{records} records in {steps} steps");
    if is_long() {
        assert!(group <= GROUP_MAX && p99 <= RECORD_P99_MAX, "group {group:?}, p99 {p99:?}");
    }
    // The rows of the expired holds have ended too.
    let stored = "select integration_id, expires_at from reservations where state = 1";
    assert_eq!(world.database.rows(&[stored]).remove(0).len(), 1);
    for integration_id in integrations {
        let shown = world.store.counter(tenant_id, integration_id, month).await.unwrap();
        let open = Totals { calls: i64::from(integration_id == first), ..shown.held };
        assert_eq!(shown.held, open);
    }
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_removes_holds_that_expire_together_in_steps() {
    holds_that_expire_together_are_removed_in_steps(SQLITE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_removes_holds_that_expire_together_in_steps() {
    holds_that_expire_together_are_removed_in_steps(crate::support::postgres_database::POSTGRES)
        .await;
}
