//! Jumps of the wall clock, through which all guarantees hold.

use bursar_core::{
    IntegrationId, LimitSettings, RecordOutcome, ReserveOutcome, ReserveRequest, TenantId,
    Timestamp, Totals,
};
use bursar_store::{Control, StoreError};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::accounts::account_snapshot;
use crate::support::{budget, day, request, usage};

const HOUR: i64 = 3_600;
/// From the end of November into December.
const FOUR_DAYS: i64 = 4 * 86_400;

type Place = (TenantId, IntegrationId);

/// An integration that has used up its budget, on the evening of 28 November.
async fn exhausted(subject: &Subject) -> Place {
    subject.world.clock.set(day(2026, 11, 28).plus_seconds(20 * 3_600));
    let place = subject.account(budget(1)).await;
    assert_eq!(record(subject, place, "november").await, Ok(()));
    place
}

async fn record(subject: &Subject, place: Place, call: &str) -> Result<(), Failure> {
    let recorded = subject.world.ledger.record(place.0, vec![usage(place.1, call)]).await;
    let outcomes = recorded.map_err(Failure::of)?;
    assert!(matches!(outcomes[..], [RecordOutcome::Accepted(_)]), "{outcomes:?}");
    Ok(())
}

/// Whether a call is admitted.
async fn is_admitted(subject: &Subject, place: Place, call: &str) -> Result<bool, Failure> {
    let request = ReserveRequest { ttl_seconds: 60, ..request(place.1, call) };
    let outcome = subject.world.ledger.reserve(place.0, request).await;
    let outcome = outcome.map_err(Failure::of)?;
    Ok(matches!(outcome, ReserveOutcome::Held(_)))
}

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    ClockJumped,
    Other(String),
}

impl Failure {
    fn of(error: StoreError) -> Self {
        if matches!(error, StoreError::ClockJumped { .. }) {
            return Self::ClockJumped;
        }
        Self::Other(error.to_string())
    }
}

/// Lets seconds pass, with the sweep that a server runs in each.
async fn advance(subject: &Subject, seconds: u32) {
    for _ in 0..seconds {
        subject.world.clock.advance(1);
        subject.world.store.clock();
        subject.world.ledger.sweep().await.unwrap();
    }
}

fn now(subject: &Subject) -> Timestamp {
    subject.world.store.now()
}

/// The months in which the calls of a tenant count, by call.
async fn months(subject: &Subject, place: Place) -> Vec<(String, String)> {
    let rows = subject.entries(place.0).await.into_iter();
    let mut months: Vec<_> = rows
        .map(|row| (row.call_id.as_str().to_owned(), row.occurred_at.month().to_string()))
        .collect();
    months.sort();
    months
}

/// Compares the store with its own rows.
fn verify(subject: &Subject) {
    let differences = subject.world.database.verify().differences;
    assert_eq!(differences.count, 0, "{:?}", differences.listed);
    let audited = subject.world.database.verify_audit().differences;
    assert_eq!(audited.count, 0, "{:?}", audited.listed);
}

fn shown(months: &[(&str, &str)]) -> Vec<(String, String)> {
    months.iter().map(|(call, month)| ((*call).to_owned(), (*month).to_owned())).collect()
}

pub(crate) async fn a_clock_that_is_ahead_for_half_a_second_changes_nothing(subject: Subject) {
    let place = exhausted(&subject).await;
    let other = subject.world.integration(place.0, "other", unlimited()).await;
    for (jump, call) in [(HOUR, "hour"), (FOUR_DAYS, "days"), (-HOUR, "behind")] {
        let before = now(&subject);
        subject.world.clock.jump(jump);
        let refused = jump > 0;
        let expected = if refused { Err(Failure::ClockJumped) } else { Ok(()) };
        assert_eq!(record(&subject, (place.0, other), &format!("{call} in it")).await, expected);
        assert_eq!(subject.world.store.check_clock().is_err(), refused);
        let rename = subject
            .world
            .control(place.0, |control: &mut Control<'_>| control.rename_tenant("other"));
        assert_eq!(rename.await.is_err(), refused);
        // Reads continue, at the time without the jump.
        let snapshot = account_snapshot(&subject.world.store, place.0, place.1).await.unwrap();
        assert_eq!(snapshot.now, before);
        assert_eq!(snapshot.account.counter(before.month()).unwrap().used.calls, 1);
        subject.world.ledger.sweep().await.unwrap();

        subject.world.clock.jump(-jump);
        assert_eq!(now(&subject), before);
        assert_eq!(is_admitted(&subject, place, call).await, Ok(false), "the budget is used up");
        assert_eq!(record(&subject, (place.0, other), call).await, Ok(()));
    }
    let all = months(&subject, place).await;
    assert!(all.iter().all(|(_, month)| month == "2026-11"), "{all:?}");
    assert_eq!(all.len(), 5, "{all:?}");
    verify(&subject);
    let subject = subject.reopened().await;
    assert_eq!(is_admitted(&subject, place, "after").await, Ok(false));
    subject.world.verify().await;
}

pub(crate) async fn a_clock_that_stays_ahead_is_adopted_after_a_minute(subject: Subject) {
    let place = exhausted(&subject).await;
    subject.world.clock.jump(FOUR_DAYS);
    advance(&subject, 59).await;
    assert_eq!(record(&subject, place, "early").await, Err(Failure::ClockJumped));
    assert_eq!(now(&subject).month().to_string(), "2026-11");
    advance(&subject, 2).await;
    assert_eq!(record(&subject, place, "december").await, Ok(()));
    assert_eq!(now(&subject), subject.world.clock.now());
    let expected = shown(&[("december", "2026-12"), ("november", "2026-11")]);
    assert_eq!(months(&subject, place).await, expected);
    let subject = subject.reopened().await;
    assert_eq!(now(&subject), subject.world.clock.now());
    subject.world.verify().await;
}

pub(crate) async fn a_restart_does_not_adopt_a_clock_that_jumped(subject: Subject) {
    let place = exhausted(&subject).await;
    subject.world.clock.jump(FOUR_DAYS);
    advance(&subject, 5).await;
    let subject = subject.reopened().await;
    assert_eq!(record(&subject, place, "early").await, Err(Failure::ClockJumped));
    subject.world.clock.jump(-FOUR_DAYS);
    assert_eq!(is_admitted(&subject, place, "later").await, Ok(false));
    assert_eq!(now(&subject), subject.world.clock.now());
    subject.world.verify().await;
}

pub(crate) async fn a_confirmation_adopts_the_clock_at_once(subject: Subject) {
    let place = exhausted(&subject).await;
    subject.world.clock.jump(FOUR_DAYS);
    assert_eq!(record(&subject, place, "early").await, Err(Failure::ClockJumped));
    let confirmed = subject.world.ledger.confirm_clock().await.unwrap();
    assert_eq!(confirmed.changed_micros, FOUR_DAYS * 1_000_000);
    assert_eq!(confirmed.now, subject.world.clock.now());
    assert_eq!(record(&subject, place, "december").await, Ok(()));
    let expected = shown(&[("december", "2026-12"), ("november", "2026-11")]);
    assert_eq!(months(&subject, place).await, expected);
    subject.world.verify().await;
}

pub(crate) async fn a_confirmed_step_back_survives_restarts(subject: Subject) {
    let place = exhausted(&subject).await;
    let rated = LimitSettings { rate_limit_rpm: 2, ..unlimited() };
    let rated = (place.0, subject.world.integration(place.0, "rated", rated).await);
    subject.world.clock.jump(FOUR_DAYS);
    advance(&subject, 61).await;
    // The wrong December was adopted and used.
    assert_eq!(record(&subject, place, "december").await, Ok(()));
    for call in ["a", "b"] {
        assert_eq!(is_admitted(&subject, rated, call).await, Ok(true));
    }
    subject.world.clock.jump(-FOUR_DAYS);
    assert_eq!(now(&subject).month().to_string(), "2026-12");
    let confirmed = subject.world.ledger.confirm_clock().await.unwrap();
    assert_eq!(confirmed.changed_micros, -FOUR_DAYS * 1_000_000);

    assert_eq!(is_admitted(&subject, place, "again").await, Ok(false), "November is used up");
    for (call, admitted) in [("c", true), ("d", true), ("e", false)] {
        assert_eq!(is_admitted(&subject, rated, call).await, Ok(admitted), "{call}");
    }
    assert_eq!(record(&subject, place, "november 2").await, Ok(()));
    let expected =
        shown(&[("december", "2026-12"), ("november", "2026-11"), ("november 2", "2026-11")]);
    assert_eq!(months(&subject, place).await, expected);
    verify(&subject);

    // A restart ignores stored instants of that time.
    let subject = subject.reopened().await;
    assert_eq!(now(&subject), subject.world.clock.now());
    assert_eq!(record(&subject, place, "november 3").await, Ok(()));
    let subject = subject.reopened().await;
    assert_eq!(now(&subject), subject.world.clock.now());
    // Once the time has passed that point, stored instants count again.
    subject.world.clock.advance(FOUR_DAYS as u32 + 3_600);
    advance(&subject, 1).await;
    let last = now(&subject);
    assert_eq!(record(&subject, place, "december 2").await, Ok(()));
    subject.world.clock.jump(-HOUR);
    let subject = subject.reopened().await;
    assert!(now(&subject) >= last, "stored instants count again");
    verify(&subject);
}

pub(crate) async fn after_a_jump_back_holds_expire_and_rates_continue(subject: Subject) {
    let place = exhausted(&subject).await;
    let rated = LimitSettings { rate_limit_rpm: 2, ..unlimited() };
    let rated = (place.0, subject.world.integration(place.0, "rated", rated).await);
    let start = now(&subject);
    assert_eq!(is_admitted(&subject, rated, "a").await, Ok(true));
    subject.world.clock.jump(-HOUR);
    assert_eq!(is_admitted(&subject, rated, "b").await, Ok(true));
    assert_eq!(is_admitted(&subject, rated, "c").await, Ok(false));
    advance(&subject, 60).await;
    // Behind a jump back, Bursar's time runs at nine tenths of the pace.
    assert_eq!(now(&subject), start.plus_seconds(54));
    assert_eq!(is_admitted(&subject, rated, "c").await, Ok(false));
    let held = subject.counter(rated, start.month()).await.held;
    assert_eq!(held.calls, 2);
    advance(&subject, 7).await;
    assert_eq!(subject.counter(rated, start.month()).await.held, Totals::default());
    assert_eq!(is_admitted(&subject, rated, "c").await, Ok(true));
    assert_eq!(is_admitted(&subject, place, "over").await, Ok(false));
    subject.world.verify().await;

    let before = now(&subject);
    let subject = subject.reopened().await;
    assert!(now(&subject) >= before, "a restart goes back");
    assert_eq!(is_admitted(&subject, rated, "d").await, Ok(true));
    assert_eq!(is_admitted(&subject, rated, "e").await, Ok(false));
    subject.world.verify().await;
}

pub(crate) async fn an_account_far_ahead_does_not_delay_decisions(subject: Subject) {
    let place = exhausted(&subject).await;
    let before = now(&subject);
    let ahead = before.micros() + FOUR_DAYS * 1_000_000;
    subject.world.database.tamper(&format!("update counters set last_at = {ahead}"));
    let other = subject.world.tenant("quiet").await;
    let others = (other, subject.world.integration(other, "other", unlimited()).await);
    for place in [place, others] {
        assert_eq!(record(&subject, place, "call").await, Ok(()));
        let snapshot = subject.account_snapshot(place.0, place.1).await;
        assert_eq!(snapshot.now, before);
    }
    assert_eq!(now(&subject), before);
    assert_eq!(is_admitted(&subject, place, "over").await, Ok(false));
    verify(&subject);
}
