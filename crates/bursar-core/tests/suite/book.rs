//! What a book demands, and what it tells: nothing missing counts as zero, no change is left out.

#![expect(clippy::unwrap_used, reason = "a test names what it loads and reserves")]
#![expect(clippy::indexing_slicing, reason = "a group of a test has what was put into it")]

use std::collections::HashMap;

use bursar_core::{
    Book, Call, Caps, Counter, Hold, HoldChange, LimitSettings, Loaded, Month, Nanos, Overflow,
    RecordRefusal, ReservationCap, ReserveRefusal, ReserveRequest, TenantSums, Timestamp, Totals,
};

use crate::support::script::{
    Answer, Shown, check, extend, record, release, reserve, step, storage,
};
use crate::support::storage::{Asked, Storage, key_of};
use crate::support::{call_id, cents, day, entry, integration, seconds, shifted, tenant};

const NONE: LimitSettings =
    LimitSettings { budget_limit_cents: 0, token_limit_month: 0, rate_limit_rpm: 0 };

fn now() -> Timestamp {
    day(2026, 10, 15)
}

fn at(second: i64) -> Timestamp {
    seconds(now(), second)
}

fn october() -> Month {
    now().month()
}

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
        assert_eq!(Answer::of(&outcome), Answer::Rejected(refusal));
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
    assert_eq!(Answer::of(&outcome), Answer::Held);
}

/// The answer to a reservation of integration 1 where this is open, at a later second.
#[track_caller]
fn assert_bounded(caps: Caps, open: &[Asked], second: i64, expected: Answer) {
    let mut storage = storage(NONE);
    let mut group = open.to_vec();
    let mut book = storage.load(now(), &group).unwrap();
    for (index, asked) in group.iter().enumerate() {
        book.apply(asked.tenant_id, asked.key(), asked.command(entry(index as i64 + 1))).unwrap();
    }
    storage.save(book);
    storage.caps = caps;
    group = vec![reserve("one more", as_is)];
    let mut book = storage.load(at(second), &group).unwrap();
    let outcome = book.apply(tenant(1), group[0].key(), group[0].command(entry(9))).unwrap();
    assert_eq!(Answer::of(&outcome), expected);
    if expected != Answer::Held {
        assert_unchanged(&book);
    }
}

#[test]
fn reservations_are_bounded_by_integration_and_by_tenant_and_due_ones_count_in_neither() {
    let caps = |reservations_per_integration, reservations_per_tenant| Caps {
        reservations_per_integration,
        reservations_per_tenant,
        ..Caps::DEFAULT
    };
    let here = |call: &str| reserve(call, as_is);
    let beside = |call: &str| reserve(call, |request| request.integration_id = integration(2));
    let too_many = |bound| Answer::Rejected(ReserveRefusal::TooManyOpen(bound));
    let open = [here("a"), here("b"), beside("c")];
    assert_bounded(caps(3, 4), &open, 1, Answer::Held);
    assert_bounded(caps(2, 9), &open, 1, too_many(ReservationCap::Integration(2)));
    assert_bounded(caps(3, 3), &open, 1, too_many(ReservationCap::Tenant(3)));
    assert_bounded(caps(2, 3), &open, 1, too_many(ReservationCap::Integration(2)));
    // Nobody swept what is due after 600 seconds.
    assert_bounded(caps(2, 3), &open, 599, too_many(ReservationCap::Integration(2)));
    assert_bounded(caps(1, 1), &open, 600, Answer::Held);
    let ended = [here("a"), here("b"), release("a", None), record("b", |_| {})];
    assert_bounded(caps(1, 1), &ended, 1, Answer::Held);
    // An answer that was given is given again, and a refused call is told why it is refused.
    assert_bounded(caps(1, 1), &[here("one more")], 1, Answer::Replayed);
}

#[test]
fn a_record_beyond_the_bytes_of_a_day_is_refused_unless_it_settles() {
    let mut storage = storage(NONE);
    let bytes = 400 + "a".len() + "openai".len() + "gpt".len();
    storage.caps.stored_bytes_per_day = 2 * bytes as i64;
    let refused = Answer::NotCounted(RecordRefusal::StoredBytesExceeded);
    let tomorrow = at(86_400);
    let steps = [
        step(now(), reserve("held", as_is), Answer::Held),
        step(now(), record("a", |_| {}), Answer::Accepted),
        step(now(), record("long", |_| {}), refused),
        step(now(), record("b", |_| {}), Answer::Accepted),
        step(now(), record("c", |_| {}), refused),
        step(now(), record("b", |_| {}), Answer::Duplicate),
        step(now(), record("held", |_| {}), Answer::Accepted),
        step(tomorrow, record("c", |_| {}), Answer::Accepted),
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
fn a_month_that_changes_is_stamped_with_the_latest_instant() {
    /// When each month of integration 1 changed last, after one more command.
    #[track_caller]
    fn stamps(before: &Storage, now: Timestamp, asked: Asked, expected: &[(Month, Timestamp)]) {
        let group = [asked];
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
    stamps(&fresh, now(), reserve("a", as_is), &[(october(), now())]);
    stamps(&fresh, now(), record("a", |_| {}), &[(october(), now())]);
    let september = day(2026, 9, 30);
    let late = record("a", |usage| usage.occurred_at = Some(september));
    stamps(&fresh, now(), late.clone(), &[(september.month(), now())]);

    let made = [step(now(), reserve("a", as_is), Answer::Held)];
    let reserved = check(&fresh, &made, 1, &held());
    stamps(&reserved, at(5), release("a", None), &[(october(), at(5))]);
    stamps(&reserved, at(5), extend("a", None, Some(900)), &[]);
    stamps(&reserved, at(5), reserve("a", as_is), &[]);
    stamps(&reserved, at(5), late, &[(september.month(), at(5)), (october(), at(5))]);
    stamps(&reserved, at(600), extend("a", None, None), &[(october(), at(600))]);

    let ahead = Counter { last_at: at(9), ..Counter::default() };
    let mut later = storage(NONE);
    later.set_counter(integration(1), october(), ahead);
    stamps(&later, now(), reserve("a", as_is), &[(october(), at(9))]);
}

#[test]
fn the_changes_of_holds_are_told_in_order() {
    let group = [
        reserve("a", as_is),
        extend("a", None, Some(900)),
        reserve("b", as_is),
        record("b", |_| {}),
        release("a", None),
    ];
    let storage = storage(NONE);
    let mut book = storage.load(now(), &group).unwrap();
    for (index, asked) in group.iter().enumerate() {
        let command = asked.command(storage.entry_id(index));
        book.apply(asked.tenant_id, asked.key(), command).unwrap();
    }
    let a = Hold {
        tenant_id: tenant(1),
        call: key_of(&call_id("a")),
        integration_id: integration(1),
        month: october(),
        amount: Totals { cost: cents(10), tokens: 100, calls: 1 },
        expires_at: at(600),
    };
    let b = Hold { call: key_of(&call_id("b")), ..a };
    let changes = [
        HoldChange::Made(a),
        HoldChange::Extended { before: a, expires_at: at(900) },
        HoldChange::Made(b),
        HoldChange::Ended(b),
        HoldChange::Ended(Hold { expires_at: at(900), ..a }),
    ];
    assert_eq!(book.holds(), changes);
    let (_, published) = book.into_published();
    assert_eq!(published, changes);
}

#[test]
fn a_figure_that_the_book_lacks_is_an_error_and_not_zero() {
    let made = [step(now(), reserve("a", as_is), Answer::Held)];
    let stored = check(&storage(NONE), &made, 1, &held());
    let reservation = stored.reservation(tenant(1), &call_id("a")).unwrap().clone();
    let hold = stored.holds()[0];

    let open = |now: Timestamp, loaded: Loaded| Book::open(now, Caps::DEFAULT, loaded);
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
    let error = |accounts: &HashMap<_, _>, calls: &HashMap<_, _>, asked: &Asked| {
        let (accounts, calls) = (accounts.clone(), calls.clone());
        let loaded = Loaded { accounts, calls, tenants: tenants.clone(), ..Loaded::default() };
        let mut book = open(at(1), loaded).unwrap();
        book.apply(tenant(1), asked.key(), asked.command(entry(1)))
    };
    let none = HashMap::new();
    for asked in [
        reserve("new", as_is),
        record("new", |_| {}),
        release("new", None),
        extend("new", None, None),
    ] {
        assert_eq!(error(&accounts, &calls, &asked), Err(Overflow), "the call of {asked:?}");
    }
    for asked in [reserve("new", as_is), record("new", |_| {}), record("a", |_| {})] {
        let outcome = error(&accounts, &calls_with_fresh, &asked);
        assert_eq!(outcome, Err(Overflow), "the month of {asked:?}");
    }
    let asked = release("a", None);
    assert_eq!(error(&none, &calls, &asked), Err(Overflow), "the account of a release");
    assert_eq!(error(&accounts, &calls, &asked), Err(Overflow), "the month of a release");
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
    let steps = [step(made, reserve("a", as_is), Answer::Held)];
    let stored = check(&storage(NONE), &steps, 1, &held());
    let november = october().next();
    let account = stored.account(integration(1), [november], november.start()).unwrap();
    let reservation = stored.reservation(tenant(1), &call_id("a")).cloned();
    let asked = record("a", |usage| usage.occurred_at = Some(november.start()));
    let call = Call::stored(call_id("a"), reservation, None);
    let accounts = HashMap::from([(integration(1), account)]);
    let calls = HashMap::from([((tenant(1), asked.key()), call)]);
    let loaded = Loaded { accounts, calls, ..Loaded::default() };
    let mut book = Book::open(november.start(), Caps::DEFAULT, loaded).unwrap();
    let outcome = book.apply(tenant(1), asked.key(), asked.command(entry(1)));
    assert_eq!(outcome, Err(Overflow));
}
