//! The periods of limits: what counts before and after their edges.

use bursar_core::{
    CalendarUnit, IntegrationId, OwnedSubject, RecordOutcome, ReserveRequest, Scope, TenantId,
    Timestamp, Usage, Window,
};

use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::limits::{
    LimitSums, calendar, calls, cost, daily, limit, limit_sums, put_limits, refusal,
};
use crate::support::{day, request, usage};

/// A tenant whose limits are about all its calls.
async fn limited(
    subject: &Subject,
    bounds: impl IntoIterator<Item = bursar_core::Bound>,
) -> (TenantId, IntegrationId) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let rows = bounds.into_iter().zip(1..);
    let rows = rows.map(|(bound, number)| limit(tenant_id, number, Scope::Tenant, bound));
    put_limits(&subject.world.ledger, rows.collect()).await;
    (tenant_id, integration_id)
}

async fn sums(
    subject: &Subject,
    (tenant_id, integration_id): (TenantId, IntegrationId),
) -> Vec<LimitSums> {
    let of = OwnedSubject::new(integration_id);
    limit_sums(subject.world.store.as_ref(), tenant_id, &of).await
}

async fn is_held(subject: &Subject, account: (TenantId, IntegrationId), call: &str) -> bool {
    hold(subject, account, request(account.1, call)).await
}

async fn hold(
    subject: &Subject,
    account: (TenantId, IntegrationId),
    request: ReserveRequest,
) -> bool {
    refusal(&subject.world.ledger, account.0, request).await.is_none()
}

async fn record(subject: &Subject, tenant_id: TenantId, usage: Usage) {
    let recorded = subject.record(tenant_id, usage).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
}

/// Eleven in the evening of UTC, when a day begins in Berlin.
fn berlin_midnight() -> Timestamp {
    day(2026, 3, 14).plus_seconds(23 * 3_600)
}

pub(crate) async fn a_period_that_ends_during_a_call_begins_with_nothing_held(subject: Subject) {
    let berlin = calendar(CalendarUnit::Day, "Europe/Berlin");
    let account = limited(&subject, [cost(daily(), 20), cost(berlin, 10)]).await;
    subject.world.clock.set(earlier(berlin_midnight(), 1));
    for call in ["recorded", "refused"] {
        assert_eq!(is_held(&subject, account, call).await, call == "recorded");
    }
    assert_eq!(sums(&subject, account).await, [(1, 0, 10), (2, 0, 10)]);
    subject.world.clock.set(berlin_midnight());
    assert_eq!(sums(&subject, account).await, [(1, 0, 10), (2, 0, 0)]);
    // The call was made on the day before in Berlin, and on this day in UTC.
    record(&subject, account.0, usage(account.1, "recorded")).await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0), (2, 0, 0)]);
    let long = ReserveRequest { ttl_seconds: 7_200, ..request(account.1, "released") };
    assert!(hold(&subject, account, long).await);
    assert!(!is_held(&subject, account, "refused").await);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 10), (2, 0, 10)]);

    subject.world.clock.set(day(2026, 3, 15));
    assert_eq!(sums(&subject, account).await, [(1, 0, 0), (2, 0, 10)]);
    // A hold ends with its period, and is not taken from the next one.
    let named = Usage { occurred_at: Some(day(2026, 3, 15)), ..usage(account.1, "of today") };
    record(&subject, account.0, named).await;
    subject.release(account.0, "released").await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0), (2, 1, 0)]);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0), (2, 1, 0)]);
    subject.world.verify().await;
}

pub(crate) async fn a_record_of_an_earlier_period_moves_no_limit(subject: Subject) {
    let account = limited(&subject, [cost(daily(), 20), calls(Window::Minute, 5)]).await;
    let yesterday = earlier(day(2026, 3, 14), 1);
    let late = Usage { occurred_at: Some(yesterday), ..usage(account.1, "late") };
    record(&subject, account.0, late).await;
    assert_eq!(sums(&subject, account).await, [(1, 0, 0), (2, 0, 0)]);
    let this_morning = day(2026, 3, 14);
    let early = Usage { occurred_at: Some(this_morning), ..usage(account.1, "early") };
    record(&subject, account.0, early).await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0), (2, 0, 0)]);
}

pub(crate) async fn a_hold_of_an_ended_period_expires_without_a_trace(subject: Subject) {
    let account = limited(&subject, [cost(daily(), 20)]).await;
    subject.world.clock.set(earlier(day(2026, 3, 15), 1));
    assert!(is_held(&subject, account, "old").await);
    subject.world.clock.set(day(2026, 3, 15));
    assert!(is_held(&subject, account, "new").await);
    subject.world.clock.advance(599);
    let subject = subject.reopened().await;
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(sums(&subject, account).await, [(1, 0, 10)]);
    subject.world.clock.advance(1);
    subject.world.ledger.sweep().await.unwrap();
    assert_eq!(sums(&subject, account).await, [(1, 0, 0)]);
    subject.world.verify().await;
}

pub(crate) async fn a_call_counts_for_a_minute_from_its_reservation_on(subject: Subject) {
    let account = limited(&subject, [calls(Window::Minute, 2), cost(Window::Minute, 20)]).await;
    let start = subject.world.clock.now();
    assert!(is_held(&subject, account, "first").await);
    subject.world.clock.set(start.plus_seconds(30));
    assert!(is_held(&subject, account, "second").await);
    assert!(!is_held(&subject, account, "refused").await);
    let subject = subject.reopened().await;
    assert!(!is_held(&subject, account, "refused").await);
    assert_eq!(sums(&subject, account).await, [(1, 0, 2), (2, 0, 20)]);
    record(&subject, account.0, usage(account.1, "first")).await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 1), (2, 1, 10)]);
    subject.world.clock.set(start.plus_seconds(59));
    assert_eq!(sums(&subject, account).await, [(1, 1, 1), (2, 1, 10)]);
    subject.world.clock.set(start.plus_seconds(60));
    assert_eq!(sums(&subject, account).await, [(1, 0, 1), (2, 0, 10)]);
    assert!(is_held(&subject, account, "third").await);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, account).await, [(1, 0, 2), (2, 0, 20)]);
    // The record of a call that left the window counts no more; the hold is gone.
    subject.world.clock.set(start.plus_seconds(100));
    record(&subject, account.0, usage(account.1, "second")).await;
    subject.release(account.0, "third").await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0), (2, 0, 0)]);
    let subject = subject.reopened().await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0), (2, 0, 0)]);
    subject.world.verify().await;
}

pub(crate) async fn a_total_counts_from_its_start_and_never_restarts(subject: Subject) {
    let starts_at = subject.world.clock.now().plus_seconds(10);
    let account = limited(&subject, [cost(Window::Total { starts_at }, 20)]).await;
    assert!(is_held(&subject, account, "before").await);
    assert_eq!(sums(&subject, account).await, []);
    subject.world.clock.set(starts_at);
    assert_eq!(sums(&subject, account).await, [(1, 0, 0)]);
    record(&subject, account.0, usage(account.1, "before")).await;
    let subject = subject.reopened().await;
    assert!(is_held(&subject, account, "after").await);
    record(&subject, account.0, usage(account.1, "after")).await;
    assert_eq!(sums(&subject, account).await, [(1, 1, 0)]);
    subject.world.clock.set(day(2027, 5, 1));
    assert_eq!(sums(&subject, account).await, [(1, 1, 0)]);
    assert!(is_held(&subject, account, "a year later").await);
    assert!(!is_held(&subject, account, "refused").await);
    assert_eq!(sums(&subject, account).await, [(1, 1, 10)]);
}
