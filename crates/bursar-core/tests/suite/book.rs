//! What a book requires and reports: missing figures are errors, and all changes are reported.

#![expect(clippy::unwrap_used, reason = "a test names what it loads and reserves")]
#![expect(clippy::indexing_slicing, reason = "a test knows the commands of its group")]

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{
    Book, Call, Caps, Counter, Hold, HoldChange, Loaded, Month, Nanos, Overflow, RecordRefusal,
    ReservationCap, ReserveRefusal, ReserveRequest, TenantSums, Timestamp, Totals, UtcCalendar,
};

use crate::support::script::{
    OutcomeKind, Shown, check, extend, record, release, reserve, step, storage,
};
use crate::support::storage::{Storage, Submission, key_of};
use crate::support::{
    NONE, at, call_id, cents, day, entry, integration, now, october, shifted, tenant,
};

fn held() -> [Shown; 1] {
    [Shown { month: october(), used: (0, 0, 0), held: (10, 100, 1) }]
}

fn as_is(_: &mut ReserveRequest) {}

/// Integration 1 without limits, with these totals in October.
fn preset(used: Totals, held: Totals) -> Storage {
    let mut storage = storage(NONE);
    let counter = Counter { used, held, ..Counter::default() };
    storage.set_counter(integration(1), october(), counter);
    storage
}

#[test]
fn a_hold_that_does_not_fit_its_total_is_refused_and_changes_nothing() {
    let none = Totals::default();
    let full = |totals: Totals, refusal: ReserveRefusal| {
        let storage = preset(none, totals);
        let group = [reserve("a", as_is)];
        let mut book = storage.load(now(), &group).unwrap();
        let outcome = book.apply(tenant(1), group[0].key(), group[0].command(entry(1))).unwrap();
        assert_eq!(OutcomeKind::of(&outcome), OutcomeKind::Rejected(refusal));
        assert_unchanged(&book);
        let account = &book.accounts()[&integration(1)];
        assert_eq!(account.counter(october()).unwrap().held, totals);
    };
    let cost = Nanos::new(i64::MAX - cents(10).get() + 1);
    full(Totals { cost, ..none }, ReserveRefusal::TotalsOverflow);
    full(Totals { tokens: i64::MAX - 99, ..none }, ReserveRefusal::TotalsOverflow);
    let fits = Totals {
        cost: Nanos::new(i64::MAX - cents(10).get()),
        tokens: i64::MAX - 100,
        calls: 50_000,
    };
    let group = [reserve("a", as_is)];
    let storage = preset(none, fits);
    let mut book = storage.load(now(), &group).unwrap();
    let outcome = book.apply(tenant(1), group[0].key(), group[0].command(entry(1))).unwrap();
    assert_eq!(OutcomeKind::of(&outcome), OutcomeKind::Held);
}

/// Checks the outcome of one more reservation of integration 1 at a later second, after `open`.
#[track_caller]
fn assert_capped(caps: Caps, open: &[Submission], second: i64, expected: OutcomeKind) {
    let mut storage = storage(NONE);
    let mut group = open.to_vec();
    let mut book = storage.load(now(), &group).unwrap();
    for (index, submission) in group.iter().enumerate() {
        book.apply(
            submission.tenant_id,
            submission.key(),
            submission.command(entry(index as i64 + 1)),
        )
        .unwrap();
    }
    storage.save(book);
    storage.caps = caps;
    group = vec![reserve("one more", as_is)];
    let mut book = storage.load(at(second), &group).unwrap();
    let outcome = book.apply(tenant(1), group[0].key(), group[0].command(entry(9))).unwrap();
    assert_eq!(OutcomeKind::of(&outcome), expected);
    if expected != OutcomeKind::Held {
        assert_unchanged(&book);
    }
}

#[test]
fn reservations_are_capped_by_integration_and_tenant_without_due_ones() {
    let caps = |reservations_per_integration, reservations_per_tenant| Caps {
        reservations_per_integration,
        reservations_per_tenant,
        ..Caps::DEFAULT
    };
    let here = |call: &str| reserve(call, as_is);
    let beside = |call: &str| reserve(call, |request| request.integration_id = integration(2));
    let too_many = |bound| OutcomeKind::Rejected(ReserveRefusal::TooManyOpen(bound));
    let open = [here("a"), here("b"), beside("c")];
    assert_capped(caps(3, 4), &open, 1, OutcomeKind::Held);
    assert_capped(caps(2, 9), &open, 1, too_many(ReservationCap::Integration(2)));
    assert_capped(caps(3, 3), &open, 1, too_many(ReservationCap::Tenant(3)));
    assert_capped(caps(2, 3), &open, 1, too_many(ReservationCap::Integration(2)));
    // The holds are due after 600 seconds, without a sweep.
    assert_capped(caps(2, 3), &open, 599, too_many(ReservationCap::Integration(2)));
    assert_capped(caps(1, 1), &open, 600, OutcomeKind::Held);
    let ended = [here("a"), here("b"), release("a", None), record("b", |_| {})];
    assert_capped(caps(1, 1), &ended, 1, OutcomeKind::Held);
    // A repeated request is replayed at the cap.
    assert_capped(caps(1, 1), &[here("one more")], 1, OutcomeKind::Replayed);
}

#[test]
fn a_record_beyond_the_daily_bytes_is_refused_unless_it_settles() {
    let mut storage = storage(NONE);
    let bytes = 400 + "a".len() + "openai".len() + "gpt".len();
    storage.caps.stored_bytes_per_day = 2 * bytes as i64;
    let refused = OutcomeKind::NotCounted(RecordRefusal::StoredBytesExceeded);
    let tomorrow = at(86_400);
    let steps = [
        step(now(), reserve("held", as_is), OutcomeKind::Held),
        step(now(), record("a", |_| {}), OutcomeKind::Accepted),
        step(now(), record("long", |_| {}), refused),
        step(now(), record("b", |_| {}), OutcomeKind::Accepted),
        step(now(), record("c", |_| {}), refused),
        step(now(), record("b", |_| {}), OutcomeKind::Duplicate),
        step(now(), record("held", |_| {}), OutcomeKind::Accepted),
        step(tomorrow, record("c", |_| {}), OutcomeKind::Accepted),
    ];
    check(&storage, &steps, 1, &[Shown { month: october(), used: (10, 120, 4), held: (0, 0, 0) }]);
}

#[track_caller]
fn assert_unchanged(book: &Book<'_>) {
    assert!(book.holds().is_empty() && book.entries().is_empty());
    assert!(book.calls().values().all(|call| !call.is_changed()));
    for account in book.accounts().values() {
        assert_eq!(account.changed_months().count(), 0);
        assert_eq!(account.rate.changed().count(), 0);
    }
}

#[test]
fn a_changed_month_has_the_instant_of_its_last_change() {
    /// Checks the months that one more command changes, and their instants.
    #[track_caller]
    fn check_changed(
        before: &Storage,
        now: Timestamp,
        submission: Submission,
        expected: &[(Month, Timestamp)],
    ) {
        let group = [submission];
        let mut book = before.load(now, &group).unwrap();
        let command = group[0].command(before.entry_id(0));
        book.apply(group[0].tenant_id, group[0].key(), command).unwrap();
        let mut changed: Vec<(Month, Timestamp)> = book.accounts()[&integration(1)]
            .changed_months()
            .map(|(month, counter)| (month, counter.last_at))
            .collect();
        changed.sort();
        assert_eq!(changed, expected);
    }
    let fresh = storage(NONE);
    check_changed(&fresh, now(), reserve("a", as_is), &[(october(), now())]);
    check_changed(&fresh, now(), record("a", |_| {}), &[(october(), now())]);
    let september = day(2026, 9, 30);
    let late = record("a", |usage| usage.occurred_at = Some(september));
    check_changed(&fresh, now(), late.clone(), &[(september.month(), now())]);

    let made = [step(now(), reserve("a", as_is), OutcomeKind::Held)];
    let reserved = check(&fresh, &made, 1, &held());
    check_changed(&reserved, at(5), release("a", None), &[(october(), at(5))]);
    check_changed(&reserved, at(5), extend("a", None, Some(900)), &[]);
    check_changed(&reserved, at(5), reserve("a", as_is), &[]);
    check_changed(&reserved, at(5), late, &[(september.month(), at(5)), (october(), at(5))]);
    check_changed(&reserved, at(600), extend("a", None, None), &[(october(), at(600))]);

    let ahead = Counter { last_at: at(9), ..Counter::default() };
    let mut later = storage(NONE);
    later.set_counter(integration(1), october(), ahead);
    check_changed(&later, now(), reserve("a", as_is), &[(october(), at(9))]);
}

#[test]
fn the_changes_of_holds_are_reported_in_order() {
    let group = [
        reserve("a", as_is),
        extend("a", None, Some(900)),
        reserve("b", as_is),
        record("b", |_| {}),
        release("a", None),
    ];
    let storage = storage(NONE);
    let mut book = storage.load(now(), &group).unwrap();
    for (index, submission) in group.iter().enumerate() {
        let command = submission.command(storage.entry_id(index));
        book.apply(submission.tenant_id, submission.key(), command).unwrap();
    }
    let a = Hold {
        tenant_id: tenant(1),
        call: key_of(&call_id("a")),
        integration_id: integration(1),
        month: october(),
        amount: Totals { cost: cents(10), tokens: 100, calls: 1 },
        expires_at: at(600),
        postings: Arc::default(),
    };
    let b = Hold { call: key_of(&call_id("b")), ..a.clone() };
    let changes = [
        HoldChange::Made(a.clone()),
        HoldChange::Extended { before: a.clone(), expires_at: at(900) },
        HoldChange::Made(b.clone()),
        HoldChange::Ended(b),
        HoldChange::Ended(Hold { expires_at: at(900), ..a }),
    ];
    assert_eq!(book.holds(), changes);
    let (_, _, published) = book.into_published();
    assert_eq!(published, changes);
}

#[test]
fn a_missing_figure_is_an_error_and_not_zero() {
    let made = [step(now(), reserve("a", as_is), OutcomeKind::Held)];
    let stored = check(&storage(NONE), &made, 1, &held());
    let reservation = stored.reservation(tenant(1), &call_id("a")).unwrap().clone();
    let hold = stored.holds()[0].clone();

    let open =
        |now: Timestamp, loaded: Loaded| Book::open(now, Caps::DEFAULT, &UtcCalendar, loaded);
    let due = vec![hold];
    let loaded = Loaded { due: due.clone(), ..Loaded::default() };
    assert!(open(at(600), loaded).is_err(), "the account of a due hold");
    let account = |months: &[Month]| {
        let account = stored.account(integration(1), months.to_vec(), at(600)).unwrap();
        HashMap::from([(integration(1), account)])
    };
    let loaded = Loaded { accounts: account(&[]), due: due.clone(), ..Loaded::default() };
    assert!(open(at(600), loaded).is_err(), "the month of a due hold");
    let with_month = Loaded { accounts: account(&[october()]), due, ..Loaded::default() };
    assert!(open(at(599), with_month.clone()).is_err(), "a hold that is not due");
    assert!(open(at(600), with_month).is_ok());
    let account = stored.account(integration(1), [], at(1)).unwrap();
    let accounts = HashMap::from([(integration(1), account)]);

    let call = Call::stored(call_id("a"), Some(reservation), None);
    let calls = HashMap::from([((tenant(1), key_of(&call_id("a"))), call)]);
    let fresh = (tenant(1), key_of(&call_id("new")));
    let mut calls_with_fresh = calls.clone();
    calls_with_fresh.insert(fresh, Call::fresh(call_id("new")));
    let tenants = HashMap::from([(tenant(1), TenantSums::default())]);
    let error = |accounts: &HashMap<_, _>, calls: &HashMap<_, _>, submission: &Submission| {
        let (accounts, calls) = (accounts.clone(), calls.clone());
        let loaded = Loaded { accounts, calls, tenants: tenants.clone(), ..Loaded::default() };
        let mut book = open(at(1), loaded).unwrap();
        book.apply(tenant(1), submission.key(), submission.command(entry(1)))
    };
    let none = HashMap::new();
    for submission in [
        reserve("new", as_is),
        record("new", |_| {}),
        release("new", None),
        extend("new", None, None),
    ] {
        assert_eq!(
            error(&accounts, &calls, &submission),
            Err(Overflow),
            "the call of {submission:?}"
        );
    }
    for submission in [reserve("new", as_is), record("new", |_| {}), record("a", |_| {})] {
        let outcome = error(&accounts, &calls_with_fresh, &submission);
        assert_eq!(outcome, Err(Overflow), "the month of {submission:?}");
    }
    let submission = release("a", None);
    assert_eq!(error(&none, &calls, &submission), Err(Overflow), "the account of a release");
    assert_eq!(error(&accounts, &calls, &submission), Err(Overflow), "the month of a release");
    let accounts = HashMap::from([(
        integration(1),
        stored.account(integration(1), [october()], at(1)).unwrap(),
    )]);
    let outcome = error(&accounts, &calls_with_fresh, &reserve("new", as_is));
    assert_eq!(outcome, Err(Overflow), "the open reservations of the tenant");
}

#[test]
fn a_settlement_without_the_month_of_its_hold_is_an_error() {
    let made = shifted(october().end(), -1);
    let steps = [step(made, reserve("a", as_is), OutcomeKind::Held)];
    let stored = check(&storage(NONE), &steps, 1, &held());
    let november = october().next();
    let account = stored.account(integration(1), [november], november.start()).unwrap();
    let reservation = stored.reservation(tenant(1), &call_id("a")).cloned();
    let submission = record("a", |usage| usage.occurred_at = Some(november.start()));
    let call = Call::stored(call_id("a"), reservation, None);
    let accounts = HashMap::from([(integration(1), account)]);
    let calls = HashMap::from([((tenant(1), submission.key()), call)]);
    let loaded = Loaded { accounts, calls, ..Loaded::default() };
    let mut book = Book::open(november.start(), Caps::DEFAULT, &UtcCalendar, loaded).unwrap();
    let outcome = book.apply(tenant(1), submission.key(), submission.command(entry(1)));
    assert_eq!(outcome, Err(Overflow));
}
