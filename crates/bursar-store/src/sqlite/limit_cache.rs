//! The cache of limits and their accounts, which the writer loads from and decisions read.
//!
//! It changes only after a commit that is known to have succeeded, and is cleared if the result of
//! a commit is unknown.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bursar_core::{
    Hold, HoldChange, LimitAccount, LimitAccountKey, LimitId, LimitSet, LimitValues, LoadedLimits,
    Overflow, Subject, TenantId, Timestamp,
};
use parking_lot::{Mutex, RwLock};

use super::holds::Holds;
use crate::cache::{Cache, CacheUse};
use crate::cost_guard::day_to_begin;
use crate::limit_sets::LimitSets;

/// The limit on cached accounts, at about 400 bytes each. With a window of a minute, an account has
/// up to 60 seconds of 64 bytes.
const ACCOUNTS_MAX: usize = 250_000;
/// How many accounts of one tenant stay if the cache is full.
const TENANT_ACCOUNTS_MAX: usize = ACCOUNTS_MAX / 2;

#[derive(Default)]
pub(super) struct LimitCache {
    cached: RwLock<Cached>,
    /// Tenants whose accounts the operator cleared; `None` stands for all tenants.
    clearing: Mutex<HashSet<Option<TenantId>>>,
}

#[derive(Default)]
struct Cached {
    sets: LimitSets,
    accounts: HashMap<LimitAccountKey, CachedAccount>,
    /// The numbers of values of limits in `sets`, or of limits of this commit.
    values: HashMap<(TenantId, LimitId), LimitValues>,
}

struct CachedAccount {
    account: LimitAccount,
    holds: Holds,
    /// The instant of the last commit that used the account, in microseconds.
    touched: i64,
}

/// What a transaction publishes once it is durable.
#[derive(Default)]
pub(super) struct StagedLimits {
    pub(super) sets: HashMap<TenantId, Arc<LimitSet>>,
    pub(super) accounts: HashMap<LimitAccountKey, LimitAccount>,
    pub(super) loaded_holds: HashMap<LimitAccountKey, Holds>,
    pub(super) values: HashMap<(TenantId, LimitId), LimitValues>,
    /// Tenants whose limits changed.
    pub(super) changed: HashSet<TenantId>,
}

impl LimitCache {
    /// The limits of a tenant, if they are cached.
    pub(super) fn set(&self, tenant_id: TenantId) -> Option<Arc<LimitSet>> {
        self.cached.read().sets.get(tenant_id).map(Arc::clone)
    }

    /// A copy of an account with the sums of its holds that are due at `now`.
    pub(super) fn copy_at(
        &self,
        key: &LimitAccountKey,
        now: Timestamp,
    ) -> Result<Option<LimitAccount>, Overflow> {
        self.cached.read().accounts.get(key).map(|live| live.at(now)).transpose()
    }

    /// How many values of a limit have an account, if that is cached.
    pub(super) fn values(&self, key: (TenantId, LimitId)) -> Option<LimitValues> {
        self.cached.read().values.get(&key).copied()
    }

    /// The limits that a call falls under and their accounts at `now`; `None` if one is not cached.
    pub(super) fn loaded(
        &self,
        tenant_id: TenantId,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Result<Option<LoadedLimits>, Overflow> {
        let cached = self.cached.read();
        let Some(set) = cached.sets.get(tenant_id) else { return Ok(None) };
        let mut loaded = LoadedLimits::default();
        if set.limits().is_empty() {
            return Ok(Some(loaded));
        }
        for limit in set.limits().iter().filter(|limit| limit.is_for_each()) {
            let key = (tenant_id, limit.id);
            let Some(values) = cached.values.get(&key) else { return Ok(None) };
            loaded.values.insert(key, *values);
        }
        for key in set.account_keys(tenant_id, subject) {
            let Some(live) = cached.accounts.get(&key) else { return Ok(None) };
            // What was spent on the day before is not cached.
            if day_to_begin(key.limit_id, &live.account, now).is_some() {
                return Ok(None);
            }
            loaded.accounts.insert(key, live.at(now)?);
        }
        loaded.sets.insert(tenant_id, Arc::clone(set));
        Ok(Some(loaded))
    }

    /// Publishes the changes of a durable commit.
    pub(super) fn publish(
        &self,
        now: Timestamp,
        staged: StagedLimits,
        changes: &[HoldChange],
    ) -> Result<(), Overflow> {
        let StagedLimits { sets, accounts, mut loaded_holds, values, changed } = staged;
        if sets.is_empty() && changed.is_empty() {
            return Ok(());
        }
        let touched = now.micros();
        let mut cached = self.cached.write();
        for (tenant_id, set) in sets {
            if cached.sets.insert(tenant_id, set) {
                cached.values.clear();
            }
        }
        cached.values.extend(values);
        for (key, mut account) in accounts {
            account.mark_saved();
            match cached.accounts.get_mut(&key) {
                Some(live) => {
                    live.account = account;
                    live.touched = touched;
                }
                None => {
                    let holds = loaded_holds.remove(&key).unwrap_or_default();
                    cached.accounts.insert(key, CachedAccount { account, holds, touched });
                }
            }
        }
        for change in changes {
            match change {
                HoldChange::Made(hold) => cached.insert(hold)?,
                HoldChange::Ended(hold) => cached.remove(hold)?,
                HoldChange::Extended { before, expires_at } => {
                    cached.remove(before)?;
                    cached.insert(&Hold { expires_at: *expires_at, ..before.clone() })?;
                }
            }
        }
        for tenant_id in changed {
            cached.forget_tenant(tenant_id);
        }
        if cached.accounts.len() > ACCOUNTS_MAX {
            cached.forget_half();
        }
        Ok(())
    }

    /// Applies the clears that the operator requested.
    ///
    /// Only the writer calls it, between transactions: a transaction relies on the accounts that it
    /// copied staying in the cache.
    pub(super) fn apply_requested_clears(&self) {
        for requested in std::mem::take(&mut *self.clearing.lock()) {
            match requested {
                Some(tenant_id) => self.cached.write().forget_tenant(tenant_id),
                None => self.clear(),
            }
        }
    }

    /// Clears the cache, after a commit with an unknown result.
    pub(super) fn clear(&self) {
        *self.cached.write() = Cached::default();
    }
}

impl Cached {
    fn insert(&mut self, hold: &Hold) -> Result<(), Overflow> {
        for posting in hold.postings.iter() {
            if let Some(live) = self.accounts.get_mut(&posting.account) {
                live.holds.insert(hold, posting.start)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, hold: &Hold) -> Result<(), Overflow> {
        for posting in hold.postings.iter() {
            if let Some(live) = self.accounts.get_mut(&posting.account) {
                live.holds.remove(hold)?;
            }
        }
        Ok(())
    }

    fn forget_tenant(&mut self, tenant_id: TenantId) {
        self.sets.remove(tenant_id);
        self.accounts.retain(|key, _| key.tenant_id != tenant_id);
        self.values.retain(|(of, _), _| *of != tenant_id);
    }

    /// Drops the half of the accounts that was used least recently, those beyond the share of a
    /// tenant first.
    fn forget_half(&mut self) {
        let mut of_tenants: HashMap<TenantId, Vec<i64>> = HashMap::new();
        for (key, live) in &self.accounts {
            of_tenants.entry(key.tenant_id).or_default().push(live.touched);
        }
        let oldest = |(tenant_id, mut touched): (TenantId, Vec<i64>)| {
            let beyond = touched.len().checked_sub(TENANT_ACCOUNTS_MAX).filter(|more| *more > 0)?;
            let (_, last, _) = touched.select_nth_unstable(beyond - 1);
            Some((tenant_id, *last))
        };
        let oldest: HashMap<TenantId, i64> = of_tenants.into_iter().filter_map(oldest).collect();
        self.accounts
            .retain(|key, live| oldest.get(&key.tenant_id).is_none_or(|last| live.touched > *last));
        if self.accounts.len() <= ACCOUNTS_MAX / 2 {
            return;
        }
        let mut touched: Vec<i64> = self.accounts.values().map(|live| live.touched).collect();
        let middle = touched.len() / 2;
        let (_, median, _) = touched.select_nth_unstable(middle);
        let median = *median;
        self.accounts.retain(|_, live| live.touched > median);
    }
}

impl CachedAccount {
    /// A copy of the account with the sums of its holds that are due at `now`.
    fn at(&self, now: Timestamp) -> Result<LimitAccount, Overflow> {
        let mut account = self.account.clone();
        account.restore_due(self.holds.due(now)?);
        Ok(account)
    }
}

impl Cache for LimitCache {
    fn name(&self) -> &'static str {
        "limit-accounts"
    }

    fn in_use(&self) -> CacheUse {
        let cached = self.cached.read();
        let mut tenants: HashMap<TenantId, usize> = HashMap::new();
        for key in cached.accounts.keys() {
            *tenants.entry(key.tenant_id).or_default() += 1;
        }
        CacheUse {
            entries: cached.accounts.len(),
            entries_max: ACCOUNTS_MAX,
            tenant_entries_max: TENANT_ACCOUNTS_MAX,
            tenants: tenants.into_iter().collect(),
            ..CacheUse::default()
        }
    }

    /// The writer clears the accounts before its next transaction.
    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        self.clearing.lock().insert(tenant_id);
        let cached = self.cached.read();
        let is_meant = |key: &&LimitAccountKey| tenant_id.is_none_or(|id| key.tenant_id == id);
        cached.accounts.keys().filter(is_meant).count()
    }
}
