//! The naive model of limits, which adds up their accounts from all calls.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bursar_core::{
    Action, Allowance, Bound, Calendar, Label, Limit, Measure, Period, PolicyResult,
    ReservationState, Scope, Selected, Subject, TenantId, Timestamp, Window,
};

use super::{Event, MINUTE, Naive, Recorded, Reserved, Sums};
use crate::support::calendar::TestCalendar;

/// The accounts of a limit at an instant.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// The values with an account of their own in this period, in the order in which they came.
    pub(crate) own: Vec<String>,
    own_max: usize,
    /// What is used and held, by value. The value of the shared account is empty.
    sums: BTreeMap<String, (Sums, Sums)>,
}

impl Accounts {
    /// The value of the account in which a call with this value counts.
    pub(crate) fn account_of<'v>(&self, value: &'v str) -> &'v str {
        let is_own = self.own.iter().any(|own| own == value);
        if is_own || self.own.len() < self.own_max { value } else { "" }
    }

    /// What is used and held in an account.
    pub(crate) fn sums(&self, account: &str) -> (Sums, Sums) {
        self.sums.get(account).copied().unwrap_or_default()
    }

    /// Adds up what a call with this value uses and holds.
    fn add(&mut self, value: &str, used: Sums, held: Sums) {
        let account = self.account_of(value);
        if !account.is_empty() && !self.own.iter().any(|own| own == account) {
            self.own.push(account.to_owned());
        }
        let sums = self.sums.entry(account.to_owned()).or_default();
        for (sum, more) in [(&mut sums.0, used), (&mut sums.1, held)] {
            *sum = (sum.0 + more.0, sum.1 + more.1, sum.2 + more.2);
        }
    }
}

/// How a call meets the scope of a limit.
enum Met<'a> {
    /// It falls under the limit, with this value of a limit for each value.
    Under(Cow<'a, str>),
    LabelMissing,
    No,
}

/// The amount of a limit that is in force.
pub(crate) fn amount_in_force(bound: &Bound, now: Timestamp) -> i128 {
    let (amount, overridden) = amounts(bound);
    match overridden {
        Some((instead, until)) if now < until => instead,
        _ => amount,
    }
}

/// The amount of a limit, and another one until an instant.
pub(crate) fn amounts(bound: &Bound) -> (i128, Option<(i128, Timestamp)>) {
    fn of<M: Copy>(allowance: &Allowance<M>) -> (i128, Option<(i128, Timestamp)>) {
        let overridden = allowance.overridden.map(|other| (other.amount.get(), other.until));
        (allowance.amount.get(), overridden)
    }
    match bound {
        Bound::Cost(_, allowance) => of(allowance),
        Bound::Tokens(_, allowance) => of(allowance),
        Bound::Calls(_, allowance) => of(allowance),
        Bound::Concurrent(allowance) => of(allowance),
    }
}

/// The period at an instant; `None` before a total begins.
pub(crate) fn period(limit: &Limit, at: Timestamp) -> Option<Period> {
    let always = Period { start: Timestamp::MIN, end: Timestamp::MAX };
    match limit.rule.bound.window() {
        Some(Window::Calendar(unit, zone)) => TestCalendar.period(*unit, zone, at),
        Some(Window::Total { starts_at }) if at < *starts_at => None,
        Some(Window::Total { starts_at }) => Some(Period { start: *starts_at, ..always }),
        Some(Window::Minute) | None => Some(always),
    }
}

/// The label of a call.
fn label_of<'a>(subject: &Subject<'a>, label: &Label) -> Option<Cow<'a, str>> {
    match label {
        Label::Model => subject.model.map(Cow::from),
        Label::Agent => subject.agent_id.map(Cow::from),
        Label::Session => subject.session_id.map(Cow::from),
        Label::Key => subject.account_key_id.map(|key_id| key_id.to_string().into()),
        Label::Tag(name) => {
            subject.tags.iter().find(|(known, _)| *known == &**name).map(|(_, value)| value.into())
        }
    }
}

fn met<'a>(limit: &Limit, replaced: &[String], subject: &Subject<'a>) -> Met<'a> {
    let value = match &limit.scope {
        Scope::Tenant => return Met::Under("".into()),
        Scope::Integration(id) if *id == subject.integration_id => return Met::Under("".into()),
        Scope::Integration(_) => return Met::No,
        Scope::EachIntegration => subject.integration_id.to_string().into(),
        Scope::Label { integration_id: Some(only), .. } if *only != subject.integration_id => {
            return Met::No;
        }
        Scope::Label { label, selected, .. } => match (label_of(subject, label), selected) {
            (None, _) => return Met::LabelMissing,
            (Some(value), Selected::One(named)) => {
                return if value == **named { Met::Under("".into()) } else { Met::No };
            }
            (Some(value), Selected::Each) => value,
        },
    };
    if replaced.iter().any(|other| *other == value) { Met::No } else { Met::Under(value) }
}

/// The values that have a limit of their own instead of this one for each value.
fn replaced(limit: &Limit, all: &[Limit]) -> Vec<String> {
    let alike = all.iter().filter(|other| {
        let (own, other) = (&limit.rule.bound, &other.rule.bound);
        own.measure() == other.measure()
            && match (own.window(), other.window()) {
                (Some(Window::Total { .. }), Some(Window::Total { .. })) => true,
                (own, other) => own == other,
            }
    });
    let named = alike.filter_map(|other| match (&limit.scope, &other.scope) {
        (Scope::EachIntegration, Scope::Integration(id)) => Some(id.to_string()),
        (
            Scope::Label { label, selected: Selected::Each, integration_id },
            Scope::Label {
                label: other,
                selected: Selected::One(value),
                integration_id: other_integration,
            },
        ) if label == other && integration_id == other_integration => Some(value.to_string()),
        _ => None,
    });
    named.collect()
}

/// Whether a second is one of the last 60.
fn in_last_minute(at: Timestamp, now: Timestamp) -> bool {
    at.second() > now.second() - MINUTE
}

/// What a reservation uses and holds in the accounts where it was made.
///
/// `now` decides whether it is open, and `at` whether it is in the last minute.
fn of_reservation(
    bound: &Bound,
    reserved: &Reserved,
    now: Timestamp,
    at: Timestamp,
) -> (Sums, Sums) {
    let nothing = (0, 0, 0);
    let estimate = reserved.request.estimate;
    let amount = (estimate.cost.get(), estimate.tokens, 1);
    let state = reserved.state(now);
    match (bound.window(), state) {
        (Some(Window::Minute), _) if !in_last_minute(reserved.made_at, at) => (nothing, nothing),
        (Some(Window::Minute), ReservationState::Released | ReservationState::Expired) => {
            ((0, 0, 1), nothing)
        }
        (_, ReservationState::Open) => (nothing, amount),
        (_, _) => (nothing, nothing),
    }
}

impl Naive {
    pub(super) fn limits_version(&self, tenant_id: TenantId) -> i64 {
        self.limits.get(&tenant_id).map_or(0, |set| set.version())
    }

    /// The limits of a tenant, ordered by id.
    pub(crate) fn limits_of(&self, tenant_id: TenantId) -> &[Limit] {
        self.limits.get(&tenant_id).map_or(&[], |set| set.limits())
    }

    /// The limits that count a call now, with its value.
    pub(crate) fn limits_over<'a>(
        &'a self,
        tenant_id: TenantId,
        subject: &Subject<'a>,
        now: Timestamp,
    ) -> Vec<(&'a Limit, Cow<'a, str>)> {
        let all = self.limits_of(tenant_id);
        let begun = all.iter().filter(|limit| period(limit, now).is_some());
        let over = begun.filter_map(|limit| match met(limit, &replaced(limit, all), subject) {
            Met::Under(value) => Some((limit, value)),
            Met::LabelMissing | Met::No => None,
        });
        over.collect()
    }

    /// Whether another limit takes the place of this one for a call.
    pub(crate) fn is_replaced(
        &self,
        tenant_id: TenantId,
        limit: &Limit,
        subject: &Subject<'_>,
    ) -> bool {
        let replaced = replaced(limit, self.limits_of(tenant_id));
        matches!(met(limit, &[], subject), Met::Under(_))
            && matches!(met(limit, &replaced, subject), Met::No)
    }

    /// Whether a limit requires a label that the call does not have.
    pub(super) fn is_label_missing(
        &self,
        tenant_id: TenantId,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> bool {
        let mut required = self
            .limits_of(tenant_id)
            .iter()
            .filter(|limit| limit.enabled && limit.required && period(limit, now).is_some());
        required.any(|limit| matches!(met(limit, &[], subject), Met::LabelMissing))
    }

    /// The measures of the limits that can refuse a call.
    pub(super) fn measures_that_refuse(
        &self,
        tenant_id: TenantId,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Vec<Measure> {
        let of_integration = self.built_in_lines(subject.integration_id, now);
        let of_integration = of_integration.iter().map(|line| line.measure);
        let over = self.limits_over(tenant_id, subject, now);
        let refuse = over
            .iter()
            .map(|(limit, _)| limit)
            .filter(|limit| limit.enabled && limit.rule.action != Action::Warn);
        of_integration.chain(refuse.map(|limit| limit.rule.bound.measure())).collect()
    }

    /// The accounts of a limit now.
    pub(crate) fn accounts(&self, tenant_id: TenantId, limit: &Limit, now: Timestamp) -> Accounts {
        self.accounts_at(tenant_id, limit, now, now)
    }

    /// The accounts of a limit at a later instant, if nothing else happens and no hold expires.
    pub(super) fn accounts_at(
        &self,
        tenant_id: TenantId,
        limit: &Limit,
        now: Timestamp,
        at: Timestamp,
    ) -> Accounts {
        let own_max = usize::try_from(self.caps.values_per_limit).unwrap_or(usize::MAX);
        let mut accounts = Accounts { own_max, ..Accounts::default() };
        let Some(period) = period(limit, now) else { return accounts };
        let replaced = replaced(limit, self.limits_of(tenant_id));
        let bound = &limit.rule.bound;
        for event in &self.events {
            let (subject, sums) = match *event {
                Event::Reserved(index) => {
                    let Some(reserved) = self.reservations.get(index) else { continue };
                    if reserved.tenant_id != tenant_id || !period.contains(reserved.made_at) {
                        continue;
                    }
                    let sums = of_reservation(bound, reserved, now, at);
                    (reserved.request.subject(), sums)
                }
                Event::Recorded(index) => {
                    let Some(record) = self.records.get(index) else { continue };
                    if record.tenant_id != tenant_id || !period.contains(record.arrived_at) {
                        continue;
                    }
                    let Some(used) = self.of_record(bound, period, record, at) else { continue };
                    (record.usage.subject(record.account_key_id), (used, (0, 0, 0)))
                }
            };
            if let Met::Under(value) = met(limit, &replaced, &subject) {
                accounts.add(&value, sums.0, sums.1);
            }
        }
        accounts
    }

    /// What a record uses; `None` if it did not count when it arrived.
    fn of_record(
        &self,
        bound: &Bound,
        period: Period,
        record: &Recorded,
        at: Timestamp,
    ) -> Option<Sums> {
        let tokens = record.usage.tokens.tokens_in() + record.usage.tokens.tokens_out();
        let calls = i64::from(record.usage.policy_result != PolicyResult::Blocked);
        let happened = record.occurred_at.min(record.arrived_at);
        match bound.window() {
            None => None,
            Some(Window::Calendar(..) | Window::Total { .. }) => {
                (happened >= period.start).then_some((record.cost, tokens, calls))
            }
            Some(Window::Minute) => {
                let reserved = record.reservation.and_then(|index| self.reservations.get(index));
                let counts_at = reserved.map_or(happened, |reserved| reserved.made_at);
                let has_counted = reserved.is_some_and(|reserved| {
                    !matches!(reserved.ended, Some((ReservationState::Settled, _)))
                });
                let used = (record.cost, tokens, if has_counted { 0 } else { calls });
                let still = if in_last_minute(counts_at, at) { used } else { (0, 0, 0) };
                in_last_minute(counts_at, record.arrived_at).then_some(still)
            }
        }
    }
}
