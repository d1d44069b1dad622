//! Races for the last cent: concurrent requests never exceed a budget.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::task::Poll;

use bursar_core::{
    IntegrationId, LimitSettings, Month, Nanos, RecordOutcome, ReleaseOutcome, Reservation,
    ReserveOutcome, ReserveRequest, TenantId, Usage,
};
use bursar_store::{HistoryFilter, HistoryPart, Store, StoreError};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::support::accounts::account_snapshot;
use crate::support::{SQLITE, TestClock, World, budget, call_id, cents, day, request, usage};

const TASKS: usize = 64;
const REQUESTS: usize = 1_000;
/// Requests for 10 cents that a budget of 100 cents admits.
const FITTING: usize = 10;

/// A store that can be closed and reopened while tasks use it.
type Shared = Arc<RwLock<Option<World>>>;

/// Reserves, and repeats the request with the same call id if the store was closed meanwhile.
async fn reserve(shared: &Shared, tenant_id: TenantId, request: ReserveRequest) -> ReserveOutcome {
    loop {
        let ledger = shared.read().await.as_ref().unwrap().ledger.clone();
        match ledger.reserve(tenant_id, request.clone()).await {
            Ok(outcome) => return outcome,
            Err(StoreError::Closed) => tokio::task::yield_now().await,
            Err(error) => unreachable!("{error}"),
        }
    }
}

/// Makes 1,000 requests from all tasks, and returns the admitted reservations.
async fn reserve_all(
    shared: &Shared,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    before_request: impl Fn(usize) + Clone + Send + Sync + 'static,
) -> Vec<Reservation> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (shared, next, before_request) =
            (Arc::clone(shared), Arc::clone(&next), before_request.clone());
        tasks.spawn(async move {
            let mut held = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= REQUESTS {
                    return held;
                }
                before_request(number);
                let request = request(integration_id, &format!("{integration_id} {number}"));
                match reserve(&shared, tenant_id, request).await {
                    ReserveOutcome::Held(reservation) | ReserveOutcome::Replayed(reservation) => {
                        held.push(reservation);
                    }
                    ReserveOutcome::Refused(decision) => assert!(!decision.verdict.admits()),
                    ReserveOutcome::Rejected(refusal) => unreachable!("{refusal:?}"),
                }
            }
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_budget_for_ten_admits_ten() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let shared: Shared = Arc::new(RwLock::new(Some(world)));
    for round in 0..20 {
        let integration_id = {
            let world = shared.read().await;
            let name = format!("round {round}");
            world.as_ref().unwrap().integration(tenant_id, &name, budget(100)).await
        };
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let before_request = move |number: usize| {
            if number == 5 {
                let _ = started.send(());
            }
        };
        let requests = {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                reserve_all(&shared, tenant_id, integration_id, before_request).await
            })
        };
        // In these rounds the store is closed and reopened during the race.
        if round % 7 == 6 {
            starts.recv().await.unwrap();
            shared.read().await.as_ref().unwrap().ledger.close().await;
            let mut world = shared.write().await;
            let reopened = world.take().unwrap().reopened().await;
            *world = Some(reopened);
        }
        let held = requests.await.unwrap();
        assert_eq!(held.len(), FITTING, "round {round}");
        let calls: BTreeSet<&str> = held.iter().map(|held| held.request.call_id.as_str()).collect();
        assert_eq!(calls.len(), FITTING, "round {round}");
        let world = shared.read().await;
        let store = &world.as_ref().unwrap().store;
        let month = store.now().month();
        let counter = store.counter(tenant_id, integration_id, month).await.unwrap();
        assert_eq!(counter.held.cost, cents(100), "round {round}");
    }
    let world = shared.write().await.take().unwrap();
    world.verify().await;
    world.reopened().await.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_month_that_begins_during_a_race_has_a_budget_of_its_own() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(100)).await;
    let april = day(2026, 4, 1);
    let clock: TestClock = world.clock.clone();
    clock.set(bursar_core::Timestamp::from_micros(april.micros() - 1).unwrap());
    let shared: Shared = Arc::new(RwLock::new(Some(world)));
    let before_request = move |number: usize| {
        if number == REQUESTS / 2 {
            clock.set(april);
        }
    };
    let held = reserve_all(&shared, tenant_id, integration_id, before_request).await;
    let of = |month: Month| held.iter().filter(|held| held.created_at.month() == month).count();
    assert_eq!((of(april.month()), held.len()), (FITTING, 2 * FITTING));
    let world = shared.write().await.take().unwrap();
    for month in [Month::from_civil(2026, 3).unwrap(), april.month()] {
        let counter = world.store.counter(tenant_id, integration_id, month).await.unwrap();
        assert_eq!(counter.held.cost, cents(100), "{month}");
    }
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_released_amount_is_admitted_once() {
    let world = Arc::new(World::new(SQLITE));
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(100)).await;
    let (inside, admitted) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (world, inside, admitted) =
            (Arc::clone(&world), Arc::clone(&inside), Arc::clone(&admitted));
        tasks.spawn(async move {
            for number in 0..15 {
                let call = format!("{task} {number}");
                let outcome = world.ledger.reserve(tenant_id, request(integration_id, &call)).await;
                if !matches!(outcome.unwrap(), ReserveOutcome::Held(_)) {
                    continue;
                }
                // Between the outcome and the release, the amount is certainly held.
                let taken = inside.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(taken <= FITTING as i64, "{taken} at once");
                admitted.fetch_add(1, Ordering::SeqCst);
                let seen = taken_cost(&world.store, tenant_id, integration_id).await;
                assert!(seen <= cents(100), "readers saw {seen:?} held and used");
                inside.fetch_sub(1, Ordering::SeqCst);
                let released = world.ledger.release(tenant_id, call_id(&call), None).await.unwrap();
                assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
            }
        });
    }
    tasks.join_all().await;
    assert!(admitted.load(Ordering::SeqCst) > FITTING);
    assert_eq!(taken_cost(&world.store, tenant_id, integration_id).await, Nanos::ZERO);
    world.verify().await;
}

/// Held plus used cost, as a reader sees them.
async fn taken_cost(store: &Arc<dyn Store>, tenant: TenantId, integration: IntegrationId) -> Nanos {
    let snapshot = account_snapshot(store, tenant, integration).await.unwrap();
    let counter = snapshot.account.counter(snapshot.now.month()).unwrap();
    counter.held.cost.checked_add(counter.used.cost).unwrap()
}

/// Runs the same thing 20 times at once.
async fn twenty_times<T: Send + 'static, F>(run: impl Fn(i64) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        tasks.spawn(run(number));
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_id_sent_twenty_times_at_once_is_one_entry() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id =
        world.integration(tenant_id, "integration", LimitSettings::default()).await;
    for round in 0..10 {
        let sent = usage(integration_id, &format!("call {round}"));
        let ledger = world.ledger.clone();
        let outcomes = twenty_times(move |_| {
            let (ledger, sent) = (ledger.clone(), sent.clone());
            async move { ledger.record(tenant_id, vec![sent]).await.unwrap().remove(0) }
        })
        .await;
        let mut ids = BTreeSet::new();
        let mut accepted = 0;
        for outcome in outcomes {
            match outcome {
                RecordOutcome::Accepted(entry_id) => {
                    accepted += 1;
                    ids.insert(entry_id);
                }
                RecordOutcome::Duplicate(entry_id) => {
                    ids.insert(entry_id);
                }
                RecordOutcome::Conflict | RecordOutcome::Refused(_) => unreachable!("{outcome:?}"),
            }
        }
        assert_eq!((accepted, ids.len()), (1, 1), "round {round}");
    }
    let page = HistoryPart::UpTo(100);
    let rows =
        world.store.usage_history(tenant_id, HistoryFilter::default(), page).await.unwrap().rows;
    assert_eq!(rows.len(), 10);
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_contents_of_one_call_id_one_is_recorded() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id =
        world.integration(tenant_id, "integration", LimitSettings::default()).await;
    let ledger = world.ledger.clone();
    let outcomes = twenty_times(move |number| {
        let ledger = ledger.clone();
        let sent = Usage { cost: Some(cents(number)), ..usage(integration_id, "call") };
        async move { ledger.record(tenant_id, vec![sent]).await.unwrap().remove(0) }
    })
    .await;
    let accepted = outcomes.iter().filter(|one| matches!(one, RecordOutcome::Accepted(_))).count();
    let conflicts = outcomes.iter().filter(|one| **one == RecordOutcome::Conflict).count();
    assert_eq!((accepted, conflicts), (1, 19));
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reservation_sent_twenty_times_at_once_holds_once() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(100)).await;
    let ledger = world.ledger.clone();
    let outcomes = twenty_times(move |_| {
        let ledger = ledger.clone();
        async move { ledger.reserve(tenant_id, request(integration_id, "call")).await.unwrap() }
    })
    .await;
    let mut reservations = Vec::new();
    let mut held = 0;
    for outcome in outcomes {
        match outcome {
            ReserveOutcome::Held(reservation) => {
                held += 1;
                reservations.push(reservation);
            }
            ReserveOutcome::Replayed(reservation) => reservations.push(reservation),
            other @ (ReserveOutcome::Refused(_) | ReserveOutcome::Rejected(_)) => {
                unreachable!("{other:?}")
            }
        }
    }
    assert_eq!((held, reservations.len()), (1, 20));
    assert!(reservations.windows(2).all(|pair| pair.first() == pair.last()), "they differ");
    let cost = taken_cost(&world.store, tenant_id, integration_id).await;
    assert_eq!(cost, cents(10));
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reservation_ends_once_whatever_ends_it_first() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(100)).await;
    for round in 0..20 {
        let call = format!("call {round}");
        let request = ReserveRequest { ttl_seconds: 60, ..request(integration_id, &call) };
        let held = world.ledger.reserve(tenant_id, request).await.unwrap();
        assert!(matches!(held, ReserveOutcome::Held(_)), "round {round}: {held:?}");
        let (ledger, clock) = (world.ledger.clone(), world.clock.clone());
        let free = Usage { cost: Some(Nanos::ZERO), ..usage(integration_id, &call) };
        twenty_times(move |number| {
            let (ledger, clock) = (ledger.clone(), clock.clone());
            let (call, free) = (call_id(&call), free.clone());
            async move {
                if number == 10 && round % 2 == 0 {
                    clock.advance(60);
                }
                if number % 2 == 0 {
                    ledger.release(tenant_id, call, None).await.map(|_| ()).unwrap();
                } else {
                    ledger.record(tenant_id, vec![free]).await.map(|_| ()).unwrap();
                }
            }
        })
        .await;
        let cost = taken_cost(&world.store, tenant_id, integration_id).await;
        assert_eq!(cost, Nanos::ZERO, "round {round}");
        world.verify().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_closing_ledger_stores_exactly_what_it_acknowledged() {
    let mut world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id =
        world.integration(tenant_id, "integration", LimitSettings::default()).await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for task in 0..100 {
            let ledger = world.ledger.clone();
            let sent = usage(integration_id, &format!("{round} {task}"));
            tasks.spawn(async move {
                let outcome = ledger.record(tenant_id, vec![sent.clone()]).await;
                (sent.call_id.as_str().to_owned(), outcome)
            });
        }
        // Some have their outcome, some wait, and some have not been submitted.
        let first = tasks.join_next().await.unwrap().unwrap();
        world.ledger.close().await;
        for (call, outcome) in tasks.join_all().await.into_iter().chain([first]) {
            match outcome.as_deref() {
                Ok([RecordOutcome::Accepted(_)]) => assert!(acknowledged.insert(call)),
                Err(StoreError::Closed) => {}
                other => unreachable!("{call}: {other:?}"),
            }
        }
        world = world.reopened().await;
        let page = HistoryPart::UpTo(10_000);
        let rows = world.store.usage_history(tenant_id, HistoryFilter::default(), page).await;
        let stored: BTreeSet<String> =
            rows.unwrap().rows.into_iter().map(|row| row.call_id).collect();
        assert_eq!(acknowledged, stored, "acknowledged (left) and stored (right), round {round}");
    }
    world.verify().await;
}

#[tokio::test]
async fn a_record_is_stored_even_if_its_caller_stops_waiting() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id =
        world.integration(tenant_id, "integration", LimitSettings::default()).await;
    let sent = usage(integration_id, "call");
    let mut waiting = Box::pin(world.ledger.record(tenant_id, vec![sent.clone()]));
    // The first poll submits the record.
    poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_ready())).await;
    drop(waiting);
    let again = world.ledger.record(tenant_id, vec![sent]).await.unwrap();
    assert!(matches!(again.as_slice(), [RecordOutcome::Duplicate(_)]), "{again:?}");
    world.verify().await;
}
