//! Reserving: a call id is held once, and only within the limits.

#![expect(clippy::unwrap_used, reason = "a test names what it reserved")]

use bursar_core::{
    Counter, FailureCause, Health, IntegrationStatus, LimitSettings, Nanos, Outcome, ReasonCode,
    ReservationState, ReserveOutcome, ReserveRefusal, ReserveRequest, TenantLifecycle, Totals,
    Verdict,
};

use crate::support::script::{
    OutcomeKind, Shown, Step, as_is, check, costs, extend, held, of, rejected, release, reserve,
    step, storage, used,
};
use crate::support::storage::{Profile, Storage};
use crate::support::{NONE, at, call_id, cents, entry, integration, now, october, tenant};

#[test]
fn a_reservation_holds_its_estimate_and_counts_as_a_call() {
    let steps = [step(now(), reserve("a", as_is), OutcomeKind::Held)];
    check(&storage(NONE), &steps, 1, &[held((10, 100, 1))]);
}

#[test]
fn a_repeated_request_returns_the_first_reservation_and_holds_nothing_more() {
    let limits = LimitSettings { budget_limit_cents: 10, rate_limit_rpm: 1, ..NONE };
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(now(), reserve("a", as_is), OutcomeKind::Replayed),
        step(at(5), reserve("a", as_is), OutcomeKind::Replayed),
    ];
    let end = check(&storage(limits), &steps, 1, &[held((10, 100, 1))]);
    let reservation = end.reservation(tenant(1), &call_id("a")).unwrap();
    assert_eq!((reservation.created_at, reservation.expires_at), (now(), at(600)));
    assert_eq!(reservation.decision.verdict, Verdict::Warned, "the whole budget is held");

    let group = [reserve("a", as_is)];
    let mut book = end.load(at(6), &group).unwrap();
    let command = group[0].command(entry(9));
    let replay = book.apply(tenant(1), group[0].key(), command).unwrap();
    assert_eq!(replay, Outcome::Reserve(ReserveOutcome::Replayed(reservation.clone())));
    assert!(book.holds().is_empty() && book.calls().values().all(|call| !call.is_changed()));
}

/// A storage with an open reservation, after a change of its tenant or integration.
fn reserved_then(change: impl FnOnce(&mut Profile)) -> Storage {
    let made = [step(now(), reserve("a", as_is), OutcomeKind::Held)];
    let mut after = check(&storage(NONE), &made, 1, &[held((10, 100, 1))]);
    change(after.profiles.get_mut(&integration(1)).unwrap());
    after
}

#[test]
fn a_repeated_request_is_refused_after_the_integration_is_disabled_and_the_hold_stays() {
    use IntegrationStatus::{Created, Deleted, Disabled, Error};
    #[track_caller]
    fn refused(code: ReasonCode, change: impl FnOnce(&mut Profile)) {
        let off = reserved_then(change);
        let steps = [
            step(at(1), reserve("a", as_is), OutcomeKind::Refused(code)),
            step(at(2), reserve("a", as_is), OutcomeKind::Refused(code)),
        ];
        let mut end = check(&off, &steps, 1, &[held((10, 100, 1))]);
        let reservation = end.reservation(tenant(1), &call_id("a")).unwrap();
        assert_eq!(reservation.state, ReservationState::Open);
        // Once it is enabled again, the same hold is replayed.
        let enabled = Profile::enabled(tenant(1), NONE);
        end.profiles.insert(integration(1), enabled);
        let steps = [step(at(3), reserve("a", as_is), OutcomeKind::Replayed)];
        check(&end, &steps, 1, &[held((10, 100, 1))]);
    }
    use TenantLifecycle::{Archived, Suspended, Terminated};
    for lifecycle in [Suspended, Terminated, Archived] {
        refused(ReasonCode::TenantSuspended, |profile| profile.lifecycle = lifecycle);
    }
    for (status, code) in [
        (Deleted, ReasonCode::IntegrationNotFound),
        (Disabled, ReasonCode::IntegrationDisabled),
        (Created, ReasonCode::IntegrationNotEnabled),
        (Error, ReasonCode::IntegrationError),
    ] {
        refused(code, |profile| profile.integration.status = status);
    }
    let invalid = Health::Failing(FailureCause::Credential);
    refused(ReasonCode::CredentialsInvalid, |profile| profile.integration.health = invalid);
}

#[test]
fn a_used_call_id_is_refused_as_used_even_if_the_integration_is_disabled() {
    let off = reserved_then(|profile| profile.lifecycle = TenantLifecycle::Suspended);
    let other = |request: &mut ReserveRequest| request.ttl_seconds = 7;
    let steps = [
        step(at(1), reserve("a", other), rejected(ReserveRefusal::OtherContent)),
        step(at(2), costs("a", 4), OutcomeKind::Accepted),
        step(at(3), reserve("a", as_is), rejected(ReserveRefusal::CallRecorded)),
    ];
    check(&off, &steps, 1, &[used((4, 30, 1))]);
}

#[test]
fn a_suspended_tenant_settles_and_releases_but_extends_nothing() {
    use TenantLifecycle::{Archived, Suspended, Terminated};
    for lifecycle in [Suspended, Terminated, Archived] {
        let off = reserved_then(|profile| profile.lifecycle = lifecycle);
        let renewed = step(at(1), extend("a", None, Some(900)), OutcomeKind::NotActive);
        let unseen =
            step(at(1), extend("a", Some(integration(2)), None), OutcomeKind::NoReservation);
        let end = check(&off, &[renewed.clone(), unseen], 1, &[held((10, 100, 1))]);
        let reservation = end.reservation(tenant(1), &call_id("a")).unwrap();
        assert_eq!(reservation.expires_at, at(600), "the expiry is unchanged");
        let settled = [renewed.clone(), step(at(2), costs("a", 4), OutcomeKind::Accepted)];
        check(&off, &settled, 1, &[used((4, 30, 1))]);
        let released = [renewed, step(at(2), release("a", None), OutcomeKind::Released)];
        check(&off, &released, 1, &[]);
    }
}

#[test]
fn an_open_call_id_with_other_content_is_refused() {
    let changes: [fn(&mut ReserveRequest); 6] = [
        |request| request.integration_id = integration(2),
        |request| request.integration_id = integration(77),
        |request| request.estimate.cost = Nanos::new(request.estimate.cost.get() + 1),
        |request| request.estimate.tokens = 101,
        |request| request.model = Some("gpt".into()),
        |request| request.ttl_seconds = 601,
    ];
    for change in changes {
        let steps = [
            step(now(), reserve("a", as_is), OutcomeKind::Held),
            step(now(), reserve("a", change), rejected(ReserveRefusal::OtherContent)),
            step(at(1), reserve("a", change), rejected(ReserveRefusal::OtherContent)),
        ];
        check(&storage(NONE), &steps, 1, &[held((10, 100, 1))]);
    }
}

#[test]
fn a_recorded_or_ended_call_id_cannot_be_reserved() {
    #[track_caller]
    fn ended(before: &[Step], rate: i64, shown: &[Shown], refusal: ReserveRefusal) {
        for change in [as_is, |request: &mut ReserveRequest| request.ttl_seconds = 7] {
            let mut steps = before.to_vec();
            steps.push(step(at(30), reserve("a", change), rejected(refusal)));
            check(&storage(NONE), &steps, rate, shown);
        }
    }
    let made = step(now(), reserve("a", |request| request.ttl_seconds = 30), OutcomeKind::Held);
    let recorded = step(at(1), costs("a", 4), OutcomeKind::Accepted);
    let released = step(at(1), release("a", None), OutcomeKind::Released);
    let counted = [used((4, 30, 1))];
    ended(std::slice::from_ref(&recorded), 1, &counted, ReserveRefusal::CallRecorded);
    ended(&[made.clone(), recorded.clone()], 1, &counted, ReserveRefusal::CallRecorded);
    ended(&[made.clone(), released.clone(), recorded], 1, &counted, ReserveRefusal::CallRecorded);
    let gone = ReserveRefusal::CallEnded(ReservationState::Released);
    ended(&[made.clone(), released], 1, &[], gone);
    ended(&[made], 1, &[], ReserveRefusal::CallEnded(ReservationState::Expired));
}

#[test]
fn a_refusal_is_not_remembered() {
    let limits = LimitSettings { budget_limit_cents: 100, ..NONE };
    let refused = OutcomeKind::Refused(ReasonCode::BudgetExceeded);
    let steps = [
        step(now(), reserve("a", of(101, 0)), refused),
        step(now(), reserve("a", of(0, 0)), rejected(ReserveRefusal::CostEstimateRequired)),
        step(now(), release("a", None), OutcomeKind::NoReservation),
        step(now(), reserve("a", of(100, 0)), OutcomeKind::Held),
        step(now(), reserve("b", of(1, 0)), refused),
    ];
    check(&storage(limits), &steps, 1, &[held((100, 0, 1))]);
}

#[test]
fn an_estimate_is_required_only_by_its_own_limit() {
    #[track_caller]
    fn needs(limits: LimitSettings, estimate: (i64, i64), outcome: OutcomeKind) {
        let steps = [step(now(), reserve("a", of(estimate.0, estimate.1)), outcome)];
        let shown = held((estimate.0, estimate.1, 1));
        let (rate, shown) =
            if outcome == OutcomeKind::Held { (1, vec![shown]) } else { (0, vec![]) };
        check(&storage(limits), &steps, rate, &shown);
    }
    let cost = LimitSettings { budget_limit_cents: 100, ..NONE };
    let tokens = LimitSettings { token_limit_month: 100, ..NONE };
    let both = LimitSettings { budget_limit_cents: 100, ..tokens };
    let no_cost = rejected(ReserveRefusal::CostEstimateRequired);
    let no_tokens = rejected(ReserveRefusal::TokenEstimateRequired);
    needs(NONE, (0, 0), OutcomeKind::Held);
    needs(LimitSettings { rate_limit_rpm: 1, ..NONE }, (0, 0), OutcomeKind::Held);
    needs(cost, (0, 50), no_cost);
    needs(cost, (1, 0), OutcomeKind::Held);
    needs(tokens, (50, 0), no_tokens);
    needs(tokens, (0, 1), OutcomeKind::Held);
    needs(both, (0, 0), no_cost);
    needs(both, (1, 0), no_tokens);
    needs(both, (1, 1), OutcomeKind::Held);
}

#[test]
fn an_estimate_is_required_after_the_hard_blocks_and_before_the_limits() {
    #[track_caller]
    fn without_estimate(change: impl FnOnce(&mut Profile), outcome: OutcomeKind) {
        let limits =
            LimitSettings { budget_limit_cents: 100, token_limit_month: 100, rate_limit_rpm: 1 };
        let mut storage = storage(limits);
        change(storage.profiles.get_mut(&integration(1)).unwrap());
        let full = Totals { cost: cents(100), tokens: 100, calls: 1 };
        let counter = Counter { used: full, ..Counter::default() };
        storage.set_counter(integration(1), october(), counter);
        let steps = [step(now(), reserve("a", of(0, 0)), outcome)];
        check(&storage, &steps, 0, &[used((100, 100, 1))]);
    }
    let blocked = OutcomeKind::Refused;
    without_estimate(
        |profile| profile.lifecycle = TenantLifecycle::Suspended,
        blocked(ReasonCode::TenantSuspended),
    );
    for (status, code) in [
        (IntegrationStatus::Deleted, ReasonCode::IntegrationNotFound),
        (IntegrationStatus::Disabled, ReasonCode::IntegrationDisabled),
        (IntegrationStatus::Created, ReasonCode::IntegrationNotEnabled),
        (IntegrationStatus::Error, ReasonCode::IntegrationError),
    ] {
        without_estimate(|profile| profile.integration.status = status, blocked(code));
    }
    without_estimate(
        |profile| profile.integration.health = Health::Failing(FailureCause::Credential),
        blocked(ReasonCode::CredentialsInvalid),
    );
    without_estimate(|_| {}, rejected(ReserveRefusal::CostEstimateRequired));
}

#[test]
fn an_unknown_and_a_foreign_integration_are_refused_alike() {
    for number in [9, 77] {
        let other = |request: &mut ReserveRequest| request.integration_id = integration(number);
        let refused = OutcomeKind::Refused(ReasonCode::IntegrationNotFound);
        let steps = [step(now(), reserve("a", other), refused)];
        let end = check(&storage(NONE), &steps, 0, &[]);
        assert!(end.holds().is_empty());
        assert_eq!(end.months(integration(9)), []);
    }
}

#[test]
fn many_callers_never_hold_more_than_the_limit() {
    #[track_caller]
    fn admits(limits: LimitSettings, admitted: usize, refused: ReasonCode) {
        let outcome = |caller: usize| match caller < admitted {
            true => OutcomeKind::Held,
            false => OutcomeKind::Refused(refused),
        };
        let steps: Vec<Step> = (0..10)
            .map(|caller| step(now(), reserve(&format!("c{caller}"), as_is), outcome(caller)))
            .collect();
        let calls = admitted as i64;
        check(&storage(limits), &steps, calls, &[held((10 * calls, 100 * calls, calls))]);
    }
    let budget = LimitSettings { budget_limit_cents: 35, ..NONE };
    admits(budget, 3, ReasonCode::BudgetExceeded);
    admits(LimitSettings { budget_limit_cents: 40, ..NONE }, 4, ReasonCode::BudgetExceeded);
    let tokens = LimitSettings { token_limit_month: 799, ..NONE };
    admits(tokens, 7, ReasonCode::TokenLimitExceeded);
    let rate = LimitSettings { rate_limit_rpm: 5, ..NONE };
    admits(rate, 5, ReasonCode::RateLimitExceeded);
}
