//! Scripts: commands at given instants, their outcomes, and the account at the end.

#![expect(clippy::unwrap_used, reason = "a script names what it loads")]

use bursar_core::{
    Estimate, ExtendOutcome, IntegrationId, LimitSettings, Month, Outcome, ReasonCode,
    RecordOutcome, RecordRefusal, ReleaseOutcome, ReservationState, ReserveOutcome, ReserveRefusal,
    ReserveRequest, Timestamp, Totals, Usage,
};

use super::storage::{Action, Profile, Storage, Submission};
use super::{call_id, cents, integration, october, request, tenant, usage};

/// The kind of an outcome, without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    Accepted,
    Duplicate,
    Conflict,
    NotCounted(RecordRefusal),
    Held,
    Replayed,
    Refused(ReasonCode),
    Rejected(ReserveRefusal),
    Released,
    HadExpired,
    NoReservation,
    IsSettled,
    Extended,
    HadEnded(ReservationState),
    NotActive,
}

impl OutcomeKind {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Record(record) => match record {
                RecordOutcome::Accepted(_) => Self::Accepted,
                RecordOutcome::Duplicate(_) => Self::Duplicate,
                RecordOutcome::Conflict => Self::Conflict,
                RecordOutcome::Refused(refusal) => Self::NotCounted(*refusal),
            },
            Outcome::Reserve(reserve) => match reserve {
                ReserveOutcome::Held(_) => Self::Held,
                ReserveOutcome::Replayed(_) => Self::Replayed,
                ReserveOutcome::Refused(decision) => {
                    Self::Refused(decision.reasons.first().unwrap().code)
                }
                ReserveOutcome::Rejected(refusal) => Self::Rejected(*refusal),
            },
            Outcome::Release(release) => match release {
                ReleaseOutcome::Released(_) => Self::Released,
                ReleaseOutcome::Expired(_) => Self::HadExpired,
                ReleaseOutcome::NotFound => Self::NoReservation,
                ReleaseOutcome::Settled => Self::IsSettled,
            },
            Outcome::Extend(extend) => match extend {
                ExtendOutcome::Extended(_) => Self::Extended,
                ExtendOutcome::NotFound => Self::NoReservation,
                ExtendOutcome::Ended(state) => Self::HadEnded(*state),
                ExtendOutcome::TenantNotActive => Self::NotActive,
            },
        }
    }
}

/// A command at an instant, and its expected outcome.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    now: Timestamp,
    submission: Submission,
    outcome: OutcomeKind,
}

pub(crate) fn step(now: Timestamp, submission: Submission, outcome: OutcomeKind) -> Step {
    Step { now, submission, outcome }
}

/// A request of tenant 1 on integration 1, changed as the test needs.
pub(crate) fn reserve(call: &str, change: impl FnOnce(&mut ReserveRequest)) -> Submission {
    let mut request = request(integration(1), call);
    change(&mut request);
    Submission { tenant_id: tenant(1), action: Action::Reserve(request) }
}

/// A record of tenant 1 on integration 1, changed as the test needs.
pub(crate) fn record(call: &str, change: impl FnOnce(&mut Usage)) -> Submission {
    let mut usage = usage(integration(1), call);
    change(&mut usage);
    Submission { tenant_id: tenant(1), action: Action::Record(usage) }
}

/// Like [`record`], accepted only if the call is known.
pub(crate) fn record_known(call: &str, change: impl FnOnce(&mut Usage)) -> Submission {
    let mut usage = usage(integration(1), call);
    change(&mut usage);
    Submission { tenant_id: tenant(1), action: Action::RecordKnown(usage) }
}

pub(crate) fn release(call: &str, only: Option<IntegrationId>) -> Submission {
    Submission { tenant_id: tenant(1), action: Action::Release { call_id: call_id(call), only } }
}

pub(crate) fn extend(call: &str, only: Option<IntegrationId>, ttl: Option<u32>) -> Submission {
    let action = Action::Extend { call_id: call_id(call), only, ttl_seconds: ttl };
    Submission { tenant_id: tenant(1), action }
}

/// The totals of a month of integration 1: cents, tokens and calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) month: Month,
    pub(crate) used: (i64, i64, i64),
    pub(crate) held: (i64, i64, i64),
}

fn totals((of_cents, tokens, calls): (i64, i64, i64)) -> Totals {
    Totals { cost: cents(of_cents), tokens, calls }
}

/// Integrations 1 and 2 of tenant 1, with these limits on the first, and 9 of tenant 2.
pub(crate) fn storage(limits: LimitSettings) -> Storage {
    let mut storage = Storage::default();
    let none = LimitSettings::default();
    for (number, tenant_number, limits) in [(1, 1, limits), (2, 1, none), (9, 2, none)] {
        let profile = Profile::enabled(tenant(tenant_number), limits);
        storage.profiles.insert(integration(number), profile);
    }
    storage
}

/// Runs a script on a storage, and checks every outcome and, at the end, integration 1.
///
/// The script runs twice: with each step as its own group, and with all steps of one instant as one
/// group. The grouping must make no difference.
#[track_caller]
pub(crate) fn check(storage: &Storage, steps: &[Step], rate: i64, shown: &[Shown]) -> Storage {
    let alone = run(storage.clone(), steps.chunks(1), rate, shown);
    run(storage.clone(), steps.chunk_by(|one, next| one.now == next.now), rate, shown);
    alone
}

#[track_caller]
fn run<'s>(
    mut storage: Storage,
    groups: impl Iterator<Item = &'s [Step]>,
    rate: i64,
    shown: &[Shown],
) -> Storage {
    let mut end = Timestamp::MIN;
    for steps in groups {
        end = steps.first().unwrap().now;
        let group: Vec<Submission> = steps.iter().map(|step| step.submission.clone()).collect();
        let mut book = storage.load(end, &group).unwrap();
        for (index, (submission, step)) in group.iter().zip(steps).enumerate() {
            let command = submission.command(storage.entry_id(index));
            let outcome = book.apply(submission.tenant_id, submission.key(), command).unwrap();
            assert_eq!(OutcomeKind::of(&outcome), step.outcome, "{:?}", step.submission);
        }
        storage.save(book);
    }
    storage.sweep(end);
    let account = storage.account(integration(1), [], end).unwrap();
    assert_eq!(account.rate.current(end.second()), rate, "calls of the last 60 seconds");
    let mut months = storage.months(integration(1));
    months.extend(shown.iter().map(|month| month.month));
    for month in months {
        let counter = storage.counter(integration(1), month);
        let expected = shown.iter().find(|shown| shown.month == month);
        let used = expected.map_or(Totals::default(), |shown| totals(shown.used));
        let held = expected.map_or(Totals::default(), |shown| totals(shown.held));
        assert_eq!((counter.used, counter.held), (used, held), "used and held of {month}");
    }
    storage
}

/// October with these used cents, tokens and calls.
pub(crate) fn used(used: (i64, i64, i64)) -> Shown {
    Shown { month: october(), used, held: (0, 0, 0) }
}

/// October with these held cents, tokens and calls.
pub(crate) fn held(held: (i64, i64, i64)) -> Shown {
    Shown { month: october(), used: (0, 0, 0), held }
}

/// Leaves a request as it is.
pub(crate) fn as_is(_: &mut ReserveRequest) {}

/// Changes the estimate of a request.
pub(crate) fn of(of_cents: i64, tokens: i64) -> impl Fn(&mut ReserveRequest) {
    move |request| request.estimate = Estimate::new(cents(of_cents), tokens).unwrap()
}

/// A record of the call with this cost.
pub(crate) fn costs(call: &str, of_cents: i64) -> Submission {
    record(call, |usage| usage.cost = Some(cents(of_cents)))
}

pub(crate) fn rejected(refusal: ReserveRefusal) -> OutcomeKind {
    OutcomeKind::Rejected(refusal)
}
