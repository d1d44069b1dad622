//! The integrations that are nearest to their monthly limits.

use std::collections::HashMap;

use bursar_core::{
    AccountSums, BuiltInLimit, Counter, IntegrationId, LimitSettings, LimitState, Measure, Month,
    TenantId,
};

/// A live integration with a monthly limit, and its current month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearLimit {
    pub tenant_id: TenantId,
    pub integration_id: IntegrationId,
    pub limits: LimitSettings,
    /// The current month.
    pub month: Month,
    /// The counter of that month, without holds that are due.
    pub counter: Counter,
}

impl NearLimit {
    /// The state of a monthly limit; `None` if there is no such limit.
    pub fn state(&self, measure: Measure) -> Option<LimitState> {
        let matches = |limit: &BuiltInLimit| match limit {
            BuiltInLimit::Budget(_) | BuiltInLimit::Tokens(_) => limit.measure() == measure,
            BuiltInLimit::Rate(_) => false,
        };
        let limit = self.limits.limits().find(matches)?;
        let sums = AccountSums { month: self.month, counter: self.counter, calls_last_minute: 0 };
        Some(sums.state(limit))
    }

    /// The highest used share of a limit, in millionths.
    fn limit_share_millionths(&self) -> i128 {
        let share =
            |measure| self.state(measure).map(|state| state.taken() * 1_000_000 / state.amount);
        share(Measure::Cost).max(share(Measure::Tokens)).unwrap_or(0)
    }
}

/// Keeps the accounts nearest to their limits, with memory for twice the requested number.
///
/// A tenant gets more than a quarter of the rows only if no other tenant needs them.
#[derive(Clone)]
pub(crate) struct NearLimits {
    kept: Vec<NearLimit>,
    limit: usize,
}

impl NearLimits {
    pub(crate) fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit }
    }

    pub(crate) fn offer(&mut self, account: NearLimit) {
        self.kept.push(account);
        if self.kept.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    /// The accounts, the nearest to a limit first, then by id.
    pub(crate) fn into_rows(mut self) -> Vec<NearLimit> {
        self.cut();
        self.kept
    }

    fn cut(&mut self) {
        let order = |account: &NearLimit| {
            (
                std::cmp::Reverse(account.limit_share_millionths()),
                account.tenant_id,
                account.integration_id,
            )
        };
        self.kept.sort_unstable_by_key(order);
        if self.kept.len() > self.limit {
            let share = (self.limit / 4).max(1);
            let mut of_tenants: HashMap<TenantId, usize> = HashMap::new();
            let (mut fair, rest): (Vec<_>, Vec<_>) = self.kept.drain(..).partition(|account| {
                let rank = of_tenants.entry(account.tenant_id).or_default();
                *rank += 1;
                *rank <= share
            });
            fair.truncate(self.limit);
            let left = self.limit - fair.len();
            fair.extend(rest.into_iter().take(left));
            fair.sort_unstable_by_key(order);
            self.kept = fair;
        }
    }
}
