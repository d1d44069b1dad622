//! Limits as data: which calls they count, what they measure, over which window, and what they do.

use std::collections::HashSet;
use std::sync::Arc;

use crate::id::{LimitId, TenantId};
use crate::measure::{Calls, Concurrent, Cost, Measure, Quantity, Tokens};
use crate::period::{Calendar, CalendarUnit, Period, Zone};
use crate::posting::LimitAccountKey;
use crate::scope::{Scope, Selected};
use crate::subject::Subject;
use crate::time::Timestamp;

/// The share of a limit from which on calls get a warning, in percent.
pub(crate) const DEFAULT_WARN_PERCENT: u8 = 80;

/// The span of time over which a limit adds up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The last 60 seconds, to the second.
    Minute,
    /// Calendar periods of a time zone.
    Calendar(CalendarUnit, Zone),
    /// Everything from an instant on: a prepaid amount.
    Total { starts_at: Timestamp },
}

/// Another amount until an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Override<M> {
    pub amount: Quantity<M>,
    /// The first instant at which the limit's own amount counts again.
    pub until: Timestamp,
}

/// The amount of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Allowance<M> {
    pub amount: Quantity<M>,
    pub overridden: Option<Override<M>>,
}

impl<M: Copy> Allowance<M> {
    /// An amount without an override.
    pub const fn new(amount: i128) -> Self {
        Self { amount: Quantity::new(amount), overridden: None }
    }

    /// The amount in force at an instant.
    pub fn at(&self, now: Timestamp) -> Quantity<M> {
        match self.overridden {
            Some(Override { amount, until }) if now < until => amount,
            Some(_) | None => self.amount,
        }
    }
}

/// What a limit measures, over which window, and how much it allows.
///
/// An amount can only be compared with sums of its own measure. Open reservations have no window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    Cost(Window, Allowance<Cost>),
    Tokens(Window, Allowance<Tokens>),
    Calls(Window, Allowance<Calls>),
    Concurrent(Allowance<Concurrent>),
}

impl Bound {
    pub const fn measure(&self) -> Measure {
        match self {
            Self::Cost(..) => Measure::Cost,
            Self::Tokens(..) => Measure::Tokens,
            Self::Calls(..) => Measure::Calls,
            Self::Concurrent(_) => Measure::Concurrent,
        }
    }

    /// The window; `None` for open reservations.
    pub const fn window(&self) -> Option<&Window> {
        match self {
            Self::Cost(window, _) | Self::Tokens(window, _) | Self::Calls(window, _) => {
                Some(window)
            }
            Self::Concurrent(_) => None,
        }
    }

    /// The period at an instant; `None` if the limit does not count yet.
    ///
    /// A window without periods has one that never ends.
    ///
    /// # Errors
    /// [`UnknownPeriod`] if the calendar does not know the time zone.
    pub fn period(
        &self,
        calendar: &dyn Calendar,
        at: Timestamp,
    ) -> Result<Option<Period>, UnknownPeriod> {
        let always = Period { start: Timestamp::MIN, end: Timestamp::MAX };
        match self.window() {
            Some(Window::Calendar(unit, zone)) => {
                calendar.period(*unit, zone, at).map(Some).ok_or(UnknownPeriod)
            }
            Some(Window::Total { starts_at }) => {
                let period = Period { start: *starts_at, ..always };
                Ok((at >= *starts_at).then_some(period))
            }
            Some(Window::Minute) | None => Ok(Some(always)),
        }
    }

    /// Whether it allows any amount at an instant.
    pub(crate) fn is_unlimited(&self, now: Timestamp) -> bool {
        match self {
            Self::Cost(_, allowance) => allowance.at(now).is_unlimited(),
            Self::Tokens(_, allowance) => allowance.at(now).is_unlimited(),
            Self::Calls(_, allowance) => allowance.at(now).is_unlimited(),
            Self::Concurrent(allowance) => allowance.at(now).is_unlimited(),
        }
    }

    /// Whether two limits add up the same: measure, window and time zone.
    fn adds_up_like(&self, other: &Self) -> bool {
        let windows_agree = match (self.window(), other.window()) {
            (Some(Window::Total { .. }), Some(Window::Total { .. })) => true,
            (own, others) => own == others,
        };
        self.measure() == other.measure() && windows_agree
    }
}

/// A period cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the calendar does not know the time zone of a limit")]
pub struct UnknownPeriod;

/// What happens to a call that would exceed a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Refuse it until the period ends, the limit is raised or holds end.
    Block,
    /// Refuse it for now; the decision says when to retry.
    Throttle,
    /// Admit it with a warning.
    Warn,
}

impl Action {
    /// Whether a limit with this action refuses calls.
    pub const fn refuses(self) -> bool {
        match self {
            Self::Block | Self::Throttle => true,
            Self::Warn => false,
        }
    }
}

/// The shares of a limit, in percent, from which on calls get a warning: up to 5, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WarnPercents([u8; 5]);

impl WarnPercents {
    /// No warnings.
    pub const NONE: Self = Self([0; 5]);
    /// A warning from 80 % on (docs/concepts.md).
    pub const DEFAULT: Self = Self([DEFAULT_WARN_PERCENT, 0, 0, 0, 0]);

    /// Checks shares; `None` unless they are up to 5, ascending, and from 1 to 100.
    pub fn new(percents: &[u8]) -> Option<Self> {
        let ascend = percents.windows(2).all(|pair| pair.first() < pair.last());
        let in_range = percents.iter().all(|percent| (1..=100).contains(percent));
        let mut kept = [0; 5];
        kept.get_mut(..percents.len())?.copy_from_slice(percents);
        (ascend && in_range).then_some(Self(kept))
    }

    /// The shares, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u8> {
        self.0.into_iter().filter(|percent| *percent > 0)
    }
}

/// What a limit allows, and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub bound: Bound,
    pub action: Action,
    pub warn_percents: WarnPercents,
}

/// A limit of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    pub id: LimitId,
    pub scope: Scope,
    pub rule: Rule,
    /// Whether a call without the label is refused.
    pub required: bool,
    /// A limit that is not enabled counts, and refuses nothing.
    pub enabled: bool,
}

impl Limit {
    /// Whether each value has an account of its own.
    pub const fn is_for_each(&self) -> bool {
        match &self.scope {
            Scope::EachIntegration | Scope::Label { selected: Selected::Each, .. } => true,
            Scope::Tenant | Scope::Integration(_) | Scope::Label { .. } => false,
        }
    }

    /// The value of a subject that the limit looks at, in its text form.
    fn value(&self, subject: &Subject<'_>) -> Value {
        match &self.scope {
            Scope::Tenant => Value::Is(Arc::default()),
            Scope::Integration(id) if *id == subject.integration_id => Value::Is(Arc::default()),
            Scope::Integration(_) => Value::OtherIntegration,
            Scope::EachIntegration => Value::Is(subject.integration_id.to_string().into()),
            Scope::Label { label, integration_id, .. } => {
                if integration_id.is_some_and(|id| id != subject.integration_id) {
                    return Value::OtherIntegration;
                }
                subject.label(label).map_or(Value::Missing, Value::Is)
            }
        }
    }

    /// Whether the limit refuses calls without its label, and this is one.
    pub(crate) fn misses_label(&self, subject: &Subject<'_>) -> bool {
        self.enabled && self.required && matches!(self.value(subject), Value::Missing)
    }

    /// The value for which this limit takes the place of `each`, a limit for each value.
    fn replaces(&self, each: &Self) -> Option<Box<str>> {
        if !self.rule.bound.adds_up_like(&each.rule.bound) {
            return None;
        }
        match (&self.scope, &each.scope) {
            (Scope::Integration(id), Scope::EachIntegration) => Some(id.to_string().into()),
            (
                Scope::Label { label, selected: Selected::One(value), integration_id },
                Scope::Label { label: each, selected: Selected::Each, integration_id: only },
            ) if label == each && integration_id == only => Some(value.clone()),
            _ => None,
        }
    }
}

/// What a subject has for the scope of a limit.
enum Value {
    Is(Arc<str>),
    /// The limit counts calls of another integration.
    OtherIntegration,
    /// The call does not have the label.
    Missing,
}

/// All limits of a tenant, at one version.
#[derive(Clone, Debug, Default)]
pub struct LimitSet {
    version: i64,
    /// Ordered by id.
    limits: Vec<Limit>,
    /// For each limit, the values that have a limit of their own instead.
    replaced: Vec<HashSet<Box<str>>>,
}

/// A limit that a call falls under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The index into [`LimitSet::limits`].
    pub index: usize,
    /// The value of a limit for each value; empty for other limits.
    pub value: Arc<str>,
}

impl LimitSet {
    /// The set of these limits. A change of a limit makes a set of a later version.
    pub fn new(version: i64, mut limits: Vec<Limit>) -> Self {
        limits.sort_unstable_by_key(|limit| limit.id);
        let replaced =
            |each: &Limit| limits.iter().filter_map(|limit| limit.replaces(each)).collect();
        let replaced = limits.iter().map(replaced).collect();
        Self { version, limits, replaced }
    }

    pub const fn version(&self) -> i64 {
        self.version
    }

    /// The limits, ordered by id.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The limits that a call falls under, ordered by id.
    pub fn applied(&self, subject: &Subject<'_>) -> Vec<Applied> {
        let applied = |(index, (limit, replaced)): (usize, (&Limit, &HashSet<Box<str>>))| {
            let Value::Is(value) = limit.value(subject) else { return None };
            if let Scope::Label { selected: Selected::One(named), .. } = &limit.scope {
                return (**named == *value).then(|| Applied { index, value: Arc::default() });
            }
            (!replaced.contains(&*value)).then_some(Applied { index, value })
        };
        self.limits.iter().zip(&self.replaced).enumerate().filter_map(applied).collect()
    }

    /// The keys of all accounts that a decision about a call may need.
    ///
    /// For a limit for each value these are the account of the value and the shared one.
    pub fn account_keys(&self, tenant_id: TenantId, subject: &Subject<'_>) -> Vec<LimitAccountKey> {
        let mut keys = Vec::new();
        for Applied { index, value } in self.applied(subject) {
            let Some(limit) = self.limits.get(index) else { continue };
            let key = |value| LimitAccountKey { tenant_id, limit_id: limit.id, value };
            if limit.is_for_each() {
                keys.push(key(Arc::default()));
            }
            keys.push(key(value));
        }
        keys
    }

    /// A limit of this id.
    pub fn get(&self, id: LimitId) -> Option<&Limit> {
        let index = self.limits.binary_search_by_key(&id, |limit| limit.id).ok()?;
        self.limits.get(index)
    }
}
