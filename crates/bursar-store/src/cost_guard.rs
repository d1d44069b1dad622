//! The operator's limit on what a tenant may spend on a UTC day.
//!
//! It is a limit like those of tenants, with the configured amount in every tenant. An override of
//! the dimension `cost` replaces the amount of a tenant for a time.

use std::sync::atomic::{AtomicU32, Ordering};

use bursar_core::{
    Action, Allowance, Bound, CalendarUnit, Day, Limit, LimitAccount, LimitId, NANOS_PER_CENT,
    Override, Period, Quantity, Rule, Scope, Timestamp, WarnPercents, Window, Zone,
};

/// The override of a tenant: cents, 0 for unlimited, and until when.
pub(crate) type CostOverride = (u32, Timestamp);

/// The configured amount, shared by the readers and writers of a store.
#[derive(Debug, Default)]
pub(crate) struct CostGuard {
    /// 0 means unlimited.
    cents_per_day: AtomicU32,
}

impl CostGuard {
    /// Sets the amount in cents; 0 means unlimited.
    pub(crate) fn set(&self, cents_per_day: u32) {
        self.cents_per_day.store(cents_per_day, Ordering::Relaxed);
    }

    /// The limit with some amount.
    pub(crate) fn any_limit() -> Option<Limit> {
        let guard = Self::default();
        guard.set(1);
        guard.limit(None)
    }

    /// The limit of a tenant, if its cost is limited or overridden.
    pub(crate) fn limit(&self, overridden: Option<CostOverride>) -> Option<Limit> {
        let cents_per_day = self.cents_per_day.load(Ordering::Relaxed);
        if cents_per_day == 0 && overridden.is_none() {
            return None;
        }
        let allowance = Allowance {
            amount: amount(cents_per_day),
            overridden: overridden.map(|(cents, until)| Override { amount: amount(cents), until }),
        };
        let day = Window::Calendar(CalendarUnit::Day, Zone::utc());
        let rule = Rule {
            bound: Bound::Cost(day, allowance),
            action: Action::Block,
            warn_percents: WarnPercents::NONE,
        };
        let (id, scope) = (LimitId::COST_GUARD, Scope::Tenant);
        Some(Limit { id, scope, rule, required: false, enabled: true })
    }
}

/// The UTC day of an instant, if an account of the operator's limit has not begun it.
///
/// The limit counts its whole day, also if it is new. Storage adds up what was spent before the
/// account begins, and the account begins with that. Accounts of other limits begin at zero.
pub(crate) fn day_to_begin(
    limit_id: LimitId,
    account: &LimitAccount,
    now: Timestamp,
) -> Option<Period> {
    let (day, next) = (now.day(), Day::from_number(now.day().number() + 1));
    let day = Period { start: day.start(), end: next.start() };
    (limit_id == LimitId::COST_GUARD && !account.is_in_use(day)).then_some(day)
}

fn amount<M>(cents: u32) -> Quantity<M> {
    match cents {
        0 => Quantity::UNLIMITED,
        _ => Quantity::new(i128::from(cents) * i128::from(NANOS_PER_CENT)),
    }
}
