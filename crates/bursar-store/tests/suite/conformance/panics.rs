//! A panic in a read or a change fails only that call, and its connection is replaced.

use std::sync::Arc;

use bursar_core::RecordOutcome;
use bursar_store::{
    ControlTx, HistoryFilter, HistoryPart, ReadContext, ReadMemory, ReadMemoryError, Requester,
    StoreError,
};

use crate::conformance::subject::{ALL, Subject, unlimited};
use crate::support::faulty::{Fault, Faults, FaultyWriter, POISON};
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::{NewDatabase, World, usage};

/// More than the connections of any pool.
const MANY: usize = 24;

/// Panics in the middle of a read, when the result takes memory for its first row.
struct Panics;

impl ReadMemory for Panics {
    fn take(&self, _: usize) -> Result<(), ReadMemoryError> {
        unreachable!("a fault of the test");
    }

    fn give_back(&self, _: usize) {}
}

pub(crate) async fn a_read_that_panics_fails_alone_and_its_reader_is_replaced(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    subject.record(tenant_id, usage(integration_id, "call")).await;
    let filter = HistoryFilter::default;
    for requester in [Requester::Tenant, Requester::Operator] {
        let panics =
            subject.world.store.with_context(ReadContext { requester, memory: Arc::new(Panics) });
        for _ in 0..MANY {
            let read = panics.usage_history(tenant_id, filter(), HistoryPart::Whole(ALL)).await;
            assert!(matches!(read, Err(StoreError::Panicked)), "{read:?}");
        }
        let sound = subject.world.store.with_context(ReadContext::unlimited(requester));
        let reads = (0..MANY).map(|_| {
            let sound = Arc::clone(&sound);
            tokio::spawn(async move {
                sound.usage_history(tenant_id, filter(), HistoryPart::Whole(ALL)).await
            })
        });
        for read in reads.collect::<Vec<_>>() {
            assert_eq!(read.await.unwrap().unwrap().rows.len(), 1);
        }
    }
}

pub(crate) async fn a_change_that_panics_fails_alone_and_leaves_nothing(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    for number in 0..MANY {
        let change = move |tx: &mut dyn ControlTx| -> Result<(), StoreError> {
            let mut row = tx.tenant(tenant_id)?.unwrap();
            row.name = "half a change".to_owned();
            tx.put_tenant(&row)?;
            unreachable!("a fault of the test");
        };
        let changed = subject.world.ledger.change(tenant_id, change).await;
        assert!(matches!(changed, Err(StoreError::Panicked)), "{changed:?}");
        let recorded = subject.record(tenant_id, usage(integration_id, &number.to_string())).await;
        assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
    }
    let tenant = subject.world.store.tenant(tenant_id).await.unwrap().unwrap();
    assert_eq!(tenant.name, "tenant");
    assert!(!subject.world.ledger.has_ended());
    subject.world.verify().await;
}

/// A store whose writer panics as the test says.
fn panicking(database: NewDatabase) -> (World, Faults) {
    let faults = Faults::default();
    let of_writer = faults.clone();
    let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
    (World::wrapped(database, Arc::new(wrap)), faults)
}

/// A record makes these calls to the writer: ids, begin, load, save and commit.
async fn check_panic(
    database: NewDatabase,
    nth: usize,
    fault: Fault,
    expected: fn(&StoreError) -> bool,
) {
    let (world, faults) = panicking(database);
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", unlimited()).await;
    let record = || vec![usage(integration_id, "call")];
    faults.arm(nth, fault);
    let failed = world.ledger.record(tenant_id, record()).await.unwrap_err();
    assert!(!faults.disarm(), "call {nth} was not made");
    assert!(expected(&failed), "call {nth}: {failed:?}");
    let again = world.ledger.record(tenant_id, record()).await.unwrap();
    let is_kept = matches!(again.as_slice(), [RecordOutcome::Duplicate(_)]);
    assert_eq!(is_kept, nth == 5 && fault == Fault::PanicsLate, "call {nth}: {again:?}");
    world.verify().await;
}

async fn check_panics(database: NewDatabase) {
    for fault in [Fault::Panics, Fault::PanicsLate] {
        for nth in 2..=4 {
            check_panic(database, nth, fault, |error| matches!(error, StoreError::Panicked)).await;
        }
        // Outside a transaction and in its commit, the outcome is unknown.
        for nth in [1, 5] {
            let unknown = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
            check_panic(database, nth, fault, unknown).await;
        }
    }
}

#[tokio::test]
async fn a_writer_on_sqlite_continues_after_a_panic() {
    check_panics(crate::support::SQLITE).await;
}

#[tokio::test]
async fn a_writer_on_postgresql_continues_after_a_panic() {
    check_panics(crate::support::postgres_database::POSTGRES).await;
}

/// Two tenants record in one group, one of them more panicking records than a group retries.
async fn check_neighbours(database: NewDatabase) {
    let (world, _) = panicking(database);
    let (loud, quiet) = (world.tenant("loud").await, world.tenant("quiet").await);
    let of_loud = world.integration(loud, "loud", unlimited()).await;
    let of_quiet = world.integration(quiet, "quiet", unlimited()).await;
    let call = |number: usize| match number % 2 {
        0 => format!("{POISON} {number}"),
        _ => format!("good {number}"),
    };
    let calls: Vec<String> = (0..200).map(call).collect();
    let all = |of| calls.iter().map(move |call| usage(of, call)).collect::<Vec<_>>();
    let good: Vec<_> = (0..50).map(|number| usage(of_quiet, &format!("quiet {number}"))).collect();
    let ledger = &world.ledger;
    let commands: Vec<CommandFuture<'_, Result<Vec<RecordOutcome>, StoreError>>> = vec![
        Box::pin(ledger.record(quiet, good[..25].to_vec())),
        Box::pin(ledger.record(loud, all(of_loud))),
        Box::pin(ledger.record(quiet, good[25..].to_vec())),
    ];
    let mut results = in_one_group(ledger, quiet, commands).await;
    // Some records were not tried, so the whole batch can be repeated.
    let of_loud_batch = results.remove(1);
    assert!(matches!(of_loud_batch, Err(StoreError::Unavailable(_))), "{of_loud_batch:?}");
    for outcome in results.into_iter().flat_map(Result::unwrap) {
        assert!(matches!(outcome, RecordOutcome::Accepted(_)), "{outcome:?}");
    }
    let sent_again =
        calls.iter().filter(|call| !call.starts_with(POISON)).map(|call| usage(of_loud, call));
    for outcome in world.ledger.record(loud, sent_again.collect()).await.unwrap() {
        let is_kept = matches!(outcome, RecordOutcome::Accepted(_) | RecordOutcome::Duplicate(_));
        assert!(is_kept, "{outcome:?}");
    }
    world.verify().await;
}

#[tokio::test]
async fn panics_of_one_tenant_lose_no_record_of_another_on_sqlite() {
    check_neighbours(crate::support::SQLITE).await;
}

#[tokio::test]
async fn panics_of_one_tenant_lose_no_record_of_another_on_postgresql() {
    check_neighbours(crate::support::postgres_database::POSTGRES).await;
}
