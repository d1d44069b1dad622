//! A tenant with limits, for tests of one rule at a time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test names what it loads")]

use std::sync::Arc;

use bursar_core::{
    Action, Allowance, Bound, Calendar, CalendarUnit, Concurrent, Cost, Decision, Label, Limit,
    LimitAccountKey, LimitId, LimitSet, LimitSettings, LimitState, Outcome, Period, ReasonCode,
    ReserveOutcome, Rule, Scope, Selected, Timestamp, Verdict, WarnPercents, Window, Zone,
};

use super::calendar::TestCalendar;
use super::script;
use super::storage::{Storage, Submission};
use super::tenant;

pub(crate) fn limit_id(number: i64) -> LimitId {
    LimitId::from_number(number).unwrap()
}

/// An enabled limit that blocks.
pub(crate) fn limit(number: i64, scope: Scope, bound: Bound) -> Limit {
    let rule = Rule { bound, action: Action::Block, warn_percents: WarnPercents::NONE };
    Limit { id: limit_id(number), scope, rule, required: false, enabled: true }
}

/// Each value of a label, of all integrations.
pub(crate) fn each(label: Label) -> Scope {
    Scope::Label { label, selected: Selected::Each, integration_id: None }
}

/// One value of a label, of all integrations.
pub(crate) fn only(label: Label, value: &str) -> Scope {
    Scope::Label { label, selected: Selected::One(value.into()), integration_id: None }
}

pub(crate) fn day() -> Window {
    Window::Calendar(CalendarUnit::Day, Zone::utc())
}

pub(crate) fn total() -> Window {
    Window::Total { starts_at: Timestamp::MIN }
}

pub(crate) fn cost(window: Window, of_cents: i128) -> Bound {
    Bound::Cost(window, Allowance::<Cost>::new(of_cents * 10_000_000))
}

pub(crate) fn calls(window: Window, calls: i128) -> Bound {
    Bound::Calls(window, Allowance::new(calls))
}

pub(crate) fn concurrent(calls: i128) -> Bound {
    Bound::Concurrent(Allowance::<Concurrent>::new(calls))
}

/// Tenant 1 with integrations 1 and 2, and limits.
#[derive(Clone, Debug)]
pub(crate) struct Limited {
    pub(crate) storage: Storage,
    limits: Arc<LimitSet>,
}

impl Limited {
    pub(crate) fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        let storage = script::storage(LimitSettings::default());
        let mut limited = Self { storage, limits: Arc::default() };
        limited.set_limits(limits);
        limited
    }

    /// Replaces all limits by these, as a later version.
    pub(crate) fn set_limits(&mut self, limits: impl IntoIterator<Item = Limit>) {
        let version = self.limits.version() + 1;
        self.limits = Arc::new(LimitSet::new(version, limits.into_iter().collect()));
        self.storage.limits.set(tenant(1), Arc::clone(&self.limits));
    }

    /// Runs one command as a group.
    pub(crate) fn run(&mut self, now: Timestamp, submission: &Submission) -> Outcome {
        let group = std::slice::from_ref(submission);
        let mut book = self.storage.load(now, group).unwrap();
        let command = submission.command(self.storage.entry_id(0));
        let outcome = book.apply(submission.tenant_id, submission.key(), command).unwrap();
        self.storage.save(book);
        outcome
    }

    /// The decision about a request for a reservation.
    #[track_caller]
    pub(crate) fn decision(&mut self, now: Timestamp, submission: &Submission) -> Decision {
        let Outcome::Reserve(outcome) = self.run(now, submission) else {
            panic!("no request for a reservation: {submission:?}")
        };
        match outcome {
            ReserveOutcome::Held(held) => held.decision,
            ReserveOutcome::Refused(decision) => decision,
            ReserveOutcome::Replayed(_) | ReserveOutcome::Rejected(_) => {
                panic!("{outcome:?} of {submission:?}")
            }
        }
    }

    #[track_caller]
    pub(crate) fn admits(&mut self, now: Timestamp, submission: &Submission) {
        let decision = self.decision(now, submission);
        assert!(decision.verdict.admits(), "{decision:?} of {submission:?}");
    }

    /// The first reason of a refusal.
    #[track_caller]
    pub(crate) fn blocks(&mut self, now: Timestamp, submission: &Submission) -> ReasonCode {
        let decision = self.decision(now, submission);
        assert_eq!(decision.verdict, Verdict::Blocked, "{submission:?}");
        decision.reasons.first().unwrap().code
    }

    /// The state of an account; the value is empty for a limit without values.
    pub(crate) fn state(&self, number: i64, value: &str, now: Timestamp) -> LimitState {
        let limit = self.limits.get(limit_id(number)).unwrap();
        let bound = &limit.rule.bound;
        let key = LimitAccountKey { tenant_id: tenant(1), limit_id: limit.id, value: value.into() };
        let account = self.storage.limit_account(&key, now).unwrap();
        account.state(bound, bound.period(&TestCalendar, now).unwrap().unwrap(), now).unwrap()
    }

    /// What is used and held in an account.
    pub(crate) fn sums(&self, number: i64, value: &str, now: Timestamp) -> (i128, i128) {
        let state = self.state(number, value, now);
        (state.used, state.held)
    }

    /// The number of values with an account of their own.
    pub(crate) fn values(&self, number: i64) -> i64 {
        let key = LimitAccountKey {
            tenant_id: tenant(1),
            limit_id: limit_id(number),
            value: Arc::default(),
        };
        self.storage.limits.values(&key).map_or(0, |(_, values)| values)
    }
}

/// The period of a zone.
pub(crate) fn zoned_period(unit: CalendarUnit, zone: &str, at: Timestamp) -> Period {
    TestCalendar.period(unit, &Zone::new(zone), at).unwrap()
}
