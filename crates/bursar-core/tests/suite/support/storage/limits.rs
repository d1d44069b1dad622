//! The stored limits: their accounts, and the number of their values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bursar_core::{
    Bound, Hold, LimitAccount, LimitAccountKey, LimitBook, LimitCounter, LimitId, LimitSet,
    LimitValues, LoadedLimits, MinuteSlot, TenantId, Timestamp, Totals,
};

/// The limits of all tenants.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredLimits {
    sets: BTreeMap<TenantId, Arc<LimitSet>>,
    accounts: BTreeMap<LimitAccountKey, StoredAccount>,
    values: BTreeMap<(TenantId, LimitId), LimitValues>,
}

#[derive(Clone, Debug)]
struct StoredAccount {
    sums: StoredSums,
    last_at: Timestamp,
}

#[derive(Clone, Debug)]
enum StoredSums {
    /// A period, or open holds.
    Whole(LimitCounter),
    /// By the place of the second.
    Minute(BTreeMap<u8, (i64, Totals, Totals)>),
}

impl StoredLimits {
    pub(crate) fn set(&mut self, tenant_id: TenantId, set: Arc<LimitSet>) {
        self.sets.insert(tenant_id, set);
    }

    pub(crate) fn of(&self, tenant_id: TenantId) -> Option<&Arc<LimitSet>> {
        self.sets.get(&tenant_id)
    }

    /// The keys of all stored accounts.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &LimitAccountKey> {
        self.accounts.keys()
    }

    /// The start of the period and the number of values of the limit of an account.
    pub(crate) fn values(&self, key: &LimitAccountKey) -> Option<(Timestamp, i64)> {
        let values = self.values.get(&(key.tenant_id, key.limit_id))?;
        Some((values.start, values.accounts))
    }

    /// An account with the sums of its holds that are due.
    pub(super) fn account(
        &self,
        bound: &Bound,
        key: &LimitAccountKey,
        holds: &[Hold],
        now: Timestamp,
    ) -> LimitAccount {
        let mut account = match self.accounts.get(key) {
            None => LimitAccount::new(bound),
            Some(stored) => LimitAccount::stored(stored.sums.counter(), stored.last_at),
        };
        let mut due: BTreeMap<Timestamp, Totals> = BTreeMap::new();
        for hold in holds.iter().filter(|hold| hold.expires_at <= now) {
            for posting in hold.postings.iter().filter(|posting| posting.account == *key) {
                let sum = due.entry(posting.start).or_default();
                *sum = sum.plus(hold.amount).expect("sums that fit");
            }
        }
        account.restore_due(due.into_iter().collect());
        account
    }

    /// The limits of these tenants, with these accounts.
    pub(super) fn load(
        &self,
        tenants: &BTreeSet<TenantId>,
        keys: &BTreeSet<LimitAccountKey>,
        holds: &[Hold],
        now: Timestamp,
    ) -> LoadedLimits {
        let sets: HashMap<TenantId, Arc<LimitSet>> = tenants
            .iter()
            .filter_map(|tenant_id| Some((*tenant_id, Arc::clone(self.of(*tenant_id)?))))
            .collect();
        let account = |key: &LimitAccountKey| {
            let limit = sets.get(&key.tenant_id)?.get(key.limit_id)?;
            Some((key.clone(), self.account(&limit.rule.bound, key, holds, now)))
        };
        let accounts = keys.iter().filter_map(account).collect();
        let values = sets.iter().flat_map(|(tenant_id, set)| {
            set.limits().iter().filter(|limit| limit.is_for_each()).map(|limit| {
                let key = (*tenant_id, limit.id);
                (key, self.values.get(&key).copied().unwrap_or_default())
            })
        });
        LoadedLimits { values: values.collect(), sets, accounts }
    }

    pub(super) fn save(&mut self, book: &LimitBook) {
        for (key, account) in book.accounts().iter().filter(|(_, account)| account.is_changed()) {
            let last_at = account.last_at();
            let stored = self.accounts.entry(key.clone()).or_insert_with(|| StoredAccount {
                sums: StoredSums::Minute(BTreeMap::new()),
                last_at,
            });
            stored.last_at = last_at;
            stored.sums.save(account);
        }
        self.values.extend(book.changed_values());
    }
}

impl StoredSums {
    fn counter(&self) -> LimitCounter {
        match self {
            Self::Whole(counter) => counter.clone(),
            Self::Minute(slots) => {
                let slot = |(second, used, held): &(i64, Totals, Totals)| {
                    MinuteSlot::stored(*second, *used, *held)
                };
                let mut slots: Vec<MinuteSlot> = slots.values().map(slot).collect();
                slots.sort_by_key(|slot| slot.second);
                LimitCounter::Minute(slots)
            }
        }
    }

    fn save(&mut self, account: &LimitAccount) {
        match (account.counter(), self) {
            (LimitCounter::Minute(_), Self::Minute(slots)) => {
                for slot in account.changed_slots() {
                    slots.insert(slot.index(), (slot.second, slot.used, slot.held));
                }
            }
            (whole, sums) => *sums = Self::Whole(whole.clone()),
        }
    }
}
