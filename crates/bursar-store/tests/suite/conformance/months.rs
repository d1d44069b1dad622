//! Months: in which month records and holds count, around its end and long after.

use bursar_core::{
    IntegrationId, Month, RecordOutcome, ReserveOutcome, ReserveRequest, TenantId, Totals, Usage,
};

use crate::conformance::subject::{Subject, earlier, totals, unlimited};
use crate::support::accounts::account_snapshot;
use crate::support::{budget, cents, day, request, usage};

type Account = (TenantId, IntegrationId);

fn month(year: i32, month: u8) -> Month {
    Month::from_civil(year, month).unwrap()
}

async fn record(subject: &Subject, account: Account, usage: Usage) {
    let recorded = subject.record(account.0, usage).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
}

async fn hold(subject: &Subject, account: Account, call: &str) {
    let requested = ReserveRequest { ttl_seconds: 86_400, ..request(account.1, call) };
    let held = subject.reserve(account.0, requested).await;
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
}

/// Used and held calls of a month.
async fn calls(subject: &Subject, account: Account, month: Month) -> (i64, i64) {
    let counter = subject.counter(account, month).await;
    (counter.used.calls, counter.held.calls)
}

pub(crate) async fn a_late_record_counts_in_its_own_month(subject: Subject) {
    let account = subject.account(unlimited()).await;
    for (number, at) in
        [day(2026, 2, 28), day(2025, 12, 31), day(2025, 12, 1), day(1970, 1, 1)].iter().enumerate()
    {
        let late = Usage {
            occurred_at: Some(at.plus_seconds(86_399)),
            ..usage(account.1, &format!("call {number}"))
        };
        record(&subject, account, late).await;
    }
    // A second record of a month that is not cached adds to the first.
    let again = Usage { occurred_at: Some(day(2025, 12, 7)), ..usage(account.1, "again") };
    record(&subject, account, again).await;
    let subject = subject.reopened().await;
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (0, 0));
    assert_eq!(calls(&subject, account, month(2026, 2)).await, (1, 0));
    assert_eq!(calls(&subject, account, month(2026, 1)).await, (0, 0));
    let december = subject.counter(account, month(2025, 12)).await;
    assert_eq!(december.used, totals(cents(3), 90, 3));
    assert_eq!(calls(&subject, account, month(1970, 1)).await, (1, 0));
    subject.world.verify().await;
}

pub(crate) async fn a_record_of_the_near_future_counts_in_the_next_month(subject: Subject) {
    let account = subject.account(budget(1)).await;
    let april = day(2026, 4, 1);
    subject.world.clock.set(earlier(april, 60));
    let ahead = Usage { occurred_at: Some(april.plus_seconds(60)), ..usage(account.1, "ahead") };
    record(&subject, account, ahead).await;
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (0, 0));
    assert_eq!(calls(&subject, account, month(2026, 4)).await, (1, 0));
    subject.world.clock.set(april);
    let refused = subject.reserve(account.0, request(account.1, "call")).await;
    assert!(matches!(refused, ReserveOutcome::Refused(_)), "April's cent is spent: {refused:?}");
    subject.world.verify().await;
}

pub(crate) async fn a_new_month_starts_with_nothing_used(subject: Subject) {
    let account = subject.account(budget(10)).await;
    let april = day(2026, 4, 1);
    subject.world.clock.set(earlier(april, 1));
    record(&subject, account, usage(account.1, "march")).await;
    let refused = subject.reserve(account.0, request(account.1, "call")).await;
    assert!(matches!(refused, ReserveOutcome::Refused(_)), "{refused:?}");
    subject.world.clock.set(april);
    let snapshot = subject.account_snapshot(account.0, account.1).await;
    assert_eq!(snapshot.account.counter(april.month()).unwrap().used, Totals::default());
    hold(&subject, account, "call").await;
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (1, 0));
    assert_eq!(calls(&subject, account, month(2026, 4)).await, (0, 1));
    subject.world.verify().await;
}

pub(crate) async fn a_hold_stays_in_the_month_in_which_it_was_made(subject: Subject) {
    let account = subject.account(budget(10)).await;
    let april = day(2026, 4, 1);
    subject.world.clock.set(earlier(april, 10));
    hold(&subject, account, "march").await;
    subject.world.clock.set(april);
    // March's hold takes nothing from April's budget, even extended and after a restart.
    hold(&subject, account, "april").await;
    subject.extend(account.0, "march", Some(86_400)).await;
    let subject = subject.reopened().await;
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (0, 1));
    assert_eq!(calls(&subject, account, month(2026, 4)).await, (0, 1));

    // Without an instant of its own the record counts when its reservation was made.
    record(&subject, account, usage(account.1, "march")).await;
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (1, 0));
    assert_eq!(calls(&subject, account, month(2026, 4)).await, (0, 1));
    subject.world.verify().await;
}

pub(crate) async fn a_record_that_names_another_month_counts_there(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let april = day(2026, 4, 1);
    subject.world.clock.set(earlier(april, 10));
    hold(&subject, account, "forth").await;
    subject.world.clock.set(april.plus_seconds(10));
    hold(&subject, account, "back").await;
    let forth = Usage { occurred_at: Some(april), ..usage(account.1, "forth") };
    record(&subject, account, forth).await;
    let back = Usage { occurred_at: Some(day(2026, 1, 1)), ..usage(account.1, "back") };
    record(&subject, account, back).await;
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (0, 0));
    assert_eq!(calls(&subject, account, month(2026, 4)).await, (1, 0));
    assert_eq!(calls(&subject, account, month(2026, 1)).await, (1, 0));
    subject.world.verify().await;
}

pub(crate) async fn a_hold_of_last_month_expires_from_last_month(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let april = day(2026, 4, 1);
    subject.world.clock.set(earlier(april, 10));
    hold(&subject, account, "swept").await;
    subject.world.clock.set(april);
    hold(&subject, account, "april").await;
    // Months later March is not cached.
    subject.world.clock.set(day(2026, 9, 1));
    let snapshot = account_snapshot(&subject.world.store, account.0, account.1).await;
    assert!(snapshot.is_none_or(|at| at.account.counter(at.now.month()).is_ok()));
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 0);
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (0, 0));
    assert_eq!(calls(&subject, account, month(2026, 4)).await, (0, 0));
    subject.world.verify().await;
}

pub(crate) async fn a_hold_of_last_month_expires_at_a_start_months_later(subject: Subject) {
    let account = subject.account(unlimited()).await;
    hold(&subject, account, "march").await;
    subject.world.clock.set(day(2026, 9, 1));
    let subject = subject.reopened().await;
    hold(&subject, account, "september").await;
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(subject.stored_holds(account), 1);
    assert_eq!(calls(&subject, account, month(2026, 3)).await, (0, 0));
    assert_eq!(calls(&subject, account, month(2026, 9)).await, (0, 1));
    subject.world.verify().await;
}
