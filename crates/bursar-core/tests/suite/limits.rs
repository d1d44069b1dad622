//! Limits one rule at a time: what fits, where calls count, and which limits apply.

use bursar_core::{
    Action, Allowance, Bound, CalendarUnit, Estimate, KeyId, Label, Limit, Nanos, Outcome,
    Override, Quantity, ReasonCode, RecordOutcome, RecordRefusal, ReserveOutcome, ReserveRefusal,
    ReserveRequest, Scope, Selected, Tags, Verdict, Window, Zone,
};

use crate::support::limited::{Limited, calls, concurrent, cost, day, each, limit, only, total};
use crate::support::script::{as_is, record, release, reserve};
use crate::support::storage::Submission;
use crate::support::{at, cents, integration, october, shifted};

fn team() -> Label {
    Label::Tag("team".into())
}

fn of_team(team: &str) -> Tags {
    let mut tags = Tags::default();
    assert!(tags.add("team", team));
    tags
}

/// A reservation of 10 cents by an agent.
fn reserve_by(agent: &str, call: &str) -> Submission {
    reserve(call, |request| request.agent_id = Some(agent.into()))
}

/// A record of 4 cents by an agent.
fn record_by(agent: &str, call: &str) -> Submission {
    record(call, |usage| {
        usage.cost = Some(cents(4));
        usage.agent_id = Some(agent.into());
    })
}

/// Limits for each value of a label: cost over a day, all time and a minute, then calls of a minute
/// and open reservations.
fn of_every_kind(label: &Label) -> Limited {
    let minute = Window::Minute;
    let bounds = [
        cost(day(), 100),
        cost(total(), 100),
        cost(minute.clone(), 100),
        calls(minute, 100),
        concurrent(100),
    ];
    Limited::new((1..).zip(bounds).map(|(number, bound)| limit(number, each(label.clone()), bound)))
}

/// Checks what is used and held in the accounts of a value under these limits.
#[track_caller]
fn check_sums(limited: &Limited, value: &str, expected: [(i128, i128); 5]) {
    let sums = [1, 2, 3, 4, 5].map(|number| limited.sums(number, value, at(1)));
    assert_eq!(sums, expected, "{value}");
}

#[test]
fn a_hold_ends_where_it_was_made_and_the_record_counts_where_it_says() {
    #[track_caller]
    fn check(label: Label) {
        let mut limited = of_every_kind(&label);
        let reserved = reserve("call", |request| {
            request.agent_id = Some("first".into());
            request.model = Some("first".into());
            request.session_id = Some("first".into());
            request.tags = of_team("first");
        });
        limited.admits(at(0), &reserved);
        let ten_cents = (0, cents(10).get().into());
        let (one_call, nothing) = ((0, 1), (0, 0));
        check_sums(&limited, "first", [ten_cents, ten_cents, ten_cents, one_call, one_call]);

        limited.run(
            at(1),
            &record("call", |usage| {
                usage.cost = Some(cents(4));
                usage.agent_id = Some("second".into());
                usage.model = "second".into();
                usage.session_id = Some("second".into());
                usage.tags = of_team("second");
            }),
        );
        check_sums(&limited, "first", [nothing; 5]);
        let four_cents = (cents(4).get().into(), 0);
        check_sums(&limited, "second", [four_cents, four_cents, four_cents, (1, 0), nothing]);
    }
    for label in [Label::Agent, Label::Model, Label::Session, team()] {
        check(label);
    }
}

#[test]
fn a_record_counts_in_the_account_of_the_key_that_reserved_the_call() {
    let [reserving, recording] = [1, 2].map(|number| KeyId::from_number(number).unwrap());
    let mut limited = of_every_kind(&Label::Key);
    let reserved = reserve("reserved", |request| request.account_key_id = Some(reserving));
    limited.admits(at(0), &reserved);
    for call in ["reserved", "other"] {
        let record = record(call, |usage| {
            usage.account_key_id = Some(recording);
            usage.cost = Some(cents(4));
        });
        limited.run(at(1), &record);
    }
    let four_cents = (cents(4).get().into(), 0);
    for key_id in [reserving, recording] {
        let expected = [four_cents, four_cents, four_cents, (1, 0), (0, 0)];
        check_sums(&limited, &key_id.to_string(), expected);
    }
}

#[test]
fn in_the_last_minute_a_reserved_call_counts_once_however_it_ends() {
    let bounds = [calls(Window::Minute, 100), cost(Window::Minute, 100)];
    let limits = (1..).zip(bounds).map(|(number, bound)| limit(number, each(Label::Agent), bound));
    let mut limited = Limited::new(limits);
    let held = (0, cents(10).get().into());
    let used = (cents(4).get().into(), 0);
    for call in ["settled", "released", "expired"] {
        let mut reserved = reserve_by(call, call);
        if call == "expired" {
            reserved = reserve(call, |request| {
                request.agent_id = Some(call.into());
                request.ttl_seconds = 5;
            });
        }
        limited.admits(at(0), &reserved);
        assert_eq!(limited.sums(1, call, at(0)), (0, 1), "{call}");
        assert_eq!(limited.sums(2, call, at(0)), held, "{call}");
    }
    limited.run(at(1), &record_by("settled", "settled"));
    limited.run(at(1), &release("released", None));
    for now in [at(5), at(59)] {
        for call in ["released", "expired"] {
            assert_eq!(limited.sums(1, call, now), (1, 0), "{call}");
            assert_eq!(limited.sums(2, call, now), (0, 0), "{call}");
        }
        limited.storage.sweep(now);
    }
    // A late record adds its cost in the second of the reservation, and no further call.
    for call in ["released", "expired"] {
        limited.run(at(59), &record_by(call, call));
    }
    for call in ["settled", "released", "expired"] {
        assert_eq!(limited.sums(1, call, at(59)), (1, 0), "{call}");
        assert_eq!(limited.sums(2, call, at(59)), used, "{call}");
        assert_eq!(limited.sums(1, call, at(60)), (0, 0), "{call}");
        assert_eq!(limited.sums(2, call, at(60)), (0, 0), "{call}");
    }
}

#[test]
fn a_limit_that_names_a_value_takes_the_place_of_the_one_for_each_value() {
    #[track_caller]
    fn check(named: Limit, is_replaced: bool) {
        let each = limit(1, each(Label::Agent), calls(day(), 1));
        let mut limited = Limited::new([each, named.clone()]);
        limited.admits(at(0), &reserve_by("ada", "a1"));
        limited.admits(at(0), &reserve_by("bob", "b1"));
        assert_eq!(limited.blocks(at(0), &reserve_by("bob", "b2")), ReasonCode::CallLimitExceeded);
        let decision = limited.decision(at(0), &reserve_by("ada", "a2"));
        assert_eq!(decision.verdict.admits(), is_replaced, "{named:?}");
    }
    let ada = || only(Label::Agent, "ada");
    let named = |bound| limit(2, ada(), bound);
    check(named(calls(day(), 2)), true);
    check(Limit { enabled: false, ..named(calls(day(), 1)) }, true);
    check(named(calls(total(), 2)), false);
    check(named(calls(Window::Calendar(CalendarUnit::Day, Zone::new("Europe/Berlin")), 2)), false);
    check(named(calls(Window::Calendar(CalendarUnit::Hour, Zone::utc()), 2)), false);
    check(named(cost(day(), 100)), false);
    check(limit(2, only(Label::Session, "ada"), calls(day(), 2)), false);
    check(limit(2, only(Label::Agent, "bob "), calls(day(), 2)), false);
    let integration_id = Some(integration(1));
    let narrowed =
        Scope::Label { label: Label::Agent, selected: Selected::One("ada".into()), integration_id };
    check(limit(2, narrowed, calls(day(), 2)), false);
}

#[test]
fn all_totals_are_alike_when_a_limit_names_a_value() {
    let later = Window::Total { starts_at: at(60) };
    let limits = [
        limit(1, each(Label::Agent), calls(total(), 1)),
        limit(2, only(Label::Agent, "ada"), calls(later, 1)),
    ];
    let mut limited = Limited::new(limits);
    for call in ["a1", "a2"] {
        limited.admits(at(0), &reserve_by("ada", call));
    }
    limited.admits(at(60), &reserve_by("ada", "a3"));
    assert_eq!(limited.blocks(at(60), &reserve_by("ada", "a4")), ReasonCode::CallLimitExceeded);
    assert_eq!(limited.sums(1, "ada", at(60)), (0, 0));
}

#[test]
fn a_limit_of_an_integration_takes_the_place_of_the_one_for_each_integration() {
    let limits = [
        limit(1, Scope::EachIntegration, calls(day(), 1)),
        limit(2, Scope::Integration(integration(1)), calls(day(), 2)),
    ];
    let mut limited = Limited::new(limits);
    let on =
        |number, call: &str| reserve(call, |request| request.integration_id = integration(number));
    limited.admits(at(0), &on(1, "a1"));
    limited.admits(at(0), &on(1, "a2"));
    limited.admits(at(0), &on(2, "b1"));
    assert_eq!(limited.blocks(at(0), &on(1, "a3")), ReasonCode::CallLimitExceeded);
    assert_eq!(limited.blocks(at(0), &on(2, "b2")), ReasonCode::CallLimitExceeded);
}

#[test]
fn a_required_label_is_missed_only_where_the_limit_applies() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Limit), submission: &Submission, is_blocked: bool) {
        let mut required = Limit { required: true, ..limit(1, each(team()), calls(day(), 0)) };
        change(&mut required);
        // Only the label decides: the limit itself refuses nothing.
        required.rule.action = Action::Warn;
        let decision = Limited::new([required]).decision(at(0), submission);
        let expected = if is_blocked { Verdict::Blocked } else { Verdict::Allowed };
        assert_eq!(decision.verdict, expected, "{decision:?}");
        if is_blocked {
            let codes: Vec<_> = decision.reasons.iter().map(|reason| reason.code).collect();
            assert_eq!(codes, [ReasonCode::ScopeMissing]);
        }
    }
    let without = reserve("call", as_is);
    let with = reserve("call", |request| request.tags = of_team("red"));
    let narrowed = |number| Scope::Label {
        label: team(),
        selected: Selected::Each,
        integration_id: Some(integration(number)),
    };
    check(|_| {}, &without, true);
    check(|_| {}, &with, false);
    check(|limit| limit.required = false, &without, false);
    check(|limit| limit.enabled = false, &without, false);
    check(|limit| limit.scope = narrowed(1), &without, true);
    check(|limit| limit.scope = narrowed(2), &without, false);
    check(|limit| limit.scope = only(team(), "blue"), &without, true);
    check(|limit| limit.scope = only(team(), "blue"), &with, false);
    let begins = |starts_at| {
        move |limit: &mut Limit| {
            limit.rule.bound = calls(Window::Total { starts_at }, 0);
        }
    };
    check(begins(at(0)), &without, true);
    check(begins(shifted(at(0), 1)), &without, false);
}

#[test]
fn an_override_ends_exactly_at_its_instant() {
    let until = at(10);
    let overridden = Some(Override { amount: Quantity::new(3), until });
    let allowance = Allowance { overridden, ..Allowance::new(1) };
    let mut limited = Limited::new([limit(1, Scope::Tenant, Bound::Calls(day(), allowance))]);
    let before = shifted(until, -1);
    limited.admits(before, &reserve("1", as_is));
    limited.admits(before, &reserve("2", as_is));
    assert_eq!((limited.state(1, "", before).amount, limited.state(1, "", until).amount), (3, 1));
    assert_eq!(limited.blocks(until, &reserve("3", as_is)), ReasonCode::CallLimitExceeded);
}

#[test]
fn an_estimate_is_needed_only_while_the_limit_is_not_unlimited() {
    let until = at(10);
    let overridden = Some(Override { amount: Quantity::new(3), until });
    let allowance = Allowance { amount: Quantity::UNLIMITED, overridden };
    let mut limited = Limited::new([limit(1, Scope::Tenant, Bound::Tokens(day(), allowance))]);
    let without = |request: &mut ReserveRequest| request.estimate = Estimate::default();
    let refused = ReserveOutcome::Rejected(ReserveRefusal::TokenEstimateRequired);
    let outcome = limited.run(shifted(until, -1), &reserve("1", without));
    assert_eq!(outcome, Outcome::Reserve(refused));
    limited.admits(until, &reserve("1", without));
}

#[test]
fn waiting_for_the_end_of_an_override_that_lowers_a_minute_helps() {
    let overridden = Some(Override { amount: Quantity::new(0), until: at(30) });
    let allowance = Allowance { overridden, ..Allowance::new(1) };
    let mut throttled = limit(1, Scope::Tenant, Bound::Calls(Window::Minute, allowance));
    throttled.rule.action = Action::Throttle;
    let decision = Limited::new([throttled]).decision(at(0), &reserve("1", as_is));
    assert_eq!(decision.verdict, Verdict::Throttled);
    assert_eq!(decision.reasons.first().unwrap().retry_after_seconds, Some(30));
}

#[test]
fn values_beyond_the_cap_share_one_account() {
    let mut limited = Limited::new([limit(1, each(Label::Agent), calls(day(), 1))]);
    limited.storage.caps.values_per_limit = 2;
    limited.admits(at(0), &reserve_by("ada", "a1"));
    limited.run(at(0), &record_by("bob", "b1"));
    limited.admits(at(0), &reserve_by("cyd", "c1"));
    for (agent, call) in [("ada", "a2"), ("bob", "b2"), ("cyd", "c2"), ("dan", "d1")] {
        let code = limited.blocks(at(0), &reserve_by(agent, call));
        assert_eq!(code, ReasonCode::CallLimitExceeded, "{agent}");
    }
    assert_eq!(limited.sums(1, "", at(0)), (0, 1));
    assert_eq!(limited.values(1), 2);
    // In the next period the first values are others.
    let tomorrow = at(86_400);
    limited.admits(tomorrow, &reserve_by("cyd", "c3"));
    limited.admits(tomorrow, &reserve_by("dan", "d2"));
    assert_eq!(limited.sums(1, "cyd", tomorrow), (0, 1));
    assert_eq!(limited.sums(1, "", tomorrow), (0, 0));
}

#[test]
fn a_value_whose_call_counts_nothing_takes_no_place() {
    let bounds = [calls(day(), 1), concurrent(1), calls(Window::Minute, 1)];
    let limits = (1..).zip(bounds).map(|(number, bound)| limit(number, each(Label::Agent), bound));
    let mut limited = Limited::new(limits);
    limited.storage.caps.values_per_limit = 1;
    for call in ["b1", "b2"] {
        limited.run(
            at(0),
            &record(call, |usage| {
                usage.agent_id = Some("bob".into());
                usage.occurred_at = Some(at(-86_400));
            }),
        );
    }
    for number in 1..=3 {
        assert_eq!(limited.values(number), 0, "{number}");
    }
    limited.admits(at(0), &reserve_by("ada", "a1"));
    for number in 1..=3 {
        assert_eq!(limited.sums(number, "ada", at(0)), (0, 1), "{number}");
        assert_eq!(limited.values(number), 1, "{number}");
    }
}

#[test]
fn a_hold_ends_although_its_limit_was_deleted() {
    let [deleted, kept] = [1, 2].map(|number| limit(number, Scope::Tenant, concurrent(2)));
    for end in [release("call", None), record_by("ada", "call")] {
        let mut limited = Limited::new([deleted.clone(), kept.clone()]);
        limited.admits(at(0), &reserve_by("ada", "call"));
        limited.set_limits([kept.clone()]);
        limited.run(at(1), &end);
        assert_eq!(limited.sums(2, "", at(1)), (0, 0), "{end:?}");
        assert_eq!(limited.storage.holds(), [], "{end:?}");
    }
    let mut limited = Limited::new([deleted, kept.clone()]);
    limited.admits(at(0), &reserve_by("ada", "call"));
    limited.set_limits([kept]);
    limited.storage.sweep(at(600));
    assert_eq!(limited.storage.holds(), []);
}

#[test]
fn a_hold_is_not_in_a_limit_that_was_made_after_it() {
    let mut limited = Limited::new([]);
    limited.admits(at(0), &reserve_by("ada", "call"));
    limited.set_limits([limit(1, each(Label::Agent), cost(day(), 100))]);
    assert_eq!(limited.sums(1, "ada", at(1)), (0, 0));
    limited.run(at(1), &record_by("ada", "call"));
    assert_eq!(limited.sums(1, "ada", at(1)), (cents(4).get().into(), 0));
}

#[test]
fn a_sum_of_a_limit_that_does_not_fit_64_bits_refuses_the_call() {
    let huge = reserve("huge", |request| {
        request.estimate = Estimate::new(Nanos::new(i64::MAX - 1), 1).unwrap();
    });
    // The integration counts the next call in another month.
    let (before, after) = (shifted(october().end(), -1), october().end());
    for window in [total(), Window::Minute] {
        let disabled = limit(1, Scope::Tenant, cost(window.clone(), 100));
        let mut limited = Limited::new([Limit { enabled: false, ..disabled }]);
        limited.admits(before, &huge);
        let overflow = Outcome::Reserve(ReserveOutcome::Rejected(ReserveRefusal::TotalsOverflow));
        assert_eq!(limited.run(after, &reserve("next", as_is)), overflow, "{window:?}");
        let overflow = Outcome::Record(RecordOutcome::Refused(RecordRefusal::TotalsOverflow));
        assert_eq!(limited.run(after, &record_by("ada", "next")), overflow, "{window:?}");
        assert_eq!(limited.sums(1, "", after), (0, (i64::MAX - 1).into()), "{window:?}");
    }
}
