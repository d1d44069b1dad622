//! Due holds: they count nowhere, and a sweep removes them.

use bursar_core::{
    IntegrationId, Measure, RecordOutcome, ReleaseOutcome, ReservationState, ReserveOutcome,
    ReserveRequest, TenantId, Timestamp, Totals,
};
use bursar_store::{Control, IntegrationEdit, SweepOutcome};

use crate::conformance::subject::{ALL, Subject, earlier, totals, unlimited};
use crate::support::accounts::account_snapshot;
use crate::support::{budget, cents, day, request, usage};

/// A hold of 10 cents for 60 seconds.
async fn hold(subject: &Subject, (tenant_id, integration_id): (TenantId, IntegrationId)) {
    let requested = ReserveRequest { ttl_seconds: 60, ..request(integration_id, "call") };
    let held = subject.reserve(tenant_id, requested).await;
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
}

/// Checks that the stored reservation expired at this instant.
async fn assert_expired_at(subject: &Subject, tenant_id: TenantId, at: Timestamp) {
    let released = subject.release(tenant_id, "call").await;
    let ReleaseOutcome::Expired(reservation) = released else { unreachable!("{released:?}") };
    assert_eq!(reservation.state, ReservationState::Expired);
    assert_eq!(reservation.ended_at, Some(at));
}

pub(crate) async fn a_due_hold_counts_in_no_read_before_and_after_the_sweep(subject: Subject) {
    let account = subject.account(budget(10)).await;
    let (tenant_id, integration_id) = account;
    hold(&subject, account).await;
    let now = subject.world.clock.now();
    let last = Timestamp::from_micros(now.plus_seconds(60).micros() - 1).unwrap();
    let store = &subject.world.store;
    for (at, expected) in
        [(last, totals(cents(10), 100, 1)), (now.plus_seconds(60), Totals::default())]
    {
        subject.world.clock.set(at);
        let snapshot = account_snapshot(store, tenant_id, integration_id).await.unwrap();
        assert_eq!(snapshot.now, at);
        assert_eq!(snapshot.account.counter(now.month()).unwrap().held, expected);
        let open = store.open_reservations(tenant_id, Some(integration_id), ALL).await.unwrap();
        assert_eq!(open.total, expected.calls);
    }
    // The amount is free again without a sweep.
    let second = subject.reserve(tenant_id, request(integration_id, "second")).await;
    assert!(matches!(second, ReserveOutcome::Held(_)), "{second:?}");
    subject.world.verify().await;
}

pub(crate) async fn a_due_hold_counts_in_no_month_and_no_gauge(subject: Subject) {
    let account = subject.account(budget(100)).await;
    let (tenant_id, integration_id) = account;
    let (march, april) = (day(2026, 3, 1).month(), day(2026, 4, 1));
    // Each month has a hold that ends 60 seconds after March, and one that lasts longer.
    for (at, calls) in [(earlier(april, 10), ["march", "march lasts"]), (april, ["a", "a lasts"])] {
        subject.world.clock.set(at);
        for call in calls {
            let until = april.plus_seconds(if call.ends_with("lasts") { 600 } else { 60 });
            let ttl_seconds = ((until.micros() - at.micros()) / 1_000_000) as u32;
            let requested = ReserveRequest { ttl_seconds, ..request(integration_id, call) };
            let held = subject.reserve(tenant_id, requested).await;
            assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
        }
    }
    subject.record(tenant_id, usage(integration_id, "used")).await;
    let shown = async |calls: i64| {
        let held = totals(cents(10 * calls), 100 * calls, calls);
        assert_eq!(subject.counter(account, march).await.held, held);
        assert_eq!(subject.counter(account, april.month()).await.held, held);
        let near_limits = subject.world.store.near_limits(1).await.unwrap()[0];
        assert_eq!(near_limits.counter, subject.this_month(account).await);
        let taken = i128::from(cents(1 + 10 * calls).get());
        assert_eq!(near_limits.state(Measure::Cost).map(|state| state.taken()), Some(taken));
    };
    let due = april.plus_seconds(60);
    subject.world.clock.set(Timestamp::from_micros(due.micros() - 1).unwrap());
    shown(2).await;
    subject.world.clock.set(due);
    shown(1).await;
    assert_eq!(subject.stored_holds(account), 4, "no sweep has run");
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 2);
    shown(1).await;
    subject.world.verify().await;
}

pub(crate) async fn a_due_hold_is_removed_by_a_sweep_or_for_its_own_call_only(subject: Subject) {
    let account = subject.account(budget(20)).await;
    let (tenant_id, integration_id) = account;
    for call in ["call", "other"] {
        let requested = ReserveRequest { ttl_seconds: 60, ..request(integration_id, call) };
        subject.reserve(tenant_id, requested).await;
    }
    let due = subject.world.clock.now().plus_seconds(60);
    subject.world.clock.advance(100);
    // It counts nowhere, but commands about other calls do not remove it.
    for call in ["first", "second"] {
        let held = subject.reserve(tenant_id, request(integration_id, call)).await;
        assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
    }
    assert_eq!(subject.stored_holds(account), 4);
    assert_eq!(subject.this_month(account).await.held.calls, 2);
    assert_expired_at(&subject, tenant_id, due).await;
    assert_eq!(subject.stored_holds(account), 3);
    assert_eq!(subject.this_month(account).await.held.calls, 2);
    subject.world.verify().await;
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 2);
    assert_eq!(subject.this_month(account).await.held.calls, 2);
    subject.world.verify().await;
}

pub(crate) async fn one_sweep_ends_a_limited_number_of_holds(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let subject = std::sync::Arc::new(subject);
    let mut tasks = tokio::task::JoinSet::new();
    for call in 0..600 {
        let subject = std::sync::Arc::clone(&subject);
        let call = format!("call-{call}");
        let requested = ReserveRequest { ttl_seconds: 60, ..request(integration_id, &call) };
        tasks.spawn(async move { subject.reserve(tenant_id, requested).await });
    }
    tasks.join_all().await;
    subject.world.clock.advance(60);
    assert_eq!(subject.world.ledger.sweep().await.unwrap(), SweepOutcome::Partial);
    assert_eq!(subject.stored_holds(account), 100, "stored and not counted");
    assert_eq!(subject.this_month(account).await.held, Totals::default());
    let held = subject.account_snapshot(tenant_id, integration_id).await;
    let held = held.account.counter(held.now.month()).unwrap().held;
    assert_eq!(held, Totals::default());
    assert_eq!(subject.world.ledger.sweep().await.unwrap(), SweepOutcome::Complete);
    assert_eq!(subject.stored_holds(account), 0);
    subject.world.verify().await;
}

pub(crate) async fn a_sweep_expires_holds_of_unused_accounts(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let other = subject.world.tenant("other").await;
    let other = (other, subject.world.integration(other, "integration", unlimited()).await);
    hold(&subject, account).await;
    hold(&subject, other).await;
    let due = subject.world.clock.now().plus_seconds(60);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.this_month(account).await.held.calls, 1, "it was not due");
    subject.world.clock.set(due);
    subject.world.ledger.sweep().await.unwrap();
    for account in [account, other] {
        assert_eq!(subject.stored_holds(account), 0);
        assert_expired_at(&subject, account.0, due).await;
    }
    subject.world.verify().await;
}

pub(crate) async fn a_hold_made_before_a_restart_expires_after_it(subject: Subject) {
    let account = subject.account(unlimited()).await;
    hold(&subject, account).await;
    let due = subject.world.clock.now().plus_seconds(60);
    let subject = subject.reopened().await;
    assert_eq!(subject.this_month(account).await.held.calls, 1);
    subject.world.clock.set(due);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 0);
    assert_expired_at(&subject, account.0, due).await;
    subject.world.verify().await;
}

pub(crate) async fn a_hold_that_was_due_before_the_restart_expires_at_the_start(subject: Subject) {
    let account = subject.account(unlimited()).await;
    hold(&subject, account).await;
    let due = subject.world.clock.now().plus_seconds(60);
    subject.world.clock.advance(3_600);
    let subject = subject.reopened().await;
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 0);
    assert_expired_at(&subject, account.0, due).await;
    subject.world.verify().await;
}

pub(crate) async fn an_extended_hold_expires_at_its_new_time(subject: Subject) {
    let account = subject.account(unlimited()).await;
    hold(&subject, account).await;
    let start = subject.world.clock.now();
    subject.world.clock.advance(30);
    subject.extend(account.0, "call", Some(300)).await;
    subject.world.clock.set(start.plus_seconds(60));
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.this_month(account).await.held.calls, 1);
    subject.world.clock.set(start.plus_seconds(330));
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 0);
    assert_expired_at(&subject, account.0, start.plus_seconds(330)).await;
    subject.world.verify().await;
}

pub(crate) async fn a_record_after_the_expiry_counts_in_full(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let start = subject.world.clock.now();
    hold(&subject, account).await;
    subject.world.clock.advance(3_600);
    let recorded = subject.record(account.0, usage(account.1, "call")).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
    let counter = subject.this_month(account).await;
    assert_eq!((counter.used, counter.held), (totals(cents(1), 30, 1), Totals::default()));
    // Without an instant of its own it counts when its reservation was made.
    assert_eq!(subject.entries(account.0).await[0].occurred_at, start);
    assert_expired_at(&subject, account.0, start.plus_seconds(60)).await;
    subject.world.verify().await;
}

pub(crate) async fn a_sweep_finds_the_holds_of_an_integration_that_changed(subject: Subject) {
    let account = subject.account(budget(100)).await;
    let (tenant_id, integration_id) = account;
    hold(&subject, account).await;
    let edit = IntegrationEdit { budget_limit_cents: Some(50), ..IntegrationEdit::default() };
    let change =
        move |control: &mut Control<'_>| control.update_integration(integration_id, edit.clone());
    subject.world.control(tenant_id, change).await.unwrap().unwrap();
    subject.world.clock.advance(3_600);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 0);
    subject.world.verify().await;
}

pub(crate) async fn a_hold_that_ended_stays_ended_when_the_clock_goes_back(subject: Subject) {
    let account = subject.account(budget(10)).await;
    hold(&subject, account).await;
    let start = subject.world.clock.now();
    subject.world.clock.advance(60);
    let next = subject.reserve(account.0, request(account.1, "next")).await;
    assert!(matches!(next, ReserveOutcome::Held(_)), "{next:?}");
    let decided_at = subject.world.clock.now();
    subject.world.clock.set(start);
    let subject = subject.reopened().await;
    let snapshot = account_snapshot(&subject.world.store, account.0, account.1).await;
    assert!(snapshot.unwrap().now >= decided_at);
    subject.world.verify().await;
}
