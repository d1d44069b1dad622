//! The limits and limit accounts that a group of commands touches.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::decide::{LimitInForce, LimitsInForce};
use crate::id::{LimitId, TenantId};
use crate::limit::{Limit, LimitSet};
use crate::limit_account::{CountedRecord, HoldEnd, LimitAccount};
use crate::period::{Calendar, Period};
use crate::posting::{LimitAccountKey, Posting};
use crate::subject::Subject;
use crate::time::Timestamp;
use crate::totals::{Overflow, Totals};

/// How many values of a limit have an account of their own in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitValues {
    /// The start of the period.
    pub start: Timestamp,
    pub accounts: i64,
}

/// What storage loads about limits for a group of commands.
#[derive(Clone, Debug, Default)]
pub struct LoadedLimits {
    /// The limits of all tenants that the group concerns. A tenant without an entry has none.
    pub sets: HashMap<TenantId, Arc<LimitSet>>,
    /// The accounts of [`LimitSet::account_keys`] for the subject of every command, and those of the
    /// postings of every loaded reservation and due hold. The subject of a record has the key of the
    /// call's reservation on the same integration, if there is one. An account that is not stored is
    /// [`LimitAccount::new`]. Accounts know the sums of their due holds.
    pub accounts: HashMap<LimitAccountKey, LimitAccount>,
    /// For each limit with an account for each value, its number of accounts.
    pub values: HashMap<(TenantId, LimitId), LimitValues>,
}

/// The limits and limit accounts of a group.
#[derive(Clone, Debug, Default)]
pub struct LimitBook {
    now: Timestamp,
    values_max: i64,
    sets: HashMap<TenantId, CurrentLimits>,
    accounts: HashMap<LimitAccountKey, LimitAccount>,
    values: HashMap<(TenantId, LimitId), LimitValues>,
    changed_values: HashSet<(TenantId, LimitId)>,
}

/// The limits of a tenant with their periods at the instant of the group.
#[derive(Clone, Debug)]
struct CurrentLimits {
    set: Arc<LimitSet>,
    /// For each limit, its period; `None` if it does not count yet.
    periods: Vec<Option<Period>>,
}

/// The accounts in which a call counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched {
    accounts: Vec<MatchedAccount>,
    is_label_missing: bool,
}

#[derive(Clone, Debug)]
struct MatchedAccount {
    /// The index of the limit in the tenant's set.
    index: usize,
    period: Period,
    key: LimitAccountKey,
}

impl LimitBook {
    /// The book of these limits and accounts at an instant.
    ///
    /// # Errors
    /// [`Overflow`] if the calendar does not know the time zone of a limit. A limit that cannot be
    /// computed must not admit calls.
    pub fn open(
        now: Timestamp,
        values_max: i64,
        calendar: &dyn Calendar,
        loaded: LoadedLimits,
    ) -> Result<Self, Overflow> {
        let LoadedLimits { sets, accounts, values } = loaded;
        let current = |(tenant_id, set): (TenantId, Arc<LimitSet>)| {
            let period = |limit: &Limit| limit.rule.bound.period(calendar, now);
            let periods = set.limits().iter().map(period).collect::<Result<_, _>>();
            let periods = periods.map_err(|_| Overflow)?;
            Ok((tenant_id, CurrentLimits { set, periods }))
        };
        let sets = sets.into_iter().map(current).collect::<Result<_, _>>()?;
        let changed_values = HashSet::new();
        Ok(Self { now, values_max, sets, accounts, values, changed_values })
    }

    /// The loaded accounts, with the changes of this group.
    pub const fn accounts(&self) -> &HashMap<LimitAccountKey, LimitAccount> {
        &self.accounts
    }

    /// The number of values of a limit, with the changes of this group.
    pub fn values(&self, tenant_id: TenantId, limit_id: LimitId) -> Option<LimitValues> {
        self.values.get(&(tenant_id, limit_id)).copied()
    }

    /// The changed numbers of values.
    pub fn changed_values(&self) -> impl Iterator<Item = ((TenantId, LimitId), LimitValues)> {
        let changed = self.changed_values.iter();
        changed.filter_map(|key| self.values.get(key).map(|values| (*key, *values)))
    }

    /// The limits, the accounts and the numbers of values, for publishing after the commit.
    pub fn into_published(self) -> LoadedLimits {
        let sets = self.sets.into_iter().map(|(tenant_id, current)| (tenant_id, current.set));
        LoadedLimits { sets: sets.collect(), accounts: self.accounts, values: self.values }
    }

    /// The version of a tenant's limits; 0 if it never had any.
    pub fn version(&self, tenant_id: TenantId) -> i64 {
        self.sets.get(&tenant_id).map_or(0, |current| current.set.version())
    }

    /// The limits that a call falls under at the instant of the book.
    ///
    /// # Errors
    /// [`Overflow`] if an account was not loaded.
    pub fn in_force(
        &self,
        tenant_id: TenantId,
        subject: &Subject<'_>,
    ) -> Result<LimitsInForce<'_>, Overflow> {
        self.in_force_of(tenant_id, &self.matched(tenant_id, subject)?)
    }

    pub(crate) fn in_force_of(
        &self,
        tenant_id: TenantId,
        matched: &Matched,
    ) -> Result<LimitsInForce<'_>, Overflow> {
        let limits = self.sets.get(&tenant_id).map_or(&[] as &[Limit], |set| set.set.limits());
        let in_force = |of: &MatchedAccount| {
            let limit = limits.get(of.index).ok_or(Overflow)?;
            let account = self.accounts.get(&of.key).ok_or(Overflow)?;
            Ok(LimitInForce { limit, account, period: of.period })
        };
        let limits = matched.accounts.iter().map(in_force).collect::<Result<_, _>>()?;
        Ok(LimitsInForce { limits, is_label_missing: matched.is_label_missing })
    }

    /// The accounts in which a call counts.
    pub(crate) fn matched(
        &self,
        tenant_id: TenantId,
        subject: &Subject<'_>,
    ) -> Result<Matched, Overflow> {
        let Some(CurrentLimits { set, periods }) = self.sets.get(&tenant_id) else {
            return Ok(Matched::default());
        };
        let mut accounts = Vec::new();
        for applied in set.applied(subject) {
            let limit = set.limits().get(applied.index).ok_or(Overflow)?;
            let Some(period) = periods.get(applied.index).copied().flatten() else { continue };
            let mut key = LimitAccountKey { tenant_id, limit_id: limit.id, value: applied.value };
            if limit.is_for_each() && !self.has_own(&key, period)? {
                key.value = Arc::default();
            }
            if !self.accounts.contains_key(&key) {
                return Err(Overflow);
            }
            accounts.push(MatchedAccount { index: applied.index, period, key });
        }
        let misses = |(limit, period): (&Limit, &Option<Period>)| {
            period.is_some() && limit.misses_label(subject)
        };
        let is_label_missing = set.limits().iter().zip(periods).any(misses);
        Ok(Matched { accounts, is_label_missing })
    }

    /// Whether a value has an account of its own in a period, or gets one.
    fn has_own(&self, key: &LimitAccountKey, period: Period) -> Result<bool, Overflow> {
        let own = self.accounts.get(key).ok_or(Overflow)?;
        Ok(own.is_in_use(period) || self.values_of(key, period)?.accounts < self.values_max)
    }

    fn values_of(&self, key: &LimitAccountKey, period: Period) -> Result<LimitValues, Overflow> {
        let values = self.values.get(&(key.tenant_id, key.limit_id)).ok_or(Overflow)?;
        let is_of = values.start == period.start;
        Ok(if is_of { *values } else { LimitValues { start: period.start, accounts: 0 } })
    }

    /// Whether an amount fits the sums of all these accounts.
    pub(crate) fn fits(&self, matched: &Matched, amount: Totals) -> bool {
        let fits = |of: &MatchedAccount| {
            let account = self.accounts.get(&of.key);
            account.is_some_and(|account| account.fits(of.period, self.now, amount))
        };
        matched.accounts.iter().all(fits)
    }

    /// Holds an amount in all these accounts.
    pub(crate) fn hold(
        &mut self,
        matched: &Matched,
        amount: Totals,
    ) -> Result<Arc<[Posting]>, Overflow> {
        let now = self.now;
        let mut postings = Vec::with_capacity(matched.accounts.len());
        for of in &matched.accounts {
            let start = self.change(of, |account| account.hold(of.period, now, amount))?;
            postings.push(Posting { account: of.key.clone(), start });
        }
        Ok(postings.into())
    }

    /// Counts a record in all these accounts.
    pub(crate) fn count(
        &mut self,
        matched: &Matched,
        record: &CountedRecord,
    ) -> Result<(), Overflow> {
        let now = self.now;
        for of in &matched.accounts {
            self.change(of, |account| account.count(of.period, record, now))?;
        }
        Ok(())
    }

    /// Changes an account that a call counts in. A value is counted when something first counts in
    /// its account.
    fn change<T>(
        &mut self,
        of: &MatchedAccount,
        change: impl FnOnce(&mut LimitAccount) -> Result<T, Overflow>,
    ) -> Result<T, Overflow> {
        let account = self.accounts.get_mut(&of.key).ok_or(Overflow)?;
        let was_in_use = account.is_in_use(of.period);
        let changed = change(account)?;
        account.advance(self.now);
        let is_new = !was_in_use && account.is_in_use(of.period);
        if is_new && !of.key.value.is_empty() {
            let mut values = self.values_of(&of.key, of.period)?;
            values.accounts = values.accounts.checked_add(1).ok_or(Overflow)?;
            let key = (of.key.tenant_id, of.key.limit_id);
            self.values.insert(key, values);
            self.changed_values.insert(key);
        }
        Ok(changed)
    }

    /// Those of the postings whose accounts exist: a deleted limit took its accounts with it.
    pub(crate) fn existing(&self, postings: Arc<[Posting]>) -> Arc<[Posting]> {
        let exists = |posting: &&Posting| self.has_limit_of(&posting.account);
        if postings.iter().all(|posting| exists(&posting)) {
            return postings;
        }
        postings.iter().filter(exists).cloned().collect()
    }

    /// Whether the limit of an account still exists.
    fn has_limit_of(&self, key: &LimitAccountKey) -> bool {
        let current = self.sets.get(&key.tenant_id);
        current.is_some_and(|current| current.set.get(key.limit_id).is_some())
    }

    /// Ends a hold in all its accounts.
    pub(crate) fn end(
        &mut self,
        postings: &[Posting],
        amount: Totals,
        end: HoldEnd,
    ) -> Result<(), Overflow> {
        self.for_postings(postings, |account, start| account.remove_hold(start, amount, end))
    }

    /// Ends a hold that is due in all its accounts.
    pub(crate) fn expire(&mut self, postings: &[Posting], amount: Totals) -> Result<(), Overflow> {
        self.for_postings(postings, |account, start| account.expire(start, amount))
    }

    fn for_postings(
        &mut self,
        postings: &[Posting],
        change: impl Fn(&mut LimitAccount, Timestamp) -> Result<(), Overflow>,
    ) -> Result<(), Overflow> {
        for Posting { account: key, start } in postings {
            if !self.has_limit_of(key) {
                continue;
            }
            let account = self.accounts.get_mut(key).ok_or(Overflow)?;
            change(account, *start)?;
            account.advance(self.now);
        }
        Ok(())
    }
}
