//! Records: counted once per call id, in the month in which they occurred, and never lost.

#![expect(clippy::unwrap_used, reason = "a test names what it recorded")]

use bursar_core::{
    Book, CostBasis, CostSource, Counter, Estimate, LimitSettings, Month, Nanos, PolicyResult,
    RecordRefusal, ReserveRequest, Timestamp, TokenBuckets, Totals, Usage,
};
use bursar_core::{EntryKind, FailureCause, Health, IntegrationStatus, TenantLifecycle};

use crate::support::script::{
    Answer, Shown, Step, check, record, record_known, release, reserve, step, storage,
};
use crate::support::storage::{Asked, Storage};
use crate::support::{cents, day, entry, integration, seconds, shifted, tenant};

const NONE: LimitSettings =
    LimitSettings { budget_limit_cents: 0, token_limit_month: 0, rate_limit_rpm: 0 };

fn now() -> Timestamp {
    day(2026, 10, 15)
}

fn at(second: i64) -> Timestamp {
    seconds(now(), second)
}

fn used(month: Month, used: (i64, i64, i64)) -> Shown {
    Shown { month, used, held: (0, 0, 0) }
}

/// What October shows after one record of [`full`].
fn one_counted() -> [Shown; 1] {
    [used(now().month(), (4, 30, 1))]
}

fn plain(_: &mut Usage) {}

/// Every field that a repetition is compared with is there.
fn full(usage: &mut Usage) {
    usage.session_id = Some("session".into());
    usage.agent_id = Some("agent".into());
    usage.cost = Some(cents(4));
    usage.error_code = Some("timeout".into());
    usage.occurred_at = Some(now());
}

fn changed(change: impl Fn(&mut Usage)) -> Asked {
    record("a", |usage| {
        full(usage);
        change(usage);
    })
}

fn dated(call: &str, occurred_at: Option<Timestamp>) -> Asked {
    record(call, |usage| {
        usage.cost = Some(cents(4));
        usage.occurred_at = occurred_at;
    })
}

/// A repetition in the same group and in a later one.
#[track_caller]
fn repeated(first: &Asked, again: &Asked, answer: Answer) {
    let steps = [
        step(now(), first.clone(), Answer::Accepted),
        step(now(), again.clone(), answer),
        step(at(1), again.clone(), answer),
    ];
    check(&storage(NONE), &steps, 1, &one_counted());
}

#[test]
fn the_same_record_is_counted_once() {
    repeated(&changed(|_| {}), &changed(|_| {}), Answer::Duplicate);
}

#[test]
fn each_compared_field_makes_a_conflict() {
    let changes: [fn(&mut Usage); 16] = [
        |usage| usage.integration_id = integration(2),
        |usage| usage.session_id = None,
        |usage| usage.session_id = Some("Session".into()),
        |usage| usage.agent_id = None,
        |usage| usage.agent_id = Some("other".into()),
        |usage| usage.provider = "anthropic".into(),
        |usage| usage.model = "gpt-2".into(),
        |usage| usage.tokens = TokenBuckets::new(11, 20, 0, 0, 0).unwrap(),
        |usage| usage.tokens = TokenBuckets::new(10, 21, 0, 0, 0).unwrap(),
        |usage| usage.tokens = TokenBuckets::new(20, 10, 0, 0, 0).unwrap(),
        |usage| usage.cost = None,
        |usage| usage.cost = Some(Nanos::new(cents(4).get() + 1)),
        |usage| usage.policy_result = PolicyResult::Warned,
        |usage| usage.error_code = None,
        |usage| usage.error_code = Some("refused".into()),
        |usage| usage.occurred_at = Some(shifted(now(), -1)),
    ];
    for change in changes {
        repeated(&changed(|_| {}), &changed(change), Answer::Conflict);
    }
}

#[test]
fn the_other_fields_never_conflict() {
    let changes: [fn(&mut Usage); 4] = [
        |usage| usage.latency_ms = Some(120),
        |usage| usage.error_message = Some("the provider did not answer".into()),
        |usage| usage.metadata = Some("{\"retry\":1}".into()),
        |usage| usage.tokens = TokenBuckets::new(10, 20, 5, 5, 20).unwrap(),
    ];
    for change in changes {
        repeated(&changed(|_| {}), &changed(change), Answer::Duplicate);
    }
}

#[test]
fn an_unknown_cost_and_a_cost_of_zero_are_different_content() {
    let free = record("a", |usage| usage.cost = Some(Nanos::ZERO));
    let steps = [
        step(now(), free.clone(), Answer::Accepted),
        step(now(), record("a", plain), Answer::Conflict),
        step(at(1), free, Answer::Duplicate),
    ];
    check(&storage(NONE), &steps, 1, &[used(now().month(), (0, 30, 1))]);
}

#[test]
fn the_instant_is_compared_only_when_it_is_sent() {
    let of = |occurred_at| dated("a", occurred_at);
    repeated(&of(None), &of(None), Answer::Duplicate);
    repeated(&of(None), &of(Some(now())), Answer::Duplicate);
    repeated(&of(None), &of(Some(shifted(now(), 1))), Answer::Conflict);
    repeated(&of(Some(at(-1))), &of(None), Answer::Duplicate);
    repeated(&of(Some(at(-1))), &of(Some(at(-1))), Answer::Duplicate);
    repeated(&of(Some(at(-1))), &of(Some(shifted(at(-1), 1))), Answer::Conflict);
}

#[test]
fn a_repetition_months_later_is_still_the_same_call() {
    let next_year = day(2027, 10, 15);
    let steps = [
        step(now(), changed(|_| {}), Answer::Accepted),
        step(next_year, changed(|_| {}), Answer::Duplicate),
        step(next_year, changed(|usage| usage.cost = None), Answer::Conflict),
    ];
    check(&storage(NONE), &steps, 0, &one_counted());
}

#[test]
fn two_call_ids_with_one_short_key_are_not_confused() {
    let steps = [
        step(now(), dated("a#1", None), Answer::Accepted),
        step(at(1), dated("a#2", None), Answer::Conflict),
        step(at(1), dated("a#1", None), Answer::Duplicate),
        step(at(1), release("a#2", None), Answer::NoReservation),
    ];
    check(&storage(NONE), &steps, 1, &one_counted());
}

#[test]
fn a_record_may_run_five_minutes_ahead_and_no_more() {
    let last = at(300);
    let steps = [step(now(), dated("a", Some(last)), Answer::Accepted)];
    check(&storage(NONE), &steps, 1, &one_counted());
    let refused = Answer::NotCounted(RecordRefusal::InTheFuture);
    let steps = [step(now(), dated("a", Some(shifted(last, 1))), refused)];
    let end = check(&storage(NONE), &steps, 0, &[]);
    assert!(end.entries.is_empty());
}

#[test]
fn a_refused_record_may_come_again() {
    let ahead = dated("a", Some(at(301)));
    let steps = [
        step(now(), ahead.clone(), Answer::NotCounted(RecordRefusal::InTheFuture)),
        step(at(1), ahead, Answer::Accepted),
    ];
    check(&storage(NONE), &steps, 1, &one_counted());
}

#[test]
fn a_record_counts_in_the_month_of_its_instant() {
    #[track_caller]
    fn counts(arrival: Timestamp, occurred_at: Option<Timestamp>, month: Month, rate: i64) {
        let steps = [step(arrival, dated("a", occurred_at), Answer::Accepted)];
        check(&storage(NONE), &steps, rate, &[used(month, (4, 30, 1))]);
    }
    let november = now().month().end();
    counts(november, None, november.month(), 1);
    counts(shifted(november, -1), None, now().month(), 1);
    counts(november, Some(shifted(november, -1)), now().month(), 1);
    counts(shifted(november, -1), Some(november), november.month(), 1);
    counts(now(), Some(day(1999, 12, 31)), day(1999, 12, 31).month(), 0);
    counts(now(), Some(Timestamp::MIN), Timestamp::MIN.month(), 0);
}

#[test]
fn the_rate_counts_calls_that_were_made_in_the_last_sixty_seconds() {
    #[track_caller]
    fn counts(change: impl FnOnce(&mut Usage), rate: i64) {
        let mut totals = (0, 0, 0);
        let asked = record("a", |usage| {
            change(usage);
            usage.cost = Some(cents(4));
            totals = (4, 30, 1);
        });
        let steps = [step(now(), asked, Answer::Accepted)];
        check(&storage(NONE), &steps, rate, &[used(now().month(), totals)]);
    }
    let ago =
        |micros: i64| move |usage: &mut Usage| usage.occurred_at = Some(shifted(now(), micros));
    counts(plain, 1);
    counts(|usage| usage.policy_result = PolicyResult::Warned, 1);
    counts(|usage| usage.policy_result = PolicyResult::Blocked, 0);
    counts(|usage| usage.error_code = Some("timeout".into()), 1);
    counts(ago(0), 1);
    counts(ago(-59_000_000), 1);
    counts(ago(-59_000_001), 0);
    counts(ago(-60_000_000), 0);
    counts(ago(-86_400_000_000), 0);
    counts(ago(299_000_000), 1);
}

#[test]
fn a_record_leaves_the_rate_sixty_seconds_after_it_occurred() {
    #[track_caller]
    fn counts(occurred: i64, looked_at: i64, rate: i64) {
        let steps = [
            step(now(), dated("a", Some(at(occurred))), Answer::Accepted),
            step(at(looked_at), dated("a", None), Answer::Duplicate),
        ];
        check(&storage(NONE), &steps, rate, &one_counted());
    }
    counts(-20, 39, 1);
    counts(-20, 40, 0);
    // A clock that runs ahead counts its call from the arrival on.
    counts(200, 59, 1);
    counts(200, 60, 0);
}

#[test]
fn the_record_of_a_reserved_call_counts_no_second_call() {
    for policy_result in [PolicyResult::Allowed, PolicyResult::Blocked] {
        let asked = record("a", |usage| {
            usage.cost = Some(cents(4));
            usage.policy_result = policy_result;
        });
        let steps = [
            step(now(), reserve("a", |_| {}), Answer::Held),
            step(at(59), asked, Answer::Accepted),
        ];
        check(&storage(NONE), &steps, 1, &one_counted());
        let late = [steps.to_vec(), vec![step(at(60), release("a", None), Answer::IsSettled)]];
        check(&storage(NONE), &late.concat(), 0, &one_counted());
    }
}

#[test]
fn a_reserved_call_counts_when_it_was_reserved_even_if_it_is_recorded_later() {
    let steps = [
        step(now(), reserve("a", |_| {}), Answer::Held),
        step(at(100), dated("a", Some(at(100))), Answer::Accepted),
    ];
    check(&storage(NONE), &steps, 0, &one_counted());
}

#[test]
fn an_unknown_and_a_foreign_integration_are_not_counted() {
    for number in [9, 77] {
        let asked = record("a", |usage| usage.integration_id = integration(number));
        let refused = Answer::NotCounted(RecordRefusal::IntegrationNotFound);
        let end = check(&storage(NONE), &[step(now(), asked, refused)], 0, &[]);
        assert_eq!((end.entries.len(), end.months(integration(9)).len()), (0, 0));
    }
}

fn costs(usage: &mut Usage) {
    usage.cost = Some(cents(4));
}

#[test]
fn known_only_accepts_reserved_and_recorded_calls_only() {
    let unknown = Answer::NotCounted(RecordRefusal::UnknownCall);
    let steps = [
        step(now(), record_known("a", costs), unknown),
        step(now(), reserve("a", |_| {}), Answer::Held),
        step(now(), record("b", costs), Answer::Accepted),
        step(at(1), record_known("a", costs), Answer::Accepted),
        step(at(1), record_known("a", costs), Answer::Duplicate),
        step(at(1), record_known("a", |usage| usage.cost = None), Answer::Conflict),
        step(at(1), record_known("b", costs), Answer::Duplicate),
        step(at(1), record_known("b", plain), Answer::Conflict),
        step(at(1), record_known("c", costs), unknown),
    ];
    check(&storage(NONE), &steps, 2, &[used(now().month(), (8, 60, 2))]);
}

#[test]
fn of_known_calls_one_whose_reservation_ended_is_taken_too() {
    for ended in [step(at(1), release("a", None), Answer::Released), {
        step(at(601), release("a", None), Answer::HadExpired)
    }] {
        let steps = [
            step(now(), reserve("a", |_| {}), Answer::Held),
            ended,
            step(at(700), record_known("a", costs), Answer::Accepted),
            step(at(701), record_known("a", costs), Answer::Duplicate),
        ];
        check(&storage(NONE), &steps, 0, &[used(now().month(), (4, 30, 1))]);
    }
}

#[test]
fn of_known_calls_one_that_another_integration_holds_is_a_conflict() {
    let elsewhere = |usage: &mut Usage| usage.integration_id = integration(2);
    let held = Shown { month: now().month(), used: (0, 0, 0), held: (10, 100, 1) };
    let steps = [
        step(now(), reserve("a", |_| {}), Answer::Held),
        step(at(1), record_known("a", elsewhere), Answer::Conflict),
    ];
    check(&storage(NONE), &steps, 1, &[held]);
    // Once that reservation has ended, a caller may have gone to another provider.
    let steps = [
        step(now(), reserve("a", |_| {}), Answer::Held),
        step(at(1), release("a", None), Answer::Released),
        step(at(2), record_known("a", elsewhere), Answer::Accepted),
    ];
    let end = check(&storage(NONE), &steps, 1, &[]);
    assert_eq!(end.counter(integration(2), now().month()).used.calls, 1);
}

#[test]
fn one_call_id_of_two_tenants_is_two_calls() {
    let mut other = record("a", |usage| usage.integration_id = integration(9));
    other.tenant_id = tenant(2);
    let steps = [
        step(now(), dated("a", None), Answer::Accepted),
        step(now(), other.clone(), Answer::Accepted),
        step(at(1), other, Answer::Duplicate),
    ];
    let end = check(&storage(NONE), &steps, 1, &one_counted());
    assert_eq!(end.counter(integration(9), now().month()).used.calls, 1);
}

#[test]
fn facts_are_counted_whatever_the_state_and_above_every_limit() {
    #[track_caller]
    fn counted(change: impl FnOnce(&mut Storage)) {
        let limits =
            LimitSettings { budget_limit_cents: 1, token_limit_month: 1, rate_limit_rpm: 1 };
        let mut storage = storage(limits);
        change(&mut storage);
        let steps = [
            step(now(), dated("a", None), Answer::Accepted),
            step(now(), dated("b", None), Answer::Accepted),
        ];
        check(&storage, &steps, 2, &[used(now().month(), (8, 60, 2))]);
    }
    counted(|_| {});
    for status in [
        IntegrationStatus::Created,
        IntegrationStatus::Disabled,
        IntegrationStatus::Error,
        IntegrationStatus::Deleted,
    ] {
        counted(|storage| {
            storage.profiles.get_mut(&integration(1)).unwrap().integration.status = status;
        });
    }
    counted(|storage| {
        let health = Health::Failing(FailureCause::Credential);
        storage.profiles.get_mut(&integration(1)).unwrap().integration.health = health;
    });
    counted(|storage| {
        let profile = storage.profiles.get_mut(&integration(1)).unwrap();
        profile.lifecycle = TenantLifecycle::Suspended;
    });
}

#[test]
fn the_cost_is_reported_or_held_or_visibly_unknown() {
    #[track_caller]
    fn source(before: &[Step], cost: Option<i64>, counts: (i64, CostSource)) {
        let mut steps = before.to_vec();
        let asked = record("a", |usage| usage.cost = cost.map(cents));
        steps.push(step(at(30), asked, Answer::Accepted));
        let end = check(&storage(NONE), &steps, 1, &[used(now().month(), (counts.0, 30, 1))]);
        let kept = &end.entries[0];
        assert_eq!((kept.cost, kept.cost_source), (cents(counts.0), counts.1));
        assert_eq!(kept.call.reported_cost, cost.map(cents));
    }
    let made = |of_cents: i64, ttl_seconds: u32| {
        let change = move |request: &mut ReserveRequest| {
            request.estimate = Estimate::new(cents(of_cents), 100).unwrap();
            request.ttl_seconds = ttl_seconds;
        };
        step(now(), reserve("a", change), Answer::Held)
    };
    let released = step(at(1), release("a", None), Answer::Released);
    source(&[], Some(4), (4, CostSource::Reported));
    source(&[], Some(0), (0, CostSource::Reported));
    source(&[], None, (0, CostSource::Unknown));
    source(&[made(10, 600)], Some(4), (4, CostSource::Reported));
    source(&[made(10, 600)], Some(0), (0, CostSource::Reported));
    source(&[made(10, 600)], None, (10, CostSource::Held));
    source(&[made(0, 600)], None, (0, CostSource::Unknown));
    source(&[made(10, 600), released], None, (0, CostSource::Unknown));
    source(&[made(10, 30)], None, (0, CostSource::Unknown));
}

#[test]
fn an_entry_keeps_the_call_as_reported() {
    let group = [changed(|usage| usage.occurred_at = Some(at(-5)))];
    let storage = storage(NONE);
    let mut book = storage.load(now(), &group).unwrap();
    book.apply(tenant(1), group[0].key(), group[0].command(entry(7))).unwrap();
    let [kept] = book.entries() else { panic!("one entry: {:?}", book.entries()) };
    assert_eq!((kept.entry_id, kept.tenant_id), (entry(7), tenant(1)));
    assert_eq!((kept.kind, kept.cost_source), (EntryKind::Usage, CostSource::Reported));
    assert_eq!((kept.occurred_at, kept.created_at), (at(-5), now()));
    assert_eq!((kept.cost, kept.computed_cost, kept.price_version), (cents(4), None, None));
    assert_eq!(kept.usage.session_id.as_deref(), Some("session"));
}

#[test]
fn a_record_that_does_not_fit_its_total_is_refused_and_changes_nothing() {
    #[track_caller]
    fn answer(room: (i64, i64, i64), answer: Answer) {
        // Left is exactly `room` in each measure, so that the largest integer itself is reached.
        let used = Totals {
            cost: Nanos::new(i64::MAX - room.0),
            tokens: i64::MAX - room.1,
            calls: i64::MAX - room.2,
        };
        let counter = Counter { used, ..Counter::default() };
        let mut storage = storage(NONE);
        storage.set_counter(integration(1), now().month(), counter);
        let group = [reserve("a", |_| {}), dated("a", None), dated("a", None)];
        let mut book = storage.load(now(), &group).unwrap();
        let held = book.apply(tenant(1), group[0].key(), group[0].command(entry(1))).unwrap();
        assert_eq!(Answer::of(&held), Answer::Held);
        let before = (shape(&book), book.holds().len());
        let outcome = book.apply(tenant(1), group[1].key(), group[1].command(entry(2))).unwrap();
        assert_eq!(Answer::of(&outcome), answer);
        if answer != Answer::Accepted {
            assert_eq!((shape(&book), book.holds().len()), before);
            let again = book.apply(tenant(1), group[2].key(), group[2].command(entry(3))).unwrap();
            assert_eq!(Answer::of(&again), answer, "nor does it remember the call");
        }
    }
    let refused = Answer::NotCounted(RecordRefusal::TotalsOverflow);
    let cost = cents(4).get();
    answer((cost, 30, 1), Answer::Accepted);
    answer((cost - 1, 30, 1), refused);
    answer((cost, 29, 1), refused);
    answer((cost, 30, 0), refused);
}

/// What a book counts for integration 1 in October.
fn shape(book: &Book<'_>) -> (Counter, i64, usize) {
    let account = book.accounts().get(&integration(1)).unwrap();
    let counter = account.counter(now().month()).unwrap();
    (counter, account.rate.current(now().second()), book.entries().len())
}

#[test]
fn a_client_that_is_not_trusted_does_not_set_its_cost() {
    let mut storage = storage(NONE);
    let profile = storage.profiles.get_mut(&integration(1)).unwrap();
    profile.integration.cost_basis = CostBasis::Computed;
    let free = record("a", |usage| usage.cost = Some(cents(0)));
    let steps = [step(now(), free, Answer::Accepted)];
    let end = check(&storage, &steps, 1, &[used(now().month(), (0, 30, 1))]);
    assert_eq!(end.entries[0].cost_source, CostSource::Unknown);
}
