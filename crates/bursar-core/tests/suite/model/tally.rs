//! What occurred in the runs, so that no rule stays untried.

use std::collections::BTreeMap;

use bursar_core::{
    CalendarUnit, Decision, Label, Limit, LimitAccountKey, Outcome, ReservationState,
    ReserveOutcome, Scope, Selected, Timestamp, Window,
};

use crate::support::naive::decide::refusing;
use crate::support::naive::limits::{amount_in_force, amounts, period};
use crate::support::naive::{Naive, Reserved};
use crate::support::script::OutcomeKind;
use crate::support::storage::{Action, Submission};

/// How often each of these must occur.
const TIMES_MIN: usize = 100;

/// The number of steps by outcome, and of decisions by kind of limit.
#[derive(Debug, Default)]
pub(super) struct Tally {
    steps: usize,
    outcomes: BTreeMap<String, usize>,
    limits: BTreeMap<(String, &'static str), usize>,
    moments: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.steps += 1;
        *self.outcomes.entry(format!("{:?}", OutcomeKind::of(outcome))).or_default() += 1;
    }

    /// Counts something that a run must come to; see [`MOMENTS`].
    pub(super) fn count_moment(&mut self, moment: &'static str) {
        *self.moments.entry(moment).or_default() += 1;
    }

    /// Counts which limits admitted and refused a call.
    pub(super) fn count_decision(
        &mut self,
        naive: &Naive,
        submission: &Submission,
        outcome: &Outcome,
        now: Timestamp,
    ) {
        let (Outcome::Reserve(outcome), Action::Reserve(request)) = (outcome, &submission.action)
        else {
            return;
        };
        let (tenant_id, subject) = (submission.tenant_id, request.subject());
        match outcome {
            ReserveOutcome::Held(reservation) => {
                let set = naive.limits.get(&tenant_id).unwrap();
                if set.limits().iter().any(|limit| naive.is_replaced(tenant_id, limit, &subject)) {
                    self.count_moment("a limit named the value of another one for each value");
                }
                for posting in reservation.postings.iter() {
                    let limit = set.get(posting.account.limit_id).unwrap();
                    self.count_admission(limit, &posting.account, now);
                }
            }
            ReserveOutcome::Refused(decision) if is_by_limits(decision) => {
                let lines = naive.lines(tenant_id, &subject, now);
                let refusing = refusing(&lines, request.estimate);
                for (limit, _) in refusing.iter().filter_map(|line| line.of.as_ref()) {
                    self.count_limit(limit, "refused");
                }
            }
            ReserveOutcome::Refused(_)
            | ReserveOutcome::Replayed(_)
            | ReserveOutcome::Rejected(_) => {}
        }
    }

    fn count_admission(&mut self, limit: &Limit, key: &LimitAccountKey, now: Timestamp) {
        if limit.enabled && limit.rule.action.refuses() {
            self.count_limit(limit, "admitted");
        }
        if limit.is_for_each() && key.value.is_empty() {
            self.count_moment("a value shared an account");
        }
        if amount_in_force(&limit.rule.bound, now) != amounts(&limit.rule.bound).0 {
            self.count_moment("an override was in force");
        }
    }

    fn count_limit(&mut self, limit: &Limit, what: &'static str) {
        let window = window_kind(limit.rule.bound.window());
        let measure = format!("{:?} {window}", limit.rule.bound.measure());
        for kind in [scope_kind(&limit.scope).to_owned(), measure] {
            *self.limits.entry((kind, what)).or_default() += 1;
        }
    }

    /// Counts the holds that are open while a period of their limits ends.
    pub(super) fn count_edges(&mut self, naive: &Naive, before: Timestamp, now: Timestamp) {
        if before == now {
            return;
        }
        let open = |reserved: &&Reserved| reserved.state(now) == ReservationState::Open;
        for reserved in naive.reservations.iter().filter(open) {
            let limits = naive.limits_over(reserved.tenant_id, &reserved.request.subject(), now);
            let ends = |limit: &Limit| period(limit, before) != period(limit, now);
            if limits.iter().any(|(limit, _)| ends(limit)) {
                self.count_moment("a hold was open at the end of a period");
            }
        }
    }

    /// Checks that every outcome, and every kind of limit, occurred often enough.
    pub(super) fn check(&self) {
        let words = "Accepted Duplicate Conflict NotCounted(IntegrationNotFound) \
            NotCounted(InTheFuture) NotCounted(UnknownCall) NotCounted(StoredBytesExceeded) Held Replayed Refused(IntegrationNotFound) \
            Refused(IntegrationDisabled) Refused(IntegrationNotEnabled) Refused(IntegrationError) \
            Refused(CredentialsInvalid) Refused(TenantSuspended) Refused(BudgetExceeded) \
            Refused(TokenLimitExceeded) Refused(RateLimitExceeded) Refused(CallLimitExceeded) \
            Refused(ConcurrencyExceeded) Refused(ScopeMissing) Rejected(CallRecorded) \
            Rejected(CallEnded(Released)) Rejected(CallEnded(Expired)) Rejected(OtherContent) \
            Rejected(TooManyOpen(Integration(1))) Rejected(TooManyOpen(Integration(2))) \
            Rejected(TooManyOpen(Tenant(2))) Rejected(TooManyOpen(Tenant(3))) \
            Rejected(CostEstimateRequired) Rejected(TokenEstimateRequired) Released HadExpired \
            NoReservation IsSettled Extended HadEnded(Settled) HadEnded(Released) HadEnded(Expired) \
            NotActive";
        for word in words.split_whitespace() {
            let times = self.outcomes.get(word).copied().unwrap_or_default();
            assert!(times >= TIMES_MIN, "{word} came {times} times only: {self:#?}");
        }
        let windows = ["minute", "hour", "day", "week", "month", "total"];
        let of_windows = ["Cost", "Tokens", "Calls"]
            .iter()
            .flat_map(|measure| windows.map(|window| format!("{measure} {window}")));
        let kinds = SCOPES.iter().map(|kind| (*kind).to_owned()).chain(of_windows);
        for kind in kinds.chain(["Concurrent open".to_owned()]) {
            for what in ["admitted", "refused"] {
                let times = self.limits.get(&(kind.clone(), what)).copied().unwrap_or_default();
                assert!(times >= TIMES_MIN, "{kind} {what} {times} times only: {self:#?}");
            }
        }
        for moment in MOMENTS {
            let times = self.moments.get(moment).copied().unwrap_or_default();
            assert!(times >= TIMES_MIN, "{moment} {times} times only: {self:#?}");
        }
        assert!(self.steps >= 100_000, "{self:#?}");
    }
}

fn is_by_limits(decision: &Decision) -> bool {
    decision.reasons.iter().any(|reason| reason.measure.is_some())
}

const MOMENTS: [&str; 5] = [
    "a hold took the last of a budget",
    "a hold was open at the end of a period",
    "a limit named the value of another one for each value",
    "a value shared an account",
    "an override was in force",
];

const SCOPES: [&str; 13] = [
    "tenant",
    "integration",
    "each integration",
    "model",
    "each model",
    "agent",
    "each agent",
    "session",
    "each session",
    "key",
    "each key",
    "tag",
    "each tag",
];

fn scope_kind(scope: &Scope) -> &'static str {
    let (label, selected) = match scope {
        Scope::Tenant => return "tenant",
        Scope::Integration(_) => return "integration",
        Scope::EachIntegration => return "each integration",
        Scope::Label { label, selected, .. } => (label, selected),
    };
    match (label, selected) {
        (Label::Model, Selected::One(_)) => "model",
        (Label::Model, Selected::Each) => "each model",
        (Label::Agent, Selected::One(_)) => "agent",
        (Label::Agent, Selected::Each) => "each agent",
        (Label::Session, Selected::One(_)) => "session",
        (Label::Session, Selected::Each) => "each session",
        (Label::Key, Selected::One(_)) => "key",
        (Label::Key, Selected::Each) => "each key",
        (Label::Tag(_), Selected::One(_)) => "tag",
        (Label::Tag(_), Selected::Each) => "each tag",
    }
}

fn window_kind(window: Option<&Window>) -> &'static str {
    match window {
        None => "open",
        Some(Window::Minute) => "minute",
        Some(Window::Calendar(CalendarUnit::Hour, _)) => "hour",
        Some(Window::Calendar(CalendarUnit::Day, _)) => "day",
        Some(Window::Calendar(CalendarUnit::Week, _)) => "week",
        Some(Window::Calendar(CalendarUnit::Month, _)) => "month",
        Some(Window::Total { .. }) => "total",
    }
}
