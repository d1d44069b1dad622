//! Records: each call id counts once, in the month in which the call occurred.

#![expect(clippy::unwrap_used, reason = "a test names what it recorded")]

use bursar_core::{
    Book, CostBasis, CostSource, Counter, Estimate, LimitSettings, Month, Nanos, PolicyResult,
    RecordRefusal, ReserveRequest, Timestamp, TokenBuckets, Totals, Usage,
};
use bursar_core::{EntryKind, FailureCause, Health, IntegrationStatus, TenantLifecycle};

use crate::support::script::{
    OutcomeKind, Shown, Step, check, record, record_known, release, reserve, step, storage,
};
use crate::support::storage::{Storage, Submission};
use crate::support::{NONE, at, cents, day, entry, integration, now, shifted, tenant};

fn used(month: Month, used: (i64, i64, i64)) -> Shown {
    Shown { month, used, held: (0, 0, 0) }
}

/// The totals of October after one record of [`full`].
fn one_counted() -> [Shown; 1] {
    [used(now().month(), (4, 30, 1))]
}

fn plain(_: &mut Usage) {}

/// Fills every field that a repetition is compared with.
fn full(usage: &mut Usage) {
    usage.session_id = Some("session".into());
    usage.agent_id = Some("agent".into());
    usage.cost = Some(cents(4));
    usage.error_code = Some("timeout".into());
    usage.occurred_at = Some(now());
}

fn changed(change: impl Fn(&mut Usage)) -> Submission {
    record("a", |usage| {
        full(usage);
        change(usage);
    })
}

fn dated(call: &str, occurred_at: Option<Timestamp>) -> Submission {
    record(call, |usage| {
        usage.cost = Some(cents(4));
        usage.occurred_at = occurred_at;
    })
}

/// A repetition in the same group and in a later one.
#[track_caller]
fn repeated(first: &Submission, again: &Submission, outcome: OutcomeKind) {
    let steps = [
        step(now(), first.clone(), OutcomeKind::Accepted),
        step(now(), again.clone(), outcome),
        step(at(1), again.clone(), outcome),
    ];
    check(&storage(NONE), &steps, 1, &one_counted());
}

#[test]
fn the_same_record_is_counted_once() {
    repeated(&changed(|_| {}), &changed(|_| {}), OutcomeKind::Duplicate);
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
        repeated(&changed(|_| {}), &changed(change), OutcomeKind::Conflict);
    }
}

#[test]
fn fields_outside_the_comparison_never_conflict() {
    let changes: [fn(&mut Usage); 4] = [
        |usage| usage.latency_ms = Some(120),
        |usage| usage.error_message = Some("the provider did not answer".into()),
        |usage| usage.metadata = Some("{\"retry\":1}".into()),
        |usage| usage.tokens = TokenBuckets::new(10, 20, 5, 5, 20).unwrap(),
    ];
    for change in changes {
        repeated(&changed(|_| {}), &changed(change), OutcomeKind::Duplicate);
    }
}

#[test]
fn an_unknown_cost_and_a_cost_of_zero_are_different_content() {
    let free = record("a", |usage| usage.cost = Some(Nanos::ZERO));
    let steps = [
        step(now(), free.clone(), OutcomeKind::Accepted),
        step(now(), record("a", plain), OutcomeKind::Conflict),
        step(at(1), free, OutcomeKind::Duplicate),
    ];
    check(&storage(NONE), &steps, 1, &[used(now().month(), (0, 30, 1))]);
}

#[test]
fn the_instant_is_compared_only_when_it_is_sent() {
    let of = |occurred_at| dated("a", occurred_at);
    repeated(&of(None), &of(None), OutcomeKind::Duplicate);
    repeated(&of(None), &of(Some(now())), OutcomeKind::Duplicate);
    repeated(&of(None), &of(Some(shifted(now(), 1))), OutcomeKind::Conflict);
    repeated(&of(Some(at(-1))), &of(None), OutcomeKind::Duplicate);
    repeated(&of(Some(at(-1))), &of(Some(at(-1))), OutcomeKind::Duplicate);
    repeated(&of(Some(at(-1))), &of(Some(shifted(at(-1), 1))), OutcomeKind::Conflict);
}

#[test]
fn a_repetition_months_later_is_still_the_same_call() {
    let next_year = day(2027, 10, 15);
    let steps = [
        step(now(), changed(|_| {}), OutcomeKind::Accepted),
        step(next_year, changed(|_| {}), OutcomeKind::Duplicate),
        step(next_year, changed(|usage| usage.cost = None), OutcomeKind::Conflict),
    ];
    check(&storage(NONE), &steps, 0, &one_counted());
}

#[test]
fn two_call_ids_with_the_same_short_key_are_not_confused() {
    let steps = [
        step(now(), dated("a#1", None), OutcomeKind::Accepted),
        step(at(1), dated("a#2", None), OutcomeKind::Conflict),
        step(at(1), dated("a#1", None), OutcomeKind::Duplicate),
        step(at(1), release("a#2", None), OutcomeKind::NoReservation),
    ];
    check(&storage(NONE), &steps, 1, &one_counted());
}

#[test]
fn a_record_may_run_five_minutes_ahead_and_no_more() {
    let last = at(300);
    let steps = [step(now(), dated("a", Some(last)), OutcomeKind::Accepted)];
    check(&storage(NONE), &steps, 1, &one_counted());
    let refused = OutcomeKind::NotCounted(RecordRefusal::InTheFuture);
    let steps = [step(now(), dated("a", Some(shifted(last, 1))), refused)];
    let end = check(&storage(NONE), &steps, 0, &[]);
    assert!(end.entries.is_empty());
}

#[test]
fn a_refused_record_can_be_repeated() {
    let ahead = dated("a", Some(at(301)));
    let steps = [
        step(now(), ahead.clone(), OutcomeKind::NotCounted(RecordRefusal::InTheFuture)),
        step(at(1), ahead, OutcomeKind::Accepted),
    ];
    check(&storage(NONE), &steps, 1, &one_counted());
}

#[test]
fn a_record_counts_in_the_month_of_its_instant() {
    #[track_caller]
    fn counts(arrival: Timestamp, occurred_at: Option<Timestamp>, month: Month, rate: i64) {
        let steps = [step(arrival, dated("a", occurred_at), OutcomeKind::Accepted)];
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
fn the_rate_counts_the_calls_of_the_last_sixty_seconds() {
    #[track_caller]
    fn counts(change: impl FnOnce(&mut Usage), rate: i64) {
        let mut totals = (0, 0, 0);
        let submission = record("a", |usage| {
            change(usage);
            usage.cost = Some(cents(4));
            totals = (4, 30, 1);
        });
        let steps = [step(now(), submission, OutcomeKind::Accepted)];
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
            step(now(), dated("a", Some(at(occurred))), OutcomeKind::Accepted),
            step(at(looked_at), dated("a", None), OutcomeKind::Duplicate),
        ];
        check(&storage(NONE), &steps, rate, &one_counted());
    }
    counts(-20, 39, 1);
    counts(-20, 40, 0);
    // A call from the future counts from its arrival on.
    counts(200, 59, 1);
    counts(200, 60, 0);
}

#[test]
fn a_reserved_and_recorded_call_counts_once_towards_the_rate() {
    for policy_result in [PolicyResult::Allowed, PolicyResult::Blocked] {
        let submission = record("a", |usage| {
            usage.cost = Some(cents(4));
            usage.policy_result = policy_result;
        });
        let steps = [
            step(now(), reserve("a", |_| {}), OutcomeKind::Held),
            step(at(59), submission, OutcomeKind::Accepted),
        ];
        check(&storage(NONE), &steps, 1, &one_counted());
        let late = [steps.to_vec(), vec![step(at(60), release("a", None), OutcomeKind::IsSettled)]];
        check(&storage(NONE), &late.concat(), 0, &one_counted());
    }
}

#[test]
fn a_reserved_call_counts_when_it_was_reserved_even_if_it_is_recorded_later() {
    let steps = [
        step(now(), reserve("a", |_| {}), OutcomeKind::Held),
        step(at(100), dated("a", Some(at(100))), OutcomeKind::Accepted),
    ];
    check(&storage(NONE), &steps, 0, &one_counted());
}

#[test]
fn an_unknown_and_a_foreign_integration_are_not_counted() {
    for number in [9, 77] {
        let submission = record("a", |usage| usage.integration_id = integration(number));
        let refused = OutcomeKind::NotCounted(RecordRefusal::IntegrationNotFound);
        let end = check(&storage(NONE), &[step(now(), submission, refused)], 0, &[]);
        assert_eq!((end.entries.len(), end.months(integration(9)).len()), (0, 0));
    }
}

fn costs(usage: &mut Usage) {
    usage.cost = Some(cents(4));
}

#[test]
fn known_only_accepts_reserved_and_recorded_calls_only() {
    let unknown = OutcomeKind::NotCounted(RecordRefusal::UnknownCall);
    let steps = [
        step(now(), record_known("a", costs), unknown),
        step(now(), reserve("a", |_| {}), OutcomeKind::Held),
        step(now(), record("b", costs), OutcomeKind::Accepted),
        step(at(1), record_known("a", costs), OutcomeKind::Accepted),
        step(at(1), record_known("a", costs), OutcomeKind::Duplicate),
        step(at(1), record_known("a", |usage| usage.cost = None), OutcomeKind::Conflict),
        step(at(1), record_known("b", costs), OutcomeKind::Duplicate),
        step(at(1), record_known("b", plain), OutcomeKind::Conflict),
        step(at(1), record_known("c", costs), unknown),
    ];
    check(&storage(NONE), &steps, 2, &[used(now().month(), (8, 60, 2))]);
}

#[test]
fn known_only_accepts_a_call_whose_reservation_ended() {
    for ended in [step(at(1), release("a", None), OutcomeKind::Released), {
        step(at(601), release("a", None), OutcomeKind::HadExpired)
    }] {
        let steps = [
            step(now(), reserve("a", |_| {}), OutcomeKind::Held),
            ended,
            step(at(700), record_known("a", costs), OutcomeKind::Accepted),
            step(at(701), record_known("a", costs), OutcomeKind::Duplicate),
        ];
        check(&storage(NONE), &steps, 0, &[used(now().month(), (4, 30, 1))]);
    }
}

#[test]
fn known_only_refuses_a_call_that_another_integration_holds() {
    let elsewhere = |usage: &mut Usage| usage.integration_id = integration(2);
    let held = Shown { month: now().month(), used: (0, 0, 0), held: (10, 100, 1) };
    let steps = [
        step(now(), reserve("a", |_| {}), OutcomeKind::Held),
        step(at(1), record_known("a", elsewhere), OutcomeKind::Conflict),
    ];
    check(&storage(NONE), &steps, 1, &[held]);
    // After that reservation has ended, the caller may have switched to another provider.
    let steps = [
        step(now(), reserve("a", |_| {}), OutcomeKind::Held),
        step(at(1), release("a", None), OutcomeKind::Released),
        step(at(2), record_known("a", elsewhere), OutcomeKind::Accepted),
    ];
    let end = check(&storage(NONE), &steps, 1, &[]);
    assert_eq!(end.counter(integration(2), now().month()).used.calls, 1);
}

#[test]
fn one_call_id_of_two_tenants_is_two_calls() {
    let mut other = record("a", |usage| usage.integration_id = integration(9));
    other.tenant_id = tenant(2);
    let steps = [
        step(now(), dated("a", None), OutcomeKind::Accepted),
        step(now(), other.clone(), OutcomeKind::Accepted),
        step(at(1), other, OutcomeKind::Duplicate),
    ];
    let end = check(&storage(NONE), &steps, 1, &one_counted());
    assert_eq!(end.counter(integration(9), now().month()).used.calls, 1);
}

#[test]
fn records_count_in_every_state_and_above_every_limit() {
    #[track_caller]
    fn counted(change: impl FnOnce(&mut Storage)) {
        let limits =
            LimitSettings { budget_limit_cents: 1, token_limit_month: 1, rate_limit_rpm: 1 };
        let mut storage = storage(limits);
        change(&mut storage);
        let steps = [
            step(now(), dated("a", None), OutcomeKind::Accepted),
            step(now(), dated("b", None), OutcomeKind::Accepted),
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
fn the_cost_is_reported_held_or_marked_as_unknown() {
    #[track_caller]
    fn source(before: &[Step], cost: Option<i64>, counts: (i64, CostSource)) {
        let mut steps = before.to_vec();
        let submission = record("a", |usage| usage.cost = cost.map(cents));
        steps.push(step(at(30), submission, OutcomeKind::Accepted));
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
        step(now(), reserve("a", change), OutcomeKind::Held)
    };
    let released = step(at(1), release("a", None), OutcomeKind::Released);
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
    fn check_room(room: (i64, i64, i64), expected: OutcomeKind) {
        // Exactly `room` is left in each measure, so that the largest integer can be reached.
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
        assert_eq!(OutcomeKind::of(&held), OutcomeKind::Held);
        let before = (shape(&book), book.holds().len());
        let outcome = book.apply(tenant(1), group[1].key(), group[1].command(entry(2))).unwrap();
        assert_eq!(OutcomeKind::of(&outcome), expected);
        if expected != OutcomeKind::Accepted {
            assert_eq!((shape(&book), book.holds().len()), before);
            let again = book.apply(tenant(1), group[2].key(), group[2].command(entry(3))).unwrap();
            assert_eq!(OutcomeKind::of(&again), expected, "the call is not remembered");
        }
    }
    let refused = OutcomeKind::NotCounted(RecordRefusal::TotalsOverflow);
    let cost = cents(4).get();
    check_room((cost, 30, 1), OutcomeKind::Accepted);
    check_room((cost - 1, 30, 1), refused);
    check_room((cost, 29, 1), refused);
    check_room((cost, 30, 0), refused);
}

/// The counter of October, the rate and the number of entries of integration 1.
fn shape(book: &Book<'_>) -> (Counter, i64, usize) {
    let account = book.accounts().get(&integration(1)).unwrap();
    let counter = account.counter(now().month()).unwrap();
    (counter, account.rate.current(now().second()), book.entries().len())
}

#[test]
fn a_computed_cost_basis_ignores_the_clients_cost() {
    let mut storage = storage(NONE);
    let profile = storage.profiles.get_mut(&integration(1)).unwrap();
    profile.integration.cost_basis = CostBasis::Computed;
    let free = record("a", |usage| usage.cost = Some(cents(0)));
    let steps = [step(now(), free, OutcomeKind::Accepted)];
    let end = check(&storage, &steps, 1, &[used(now().month(), (0, 30, 1))]);
    assert_eq!(end.entries[0].cost_source, CostSource::Unknown);
}
