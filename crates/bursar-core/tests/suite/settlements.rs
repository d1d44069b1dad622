//! The end of a reservation: it settles, is released or expires once.

use bursar_core::{
    IntegrationStatus, LimitSettings, Month, ReasonCode, RecordRefusal, ReservationState,
    ReserveRefusal, ReserveRequest, Timestamp,
};

use crate::support::script::{
    OutcomeKind, Shown, Step, as_is, check, costs, extend, held, of, record, rejected, release,
    reserve, step, storage, used,
};
use crate::support::storage::Submission;
use crate::support::{
    NONE, at, call_id, cents, day, integration, now, october, seconds, shifted, tenant,
};

#[test]
fn a_record_settles_its_reservation_and_counts_the_actual_cost() {
    for actual in [0, 4, 10, 25] {
        let steps = [
            step(now(), reserve("a", as_is), OutcomeKind::Held),
            step(at(7), costs("a", actual), OutcomeKind::Accepted),
            step(at(7), costs("a", actual), OutcomeKind::Duplicate),
            step(at(8), costs("a", actual), OutcomeKind::Duplicate),
            step(at(8), costs("a", actual + 1), OutcomeKind::Conflict),
            step(at(8), release("a", None), OutcomeKind::IsSettled),
            step(at(8), extend("a", None, None), OutcomeKind::HadEnded(ReservationState::Settled)),
        ];
        let end = check(&storage(NONE), &steps, 1, &[used((actual, 30, 1))]);
        let reservation = end.reservation(tenant(1), &call_id("a")).unwrap();
        assert_eq!(reservation.state, ReservationState::Settled);
        assert_eq!(reservation.ended_at, Some(at(7)));
        assert_eq!(end.entries[0].call.occurred_at, now(), "by default when it was reserved");
    }
}

#[test]
fn a_call_that_settles_above_its_estimate_blocks_the_next_call() {
    let limits = LimitSettings { budget_limit_cents: 20, ..NONE };
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(now(), costs("a", 25), OutcomeKind::Accepted),
        step(now(), reserve("b", of(1, 0)), OutcomeKind::Refused(ReasonCode::BudgetExceeded)),
    ];
    check(&storage(limits), &steps, 1, &[used((25, 30, 1))]);
}

#[test]
fn a_settlement_after_the_months_end_frees_the_old_month_and_counts_where_it_occurred() {
    #[track_caller]
    fn settles(occurred_at: Option<Timestamp>, counted_in: Month) {
        let made = shifted(october().end(), -1);
        let dated = record("a", |usage| {
            usage.cost = Some(cents(4));
            usage.occurred_at = occurred_at;
        });
        let steps = [
            step(made, reserve("a", as_is), OutcomeKind::Held),
            step(seconds(made, 30), dated, OutcomeKind::Accepted),
        ];
        let shown = Shown { month: counted_in, used: (4, 30, 1), held: (0, 0, 0) };
        check(&storage(NONE), &steps, 1, &[shown]);
    }
    let november = october().next();
    settles(None, october());
    settles(Some(shifted(november.start(), -1)), october());
    settles(Some(november.start()), november);
    settles(Some(day(2026, 9, 30)), day(2026, 9, 30).month());
}

#[test]
fn a_hold_blocks_the_month_in_which_it_was_made_and_no_other() {
    let limits = LimitSettings { budget_limit_cents: 10, ..NONE };
    let made = shifted(october().end(), -1);
    let refused = OutcomeKind::Refused(ReasonCode::BudgetExceeded);
    let steps = [
        step(made, reserve("a", as_is), OutcomeKind::Held),
        step(made, reserve("b", as_is), refused),
        step(october().end(), reserve("b", as_is), OutcomeKind::Held),
        step(october().end(), reserve("c", as_is), refused),
    ];
    let in_november = Shown { month: october().next(), ..held((10, 100, 1)) };
    check(&storage(limits), &steps, 2, &[held((10, 100, 1)), in_november]);
}

#[test]
fn a_hold_counts_until_a_microsecond_before_it_expires() {
    let limits = LimitSettings { budget_limit_cents: 10, ..NONE };
    let other = || reserve("b", |request| request.ttl_seconds = 1);
    let made = step(now(), reserve("a", as_is), OutcomeKind::Held);
    let before = shifted(at(600), -1);
    let refused = OutcomeKind::Refused(ReasonCode::BudgetExceeded);
    let steps = [made.clone(), step(before, other(), refused)];
    check(&storage(limits), &steps, 0, &[held((10, 100, 1))]);
    let end = check(
        &storage(limits),
        &[made, step(at(600), other(), OutcomeKind::Held)],
        1,
        &[held((10, 100, 1))],
    );
    let expired = end.reservation(tenant(1), &call_id("a")).unwrap();
    assert_eq!((expired.state, expired.ended_at), (ReservationState::Expired, Some(at(600))));
}

#[test]
fn a_reservation_is_open_until_a_microsecond_before_it_expires() {
    #[track_caller]
    fn last(
        submission: Submission,
        open: (OutcomeKind, &[Shown]),
        expired: (OutcomeKind, &[Shown]),
    ) {
        let made = step(now(), reserve("a", as_is), OutcomeKind::Held);
        let before = step(shifted(at(600), -1), submission.clone(), open.0);
        check(&storage(NONE), &[made.clone(), before], 0, open.1);
        check(&storage(NONE), &[made, step(at(600), submission, expired.0)], 0, expired.1);
    }
    let holds = [held((10, 100, 1))];
    let gone = ReservationState::Expired;
    last(release("a", None), (OutcomeKind::Released, &[]), (OutcomeKind::HadExpired, &[]));
    last(
        reserve("a", as_is),
        (OutcomeKind::Replayed, &holds),
        (rejected(ReserveRefusal::CallEnded(gone)), &[]),
    );
    last(
        extend("a", None, Some(1)),
        (OutcomeKind::Extended, &holds),
        (OutcomeKind::HadEnded(gone), &[]),
    );
    // Without a reported cost, only a settlement counts the held amount.
    last(
        record("a", |_| {}),
        (OutcomeKind::Accepted, &[used((10, 30, 1))]),
        (OutcomeKind::Accepted, &[used((0, 30, 1))]),
    );
}

#[test]
fn a_record_after_release_or_expiry_counts_in_full_and_as_one_call() {
    #[track_caller]
    fn late(ending: &[Step], state: ReservationState, again: OutcomeKind) {
        let mut steps = vec![step(now(), reserve("a", |r| r.ttl_seconds = 20), OutcomeKind::Held)];
        steps.extend(ending.iter().cloned());
        steps.push(step(at(30), costs("a", 25), OutcomeKind::Accepted));
        steps.push(step(at(30), costs("a", 25), OutcomeKind::Duplicate));
        steps.push(step(at(31), release("a", None), again));
        steps.push(step(at(31), extend("a", None, None), OutcomeKind::HadEnded(state)));
        let end = check(&storage(NONE), &steps, 1, &[used((25, 30, 1))]);
        assert_eq!(end.entries[0].call.occurred_at, now(), "by default when it was reserved");
        assert_eq!(end.reservation(tenant(1), &call_id("a")).unwrap().state, state);
    }
    let released = step(at(10), release("a", None), OutcomeKind::Released);
    late(&[released], ReservationState::Released, OutcomeKind::Released);
    late(&[], ReservationState::Expired, OutcomeKind::HadExpired);
}

#[test]
fn a_release_frees_the_amount_once_and_keeps_the_call_in_the_rate() {
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(now(), reserve("b", as_is), OutcomeKind::Held),
        step(at(1), release("a", None), OutcomeKind::Released),
        step(at(1), release("a", None), OutcomeKind::Released),
        step(at(2), release("a", None), OutcomeKind::Released),
        step(at(2), extend("a", None, None), OutcomeKind::HadEnded(ReservationState::Released)),
    ];
    let end = check(&storage(NONE), &steps, 2, &[held((10, 100, 1))]);
    assert_eq!(end.reservation(tenant(1), &call_id("a")).unwrap().ended_at, Some(at(1)));
}

#[test]
fn a_call_without_a_reservation_cannot_be_released_or_extended() {
    let steps = [
        step(now(), release("a", None), OutcomeKind::NoReservation),
        step(now(), extend("a", None, None), OutcomeKind::NoReservation),
        step(now(), costs("a", 4), OutcomeKind::Accepted),
        step(at(1), release("a", None), OutcomeKind::NoReservation),
        step(at(1), extend("a", None, None), OutcomeKind::NoReservation),
    ];
    check(&storage(NONE), &steps, 1, &[used((4, 30, 1))]);
}

#[test]
fn an_extension_counts_from_now_and_never_shortens() {
    #[track_caller]
    fn lasts(at_second: i64, ttl_seconds: Option<u32>, expires_second: i64) {
        let steps = [
            step(now(), reserve("a", as_is), OutcomeKind::Held),
            step(at(at_second), extend("a", None, ttl_seconds), OutcomeKind::Extended),
            step(
                shifted(at(expires_second), -1),
                extend("a", None, Some(1)),
                OutcomeKind::Extended,
            ),
        ];
        let end = check(&storage(NONE), &steps[..2], 0, &[held((10, 100, 1))]);
        let reservation = end.reservation(tenant(1), &call_id("a")).unwrap();
        assert_eq!(reservation.expires_at, at(expires_second));
        assert_eq!(reservation.created_at, now());
        check(&storage(NONE), &steps, 0, &[held((10, 100, 1))]);
        let expired = OutcomeKind::HadEnded(ReservationState::Expired);
        let late = step(at(expires_second), extend("a", None, Some(1)), expired);
        check(&storage(NONE), &[steps[0].clone(), steps[1].clone(), late], 0, &[]);
    }
    lasts(100, None, 700);
    lasts(100, Some(900), 1_000);
    lasts(100, Some(500), 600);
    lasts(100, Some(1), 600);
    lasts(599, Some(86_400), 86_999);
}

#[test]
fn an_extended_hold_stays_in_the_month_in_which_it_was_made() {
    let made = shifted(october().end(), -1);
    let steps = [
        step(made, reserve("a", as_is), OutcomeKind::Held),
        step(seconds(made, 300), extend("a", None, Some(86_400)), OutcomeKind::Extended),
        step(seconds(made, 80_000), extend("a", None, Some(86_400)), OutcomeKind::Extended),
    ];
    check(&storage(NONE), &steps, 0, &[held((10, 100, 1))]);
    let mut settled = steps.to_vec();
    settled.push(step(seconds(made, 90_000), costs("a", 4), OutcomeKind::Accepted));
    check(&storage(NONE), &settled, 0, &[used((4, 30, 1))]);
}

#[test]
fn a_key_of_another_integration_sees_no_reservation() {
    let (own, other) = (Some(integration(1)), Some(integration(2)));
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(now(), release("a", other), OutcomeKind::NoReservation),
        step(now(), extend("a", other, Some(9_000)), OutcomeKind::NoReservation),
        step(at(1), extend("a", own, None), OutcomeKind::Extended),
        step(at(1), release("a", own), OutcomeKind::Released),
        step(at(2), release("a", other), OutcomeKind::NoReservation),
        step(at(2), release("a", own), OutcomeKind::Released),
    ];
    check(&storage(NONE), &steps, 1, &[]);
}

#[test]
fn another_call_id_with_the_same_short_key_touches_nothing() {
    let other = rejected(ReserveRefusal::OtherContent);
    let made = step(now(), reserve("a#1", as_is), OutcomeKind::Held);
    let others = [
        step(at(1), costs("a#2", 4), OutcomeKind::Conflict),
        step(at(1), release("a#2", None), OutcomeKind::NoReservation),
        step(at(1), extend("a#2", None, None), OutcomeKind::NoReservation),
        step(at(1), reserve("a#2", as_is), other),
    ];
    let steps = [std::slice::from_ref(&made), others.as_slice()].concat();
    check(&storage(NONE), &steps, 1, &[held((10, 100, 1))]);
    let released = step(now(), release("a#1", None), OutcomeKind::Released);
    check(&storage(NONE), &[&[made, released], others.as_slice()].concat(), 1, &[]);
}

#[test]
fn a_due_reservation_is_expired_with_or_without_a_sweep() {
    let made = [step(now(), reserve("a", as_is), OutcomeKind::Held)];
    let end = check(&storage(NONE), &made, 1, &[held((10, 100, 1))]);
    let mut reservation = end.reservation(tenant(1), &call_id("a")).unwrap().clone();
    assert_eq!(reservation.state_at(shifted(at(600), -1)), ReservationState::Open);
    assert_eq!(reservation.state_at(at(600)), ReservationState::Expired);
    for state in [ReservationState::Settled, ReservationState::Released, ReservationState::Expired]
    {
        reservation.state = state;
        assert_eq!((reservation.state_at(now()), reservation.state_at(at(600))), (state, state));
    }
}

#[test]
fn a_call_id_belongs_to_its_tenant() {
    let by_other = |mut submission: Submission| {
        submission.tenant_id = tenant(2);
        submission
    };
    let on_nine = |request: &mut ReserveRequest| request.integration_id = integration(9);
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(now(), by_other(release("a", None)), OutcomeKind::NoReservation),
        step(now(), by_other(extend("a", None, None)), OutcomeKind::NoReservation),
        step(now(), by_other(reserve("a", on_nine)), OutcomeKind::Held),
        step(now(), by_other(release("a", None)), OutcomeKind::Released),
    ];
    check(&storage(NONE), &steps, 1, &[held((10, 100, 1))]);
}

#[test]
fn a_deleted_or_disabled_integration_still_settles_releases_and_extends() {
    for status in [
        IntegrationStatus::Deleted,
        IntegrationStatus::Disabled,
        IntegrationStatus::Error,
        IntegrationStatus::Created,
    ] {
        let made = [
            step(now(), reserve("a", as_is), OutcomeKind::Held),
            step(now(), reserve("b", as_is), OutcomeKind::Held),
        ];
        let mut after = check(&storage(NONE), &made, 2, &[held((20, 200, 2))]);
        after.profiles.get_mut(&integration(1)).unwrap().integration.status = status;
        let steps = [
            step(at(1), extend("a", None, None), OutcomeKind::Extended),
            step(at(1), costs("a", 4), OutcomeKind::Accepted),
            step(at(1), release("b", None), OutcomeKind::Released),
        ];
        check(&after, &steps, 2, &[used((4, 30, 1))]);
    }
}

#[test]
fn a_refused_record_leaves_its_reservation_open() {
    let ahead = record("a", |usage| usage.occurred_at = Some(shifted(at(301), 1)));
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(at(1), ahead, OutcomeKind::NotCounted(RecordRefusal::InTheFuture)),
        step(at(2), reserve("a", as_is), OutcomeKind::Replayed),
    ];
    check(&storage(NONE), &steps, 1, &[held((10, 100, 1))]);
    let elsewhere = record("a", |usage| usage.integration_id = integration(2));
    let steps = [
        step(now(), reserve("a", as_is), OutcomeKind::Held),
        step(at(1), elsewhere, OutcomeKind::Conflict),
        step(at(2), reserve("a", as_is), OutcomeKind::Replayed),
    ];
    check(&storage(NONE), &steps, 1, &[held((10, 100, 1))]);
}
