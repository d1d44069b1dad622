//! Recomputes the accounts of limits from the entries and the open reservations.
//!
//! An entry counts under the limits of its version. The entries of a limit that was deleted since
//! are not known, so a limit for each value that another one replaced may then differ. The seconds
//! of a window of a minute are not recomputed: they are void a minute later.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{
    Calendar, CallKey, Limit, LimitAccountKey, LimitId, LimitSet, Period, Posting, Subject,
    TenantId, Timestamp, Totals, Window,
};

use crate::calendar::ZonedCalendar;
use crate::cost_guard::CostGuard;
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::limit_row::LimitRow;
use crate::tables::value::FromRow;

/// A stored account.
struct StoredAccount {
    start: Timestamp,
    used: Totals,
    held: Totals,
}

/// What an entry counts.
pub(super) struct CountedAmount {
    pub(super) occurred_at: Timestamp,
    pub(super) created_at: Timestamp,
    pub(super) limits_version: i64,
    pub(super) amount: Totals,
}

/// The sums of the accounts of limits, recomputed.
#[derive(Default)]
pub(super) struct LimitRecount {
    calendar: ZonedCalendar,
    /// The limits of each tenant, with the version from which on each counts.
    limits: HashMap<TenantId, Vec<(i64, Limit)>>,
    /// The sets of limits at the versions of entries.
    sets: HashMap<(TenantId, i64), Arc<LimitSet>>,
    accounts: HashMap<LimitAccountKey, StoredAccount>,
    /// What is used in the period of the stored account.
    used: HashMap<LimitAccountKey, Totals>,
    /// What is held, by account and start.
    held: HashMap<Posting, Totals>,
    /// The postings of open reservations.
    postings: HashMap<(LimitAccountKey, CallKey), (Timestamp, Totals)>,
    values: HashMap<(TenantId, LimitId), (Timestamp, i64)>,
}

impl LimitRecount {
    /// Adds a limit: the columns of [`LimitRow`], and `since_version`.
    pub(super) fn add_limit(&mut self, row: &impl RawColumns) -> Result<(), StoreError> {
        let limit = LimitRow::from_row(row)?;
        let since = row.int(LimitRow::COLUMNS)?;
        self.limits.entry(limit.tenant_id).or_default().push((since, limit.limit));
        Ok(())
    }

    /// Adds a stored account: `tenant_id, limit_id, value, period_start, used_cost_nanos,
    /// used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls`.
    pub(super) fn add_account(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let stored = StoredAccount {
            start: row.instant(3)?,
            used: decode::totals(row, 4)?,
            held: decode::totals(row, 7)?,
        };
        let key = key(row, 0)?;
        if key.limit_id == LimitId::COST_GUARD {
            // The operator's limit is a setting, and counts the whole day.
            let limits = self.limits.entry(key.tenant_id).or_default();
            limits.extend(CostGuard::any_limit().map(|limit| (0, limit)));
        }
        self.accounts.insert(key, stored);
        Ok(())
    }

    /// Adds the number of values of a limit: `tenant_id, limit_id, period_start, accounts`.
    pub(super) fn add_values(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let of = (row.id(0, TenantId::from_number)?, row.id(1, LimitId::from_number)?);
        self.values.insert(of, (row.instant(2)?, row.int(3)?));
        Ok(())
    }

    /// Adds an entry of a tenant.
    pub(super) fn add_entry(
        &mut self,
        tenant_id: TenantId,
        subject: &Subject<'_>,
        entry: &CountedAmount,
    ) -> Result<(), StoreError> {
        if !self.limits.contains_key(&tenant_id) {
            return Ok(());
        }
        let set = self.set_at(tenant_id, entry.limits_version);
        let at = entry.occurred_at.min(entry.created_at);
        for applied in set.applied(subject) {
            let Some(limit) = set.limits().get(applied.index) else { continue };
            let Some(period) = period(&self.calendar, limit, entry.created_at)? else { continue };
            let mut key = LimitAccountKey { tenant_id, limit_id: limit.id, value: applied.value };
            let start = |key: &LimitAccountKey| self.accounts.get(key).map(|account| account.start);
            if limit.is_for_each() && start(&key).is_none_or(|own| own < period.start) {
                key.value = Arc::default();
            }
            let counts_whole_day = limit.id == LimitId::COST_GUARD;
            let counts = |period: Period| {
                period.contains(at) || (counts_whole_day && period.contains(entry.occurred_at))
            };
            if counts(period) && start(&key) == Some(period.start) {
                let used = self.used.entry(key).or_default();
                *used = used.plus(entry.amount)?;
            }
        }
        Ok(())
    }

    /// The limits that count an entry of this version.
    fn set_at(&mut self, tenant_id: TenantId, version: i64) -> Arc<LimitSet> {
        let limits = self.limits.get(&tenant_id).map_or(&[] as &[_], Vec::as_slice);
        let since = limits.iter().map(|(since, _)| *since).filter(|since| *since <= version);
        let since = since.max().unwrap_or_default();
        let set = || {
            let known = limits.iter().filter(|(from, _)| *from <= version);
            Arc::new(LimitSet::new(since, known.map(|(_, limit)| limit.clone()).collect()))
        };
        Arc::clone(self.sets.entry((tenant_id, since)).or_insert_with(set))
    }

    /// Adds the postings of an open reservation: `tenant_id, call_key, estimated_cost_nanos,
    /// estimated_tokens, expires_at, postings`.
    pub(super) fn add_open(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let tenant_id = row.id(0, TenantId::from_number)?;
        let (call, amount) = (decode::call_key(row, 1)?, decode::estimate(row, 2)?.totals());
        let expires_at = row.instant(4)?;
        for posting in codec::postings(tenant_id, row.opt_str(5)?)?.iter() {
            if self.limit(&posting.account).is_none() {
                continue;
            }
            let held = self.held.entry(posting.clone()).or_default();
            *held = held.plus(amount)?;
            self.postings.insert((posting.account.clone(), call), (expires_at, amount));
        }
        Ok(())
    }

    fn limit(&self, key: &LimitAccountKey) -> Option<&Limit> {
        let limits = self.limits.get(&key.tenant_id)?;
        limits.iter().map(|(_, limit)| limit).find(|limit| limit.id == key.limit_id)
    }

    /// Compares a stored posting: `tenant_id, limit_id, value, call_key, expires_at, cost_nanos,
    /// tokens`.
    pub(super) fn compare_posting(
        &mut self,
        row: &impl Columns,
    ) -> Result<Option<String>, StoreError> {
        let (key, call) = (key(row, 0)?, decode::call_key(row, 3)?);
        let stored = (row.instant(4)?, decode::estimate(row, 5)?.totals());
        let counted = self.postings.remove(&(key.clone(), call));
        Ok((counted != Some(stored)).then(|| {
            let name = name(&key);
            format!("a posting to {name} is {stored:?}, the reservation says {counted:?}")
        }))
    }

    /// The number of stored accounts, and the differences of all of them.
    pub(super) fn differences(self) -> Result<(usize, Vec<String>), StoreError> {
        let mut differences = Vec::new();
        let latest = self.latest_starts();
        for (key, stored) in &self.accounts {
            let Some(limit) = self.limit(key) else {
                differences.push(format!("{} is of no limit", name(key)));
                continue;
            };
            let used = self.used.get(key).copied().unwrap_or_default();
            // The values of an earlier period that shared an account may have one of their own since,
            // so that it is not known which entries count in the shared one.
            let is_latest = latest.get(&(key.tenant_id, key.limit_id)) == Some(&stored.start);
            let is_known = !limit.is_for_each() || !key.value.is_empty() || is_latest;
            if has_periods(limit) && is_known && stored.used != used {
                let of = name(key);
                differences.push(format!("{of}: used is {:?}, counted {used:?}", stored.used));
            }
            if let Some(held) = self.held_of(key, stored, limit)?
                && stored.held != held
            {
                let of = name(key);
                differences.push(format!("{of}: held is {:?}, counted {held:?}", stored.held));
            }
        }
        for posting in
            self.held.keys().filter(|posting| !self.accounts.contains_key(&posting.account))
        {
            differences.push(format!("{} has holds, but is not stored", name(&posting.account)));
        }
        for (key, _) in self.postings.keys() {
            differences
                .push(format!("a reservation has a posting to {} that is not stored", name(key)));
        }
        differences.extend(self.differences_of_values());
        Ok((self.accounts.len(), differences))
    }

    /// The latest start of the accounts of each limit.
    fn latest_starts(&self) -> HashMap<(TenantId, LimitId), Timestamp> {
        let mut latest = HashMap::new();
        for (key, stored) in &self.accounts {
            let start = latest.entry((key.tenant_id, key.limit_id)).or_insert(stored.start);
            *start = stored.start.max(*start);
        }
        latest
    }

    /// What open reservations hold in an account; `None` for a window of a minute.
    fn held_of(
        &self,
        key: &LimitAccountKey,
        stored: &StoredAccount,
        limit: &Limit,
    ) -> Result<Option<Totals>, StoreError> {
        let start = match limit.rule.bound.window() {
            Some(Window::Minute) => return Ok(None),
            Some(Window::Calendar(..) | Window::Total { .. }) => stored.start,
            None => Timestamp::MIN,
        };
        let held = self.held.get(&Posting { account: key.clone(), start }).copied();
        let held = held.unwrap_or_default();
        Ok(Some(match limit.rule.bound.window() {
            Some(_) => held,
            None => Totals { calls: held.calls, ..Totals::default() },
        }))
    }

    /// Compares the numbers of values with the accounts of their period.
    fn differences_of_values(&self) -> Vec<String> {
        let mut counted: HashMap<(TenantId, LimitId), i64> = HashMap::new();
        for (key, stored) in self.accounts.iter().filter(|(key, _)| !key.value.is_empty()) {
            let of = (key.tenant_id, key.limit_id);
            let start = self.values.get(&of).map(|(start, _)| *start);
            let has_periods = self.limit(key).is_some_and(has_periods);
            if !has_periods || start.is_none_or(|start| start == stored.start) {
                let counted = counted.entry(of).or_default();
                *counted = counted.saturating_add(1);
            }
        }
        let stored =
            |of: &(TenantId, LimitId)| self.values.get(of).map_or(0, |(_, stored)| *stored);
        let all = counted.keys().chain(self.values.keys());
        let mut all: Vec<(TenantId, LimitId)> = all.copied().collect();
        all.sort_unstable();
        all.dedup();
        let differs = |of: &(TenantId, LimitId)| {
            let (stored, counted) = (stored(of), counted.get(of).copied().unwrap_or_default());
            let limit_id = of.1;
            (stored != counted)
                .then(|| format!("limit {limit_id} has {stored} values stored, counted {counted}"))
        };
        all.iter().filter_map(differs).collect()
    }
}

fn has_periods(limit: &Limit) -> bool {
    matches!(limit.rule.bound.window(), Some(Window::Calendar(..) | Window::Total { .. }))
}

/// The period of a limit; `None` if it has none, or has not begun.
fn period(
    calendar: &dyn Calendar,
    limit: &Limit,
    at: Timestamp,
) -> Result<Option<Period>, StoreError> {
    if !has_periods(limit) {
        return Ok(None);
    }
    let period = limit.rule.bound.period(calendar, at);
    period.map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// `tenant_id, limit_id, value`.
fn key(row: &impl Columns, at: usize) -> Result<LimitAccountKey, StoreError> {
    Ok(LimitAccountKey {
        tenant_id: row.id(at, TenantId::from_number)?,
        limit_id: row.id(at.saturating_add(1), LimitId::from_number)?,
        value: row.text(at.saturating_add(2))?,
    })
}

fn name(key: &LimitAccountKey) -> String {
    let LimitAccountKey { tenant_id: _, limit_id, value } = key;
    if value.is_empty() {
        format!("the account of limit {limit_id}")
    } else {
        format!("the account of {value:?} in limit {limit_id}")
    }
}
