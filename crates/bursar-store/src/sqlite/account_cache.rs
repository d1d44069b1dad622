//! The cache of accounts, which the writer loads from and decisions read.
//!
//! It changes only after a commit that is known to have succeeded, and is cleared if the result of
//! a commit is unknown. Its size is limited: accounts that were not used for the longest time are
//! dropped, and loaded again when they are needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bursar_core::{
    Account, Hold, HoldChange, Integration, IntegrationId, Month, Overflow, TenantId,
    TenantLifecycle, Timestamp, Totals,
};
use parking_lot::{Mutex, RwLock};

use super::holds::Holds;
use crate::cache::{Cache, CacheUse};

/// The limit on cached accounts, at about a kilobyte each.
const ACCOUNTS_MAX: usize = 50_000;
/// How many accounts of one tenant stay if the cache is full.
const TENANT_ACCOUNTS_MAX: usize = ACCOUNTS_MAX / 4;
/// The limit on missed accounts that are remembered.
const MISSED_MAX: usize = 1_000;
/// The limit on missed accounts of one tenant.
const TENANT_MISSED_MAX: usize = MISSED_MAX / 4;

#[derive(Default)]
pub(super) struct AccountCache {
    accounts: RwLock<HashMap<IntegrationId, CachedAccount>>,
    /// Accounts that a reader missed, for the next sweep to load.
    missed: Mutex<BTreeMap<TenantId, BTreeSet<IntegrationId>>>,
    /// Tenants whose accounts the operator cleared; `None` stands for all tenants.
    clearing: Mutex<BTreeSet<Option<TenantId>>>,
}

struct CachedAccount {
    account: Account,
    holds: Holds,
    /// The instant of the last commit that used the account, in microseconds.
    touched: i64,
}

impl AccountCache {
    /// An account at `now`, without due holds; `None` if it or its month is not cached.
    pub(super) fn current_account(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        now: Timestamp,
    ) -> Result<Option<Account>, Overflow> {
        let accounts = self.accounts.read();
        let Some(live) = accounts.get(&integration_id) else { return Ok(None) };
        if live.account.tenant_id != tenant_id || live.account.counter(now.month()).is_err() {
            return Ok(None);
        }
        live.at(now).map(Some)
    }

    /// Notes that a reader missed an account.
    pub(super) fn miss(&self, tenant_id: TenantId, integration_id: IntegrationId) {
        let mut missed = self.missed.lock();
        let all: usize = missed.values().map(BTreeSet::len).sum();
        let of_tenant = missed.get(&tenant_id).map_or(0, BTreeSet::len);
        if all < MISSED_MAX && of_tenant < TENANT_MISSED_MAX {
            missed.entry(tenant_id).or_default().insert(integration_id);
        }
    }

    /// Takes the accounts that readers missed since the last call.
    pub(super) fn take_missed(&self) -> BTreeSet<(TenantId, IntegrationId)> {
        let missed = std::mem::take(&mut *self.missed.lock());
        let of_tenant = |(tenant_id, missed): (TenantId, BTreeSet<IntegrationId>)| {
            missed.into_iter().map(move |integration_id| (tenant_id, integration_id))
        };
        missed.into_iter().flat_map(of_tenant).collect()
    }

    /// A copy of an account with the sums of its holds that are due at `now`, for the writer.
    pub(super) fn copy_at(
        &self,
        integration_id: IntegrationId,
        now: Timestamp,
    ) -> Result<Option<Account>, Overflow> {
        let accounts = self.accounts.read();
        accounts.get(&integration_id).map(|live| live.at(now)).transpose()
    }

    /// Whether a hold is still open; `None` if its account is not cached.
    pub(super) fn is_open(&self, hold: &Hold) -> Option<bool> {
        let accounts = self.accounts.read();
        accounts.get(&hold.integration_id).map(|live| live.holds.contains(hold))
    }

    /// Publishes the changes of a durable commit.
    pub(super) fn publish(
        &self,
        now: Timestamp,
        accounts: HashMap<IntegrationId, Account>,
        mut loaded_holds: HashMap<IntegrationId, Holds>,
        changes: &[HoldChange],
    ) -> Result<(), Overflow> {
        let oldest = Month::from_number(now.month().number() - 1);
        let mut cached = self.accounts.write();
        for (integration_id, mut account) in accounts {
            account.mark_saved(oldest);
            let touched = now.micros();
            match cached.get_mut(&integration_id) {
                Some(live) => {
                    live.account = account;
                    live.touched = touched;
                }
                None => {
                    let holds = loaded_holds.remove(&integration_id).unwrap_or_default();
                    cached.insert(integration_id, CachedAccount { account, holds, touched });
                }
            }
        }
        for change in changes {
            match change {
                HoldChange::Made(hold) => insert(&mut cached, hold)?,
                HoldChange::Ended(hold) => remove(&mut cached, hold)?,
                HoldChange::Extended { before, expires_at } => {
                    remove(&mut cached, before)?;
                    let expires_at = *expires_at;
                    insert(&mut cached, &Hold { expires_at, ..before.clone() })?;
                }
            }
        }
        if cached.len() > ACCOUNTS_MAX {
            forget_half(&mut cached);
        }
        Ok(())
    }

    /// Replaces the rules of an integration.
    ///
    /// Its holds stay cached, because reading many of them again would delay all commands.
    pub(super) fn change(&self, integration_id: IntegrationId, rules: Integration) {
        if let Some(live) = self.accounts.write().get_mut(&integration_id) {
            live.account.integration = rules;
        }
    }

    /// Replaces the lifecycle state of a tenant.
    pub(super) fn change_tenant(&self, tenant_id: TenantId, lifecycle: TenantLifecycle) {
        let mut accounts = self.accounts.write();
        for live in accounts.values_mut().filter(|live| live.account.tenant_id == tenant_id) {
            live.account.lifecycle = lifecycle;
        }
    }

    /// Applies the clears that the operator requested.
    ///
    /// Only the writer calls it, between transactions: a transaction relies on the accounts that it
    /// copied staying in the cache.
    pub(super) fn apply_requested_clears(&self) {
        for requested in std::mem::take(&mut *self.clearing.lock()) {
            match requested {
                Some(tenant_id) => self.forget_tenant(tenant_id),
                None => self.clear(),
            }
        }
    }

    fn forget_tenant(&self, tenant_id: TenantId) {
        self.accounts.write().retain(|_, live| live.account.tenant_id != tenant_id);
    }

    /// Clears the cache, after a commit with an unknown result.
    pub(super) fn clear(&self) {
        self.accounts.write().clear();
    }
}

impl Cache for AccountCache {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn in_use(&self) -> CacheUse {
        let accounts = self.accounts.read();
        let mut tenants: HashMap<TenantId, usize> = HashMap::new();
        for live in accounts.values() {
            *tenants.entry(live.account.tenant_id).or_default() += 1;
        }
        CacheUse {
            entries: accounts.len(),
            entries_max: ACCOUNTS_MAX,
            tenant_entries_max: TENANT_ACCOUNTS_MAX,
            tenants: tenants.into_iter().collect(),
            ..CacheUse::default()
        }
    }

    /// The writer clears the accounts before its next transaction.
    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        self.clearing.lock().insert(tenant_id);
        let accounts = self.accounts.read();
        let is_meant =
            |live: &&CachedAccount| tenant_id.is_none_or(|id| live.account.tenant_id == id);
        accounts.values().filter(is_meant).count()
    }
}

impl CachedAccount {
    /// A copy of the account with the sums of its holds that are due at `now`.
    fn at(&self, now: Timestamp) -> Result<Account, Overflow> {
        let mut account = self.account.clone();
        account.restore_due(by_month(self.holds.due(now)?));
        account.restore_open(self.holds.count());
        Ok(account)
    }
}

/// Sums by the month that starts then.
pub(super) fn by_month(sums: Vec<(Timestamp, Totals)>) -> Vec<(Month, Totals)> {
    sums.into_iter().map(|(start, sum)| (start.month(), sum)).collect()
}

fn insert(cached: &mut HashMap<IntegrationId, CachedAccount>, hold: &Hold) -> Result<(), Overflow> {
    cached
        .get_mut(&hold.integration_id)
        .map_or(Ok(()), |live| live.holds.insert(hold, hold.month.start()))
}

fn remove(cached: &mut HashMap<IntegrationId, CachedAccount>, hold: &Hold) -> Result<(), Overflow> {
    cached.get_mut(&hold.integration_id).map_or(Ok(()), |live| live.holds.remove(hold))
}

/// Drops the half of the accounts that was used least recently.
fn forget_half(cached: &mut HashMap<IntegrationId, CachedAccount>) {
    forget_beyond_shares(cached);
    if cached.len() <= ACCOUNTS_MAX / 2 {
        return;
    }
    let mut touched: Vec<i64> = cached.values().map(|live| live.touched).collect();
    let middle = touched.len() / 2;
    let (_, median, _) = touched.select_nth_unstable(middle);
    let median = *median;
    cached.retain(|_, live| live.touched > median);
}

/// Drops the least recently used accounts of tenants that exceed their share.
fn forget_beyond_shares(cached: &mut HashMap<IntegrationId, CachedAccount>) {
    let mut of_tenants: HashMap<TenantId, Vec<(i64, IntegrationId)>> = HashMap::new();
    for (integration_id, live) in cached.iter() {
        let of_tenant = of_tenants.entry(live.account.tenant_id).or_default();
        of_tenant.push((live.touched, *integration_id));
    }
    for mut of_tenant in of_tenants.into_values() {
        of_tenant.sort_unstable_by(|a, b| b.cmp(a));
        for (_, integration_id) in of_tenant.into_iter().skip(TENANT_ACCOUNTS_MAX) {
            cached.remove(&integration_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_gets_a_quarter_of_the_missed_accounts() {
        let cache = AccountCache::default();
        let tenant = |number| TenantId::from_number(number).expect("in range");
        for number in 1..=2 * MISSED_MAX as i64 {
            cache.miss(tenant(1), IntegrationId::from_number(number).expect("in range"));
        }
        cache.miss(tenant(2), IntegrationId::from_number(1).expect("in range"));
        let missed = cache.take_missed();
        assert_eq!(missed.len(), TENANT_MISSED_MAX + 1);
        assert!(missed.iter().any(|(of, _)| *of == tenant(2)));
        assert!(cache.take_missed().is_empty());
    }
}
