//! Locks, loads and saves limits and their accounts.
//!
//! A group shares a lock on its tenant's set of limits, so that all that it counts is counted under
//! one set. Then it locks the numbers of values to which it may add, and the accounts that it may
//! need, each in key order.

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{
    Calendar, CallKey, Hold, HoldChange, LimitAccount, LimitAccountKey, LimitBook, LimitId,
    LimitSet, LimitValues, LoadedLimits, MinuteSlot, Subject, TenantId, Timestamp, Totals,
};
use parking_lot::Mutex;
use tokio_postgres::{Client, Row};

use super::bulk::{Bulk, Column};
use super::pipeline::{Sent, in_order};
use super::tx::{Key, params, store_error};
use crate::cost_guard::{CostGuard, day_to_begin};
use crate::error::StoreError;
use crate::limit_sets::LimitSets;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::limit_account::{
    AccountSums, has_seconds, read_account, read_second, read_values, second_figures,
};
use crate::tables::limits::{SELECT_COST_OVERRIDE, SELECT_SET, SetRow, read_cost_override, set_of};
use crate::tables::value::FromRow;
use crate::write::writer_connection::WantedAccounts;

/// Keeps the set of limits as it is until the end of the transaction.
pub(super) const SHARE_SET: &str = "select version from limit_sets where tenant_id = $1 for share";
const SELECT_VERSION: &str = "select version from limit_sets where tenant_id = $1";
// Statements with many keys look up each key in a lateral subquery: see load.rs.
const SELECT_STARTS: &str = "select a.limit_id, a.value, a.period_start \
     from unnest($2::bigint[], $3::text[]) as wanted (limit_id, value) \
     cross join lateral (select limit_id, value, period_start from limit_accounts \
     where tenant_id = $1 and limit_id = wanted.limit_id and value = wanted.value limit 1) a";
const INSERT_VALUES: &str = "insert into limit_values (tenant_id, limit_id, period_start, accounts) \
     values ($1, unnest($2), 0, 0) on conflict (tenant_id, limit_id) do nothing";
const LOCK_VALUES: &str = "select period_start, accounts, limit_id from limit_values \
     where tenant_id = $1 and limit_id = any($2) order by tenant_id, limit_id for update";
const SELECT_VALUES: &str = "select period_start, accounts, limit_id from limit_values \
     where tenant_id = $1 and limit_id = any($2)";
const INSERT_ACCOUNTS: &str = "insert into limit_accounts (tenant_id, limit_id, value, \
     period_start, used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, \
     held_calls, last_at) values ($1, unnest($2), unnest($3), 0, 0, 0, 0, 0, 0, 0, 0) \
     on conflict (tenant_id, limit_id, value) do nothing";
/// The rows are locked in the order of the keys, which are sorted.
const LOCK_ACCOUNTS: &str = "select a.period_start, a.used_cost_nanos, a.used_tokens, \
     a.used_calls, a.held_cost_nanos, a.held_tokens, a.held_calls, a.last_at, a.limit_id, a.value \
     from unnest($2::bigint[], $3::text[]) as wanted (limit_id, value) \
     cross join lateral (select period_start, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, last_at, limit_id, value from limit_accounts \
     where tenant_id = $1 and limit_id = wanted.limit_id and value = wanted.value \
     for no key update) a";
const SELECT_ACCOUNTS: &str = "select a.period_start, a.used_cost_nanos, a.used_tokens, \
     a.used_calls, a.held_cost_nanos, a.held_tokens, a.held_calls, a.last_at, a.limit_id, a.value \
     from unnest($2::bigint[], $3::text[]) as wanted (limit_id, value) \
     cross join lateral (select period_start, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, last_at, limit_id, value from limit_accounts \
     where tenant_id = $1 and limit_id = wanted.limit_id and value = wanted.value limit 1) a";
const SELECT_SECONDS: &str = "select a.second, a.used_cost_nanos, a.used_tokens, a.used_calls, \
     a.held_cost_nanos, a.held_tokens, a.held_calls, a.limit_id, a.value \
     from unnest($2::bigint[], $3::text[]) as wanted (limit_id, value) \
     cross join lateral (select second, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, limit_id, value from limit_seconds \
     where tenant_id = $1 and limit_id = wanted.limit_id and value = wanted.value offset 0) a";
const SUM_DUE: &str = "select a.limit_id, a.value, a.period_start, a.cost_nanos, a.tokens, a.calls \
     from unnest($2::bigint[], $3::text[]) as wanted (limit_id, value) \
     cross join lateral (select limit_id, value, period_start, \
     sum(cost_nanos)::bigint as cost_nanos, sum(tokens)::bigint as tokens, count(*) as calls \
     from postings where tenant_id = $1 and limit_id = wanted.limit_id \
     and value = wanted.value and expires_at <= $4 group by limit_id, value, period_start) a";
/// What a tenant has spent on a day, by the rollups of days by model: grain 2.
const SUM_DAY: &str = "select coalesce(sum(cost_nanos), 0)::bigint, \
     coalesce(sum(tokens_in + tokens_out), 0)::bigint, \
     coalesce(sum(calls - blocked), 0)::bigint \
     from rollups where tenant_id = $1 and grain = 2 and start = $2";
const UPSERT_ACCOUNTS: &str = "insert into limit_accounts (tenant_id, limit_id, value, \
     period_start, used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, \
     held_calls, last_at) values ($1, unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), \
     unnest($7), unnest($8), unnest($9), unnest($10), unnest($11)) \
     on conflict (tenant_id, limit_id, value) do update set \
     period_start = excluded.period_start, used_cost_nanos = excluded.used_cost_nanos, \
     used_tokens = excluded.used_tokens, used_calls = excluded.used_calls, \
     held_cost_nanos = excluded.held_cost_nanos, held_tokens = excluded.held_tokens, \
     held_calls = excluded.held_calls, last_at = excluded.last_at";
const UPSERT_SECONDS: &str = "insert into limit_seconds (tenant_id, limit_id, value, slot, second, \
     used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls) \
     values ($1, unnest($2), unnest($3), unnest($4::smallint[]), unnest($5), unnest($6), \
     unnest($7), unnest($8), unnest($9), unnest($10), unnest($11)) \
     on conflict (tenant_id, limit_id, value, slot) do update set second = excluded.second, \
     used_cost_nanos = excluded.used_cost_nanos, used_tokens = excluded.used_tokens, \
     used_calls = excluded.used_calls, held_cost_nanos = excluded.held_cost_nanos, \
     held_tokens = excluded.held_tokens, held_calls = excluded.held_calls";
const UPSERT_VALUES: &str = "insert into limit_values (tenant_id, limit_id, period_start, accounts) \
     values ($1, unnest($2), unnest($3), unnest($4)) on conflict (tenant_id, limit_id) \
     do update set period_start = excluded.period_start, accounts = excluded.accounts";
const INSERT_POSTINGS: &str = "insert into postings (tenant_id, limit_id, value, expires_at, \
     call_key, period_start, cost_nanos, tokens) values ($1, unnest($2), unnest($3), unnest($4), \
     unnest($5), unnest($6), unnest($7), unnest($8))";
const DELETE_POSTINGS: &str = "delete from postings where tenant_id = $1 and call_key = any($2)";

/// The sets of limits that this node knows, at the version that it read last.
#[derive(Default)]
pub(super) struct KnownSets {
    sets: Mutex<LimitSets>,
    pub(super) guard: CostGuard,
}

impl KnownSets {
    /// The set at this version, from memory or the database. `version` has the row of
    /// [`SHARE_SET`].
    pub(super) async fn at_version(
        &self,
        client: &Client,
        tenant_id: TenantId,
        version: &[Row],
    ) -> Result<Arc<LimitSet>, StoreError> {
        let version: i64 = version.first().map_or(Ok(0), |row| row.int(0))?;
        if version == 0 {
            return Ok(Arc::new(set_of(Vec::new(), self.guard.limit(None))));
        }
        let known = self.sets.lock().get(tenant_id).map(Arc::clone);
        if let Some(known) = known.filter(|known| known.version() == version) {
            return Ok(known);
        }
        let tenant = tenant_id.number();
        let key = params![tenant];
        let send = |sql: &'static str| -> Sent<'_, Vec<Row>> {
            Box::pin(async move { client.query_typed(sql, key).await.map_err(store_error) })
        };
        let found = in_order(vec![send(SELECT_SET), send(SELECT_COST_OVERRIDE)]).await?;
        let mut found = found.into_iter();
        let mut next = || found.next().unwrap_or_default();
        let (rows, overridden) = (next(), next());
        let overridden = overridden.first().map(read_cost_override).transpose()?;
        let rows = rows.iter().map(|row| SetRow::from_row(row)).collect::<Result<Vec<_>, _>>()?;
        let set = Arc::new(set_of(rows, self.guard.limit(overridden)));
        self.sets.lock().insert(tenant_id, Arc::clone(&set));
        Ok(set)
    }
}

/// The accounts of limits that a group locks, and what it found on the way.
pub(super) struct Locks {
    pub(super) set: Arc<LimitSet>,
    /// In key order.
    keys: Vec<LimitAccountKey>,
    /// Those of `keys` that exist for the limit itself, in key order.
    plain: Vec<LimitAccountKey>,
    /// The locked numbers of values.
    values: HashMap<LimitId, LimitValues>,
    values_max: i64,
}

impl Locks {
    /// Locks the numbers of values to which the group may add, and chooses the accounts to lock.
    ///
    /// `now` is provisional: the instant of the group is known when its accounts are locked.
    pub(super) async fn prepare(
        client: &Client,
        set: Arc<LimitSet>,
        wanted: WantedAccounts,
        (calendar, now): (&dyn Calendar, Timestamp),
        (values_max, all_values): (i64, bool),
    ) -> Result<Self, StoreError> {
        let for_each =
            |key: &LimitAccountKey| set.get(key.limit_id).is_some_and(|limit| limit.is_for_each());
        let WantedAccounts { mut holding, mut counting } = wanted;
        // The shared account of a limit is locked only if it is needed, because all calls under the
        // limit would wait for each other.
        counting.retain(|key| !for_each(key) || !key.value.is_empty());
        holding.append(&mut counting);
        let (own, plain): (Vec<_>, Vec<_>) =
            holding.into_iter().partition(|key| !key.value.is_empty());
        let values = HashMap::new();
        let mut locks = Self { set, keys: own.clone(), plain, values, values_max };
        if let Some(tenant_id) = own.first().map(|key| key.tenant_id) {
            let mut new: HashMap<LimitId, i64> = HashMap::new();
            let starts = starts(client, tenant_id, &own).await?;
            for key in &own {
                let start = starts.get(key).copied();
                if all_values || !locks.is_of_period(key, start, calendar, now)? {
                    *new.entry(key.limit_id).or_default() += 1;
                }
            }
            if !new.is_empty() {
                locks.values = lock_values(client, tenant_id, &new).await?;
            }
            // Values that find no room use the account of the limit itself.
            for (limit_id, more) in new {
                let accounts = locks.values.get(&limit_id).map_or(0, |values| values.accounts);
                if accounts.saturating_add(more) > values_max {
                    locks.plain.push(shared_account(tenant_id, limit_id));
                }
            }
        }
        locks.plain.sort_unstable();
        locks.plain.dedup();
        locks.keys.extend(locks.plain.iter().cloned());
        locks.keys.sort_unstable();
        Ok(locks)
    }

    /// Whether a stored account is of the period of an instant.
    fn is_of_period(
        &self,
        key: &LimitAccountKey,
        start: Option<Timestamp>,
        calendar: &dyn Calendar,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (Some(limit), Some(start)) = (self.set.get(key.limit_id), start) else {
            return Ok(false);
        };
        let period = limit.rule.bound.period(calendar, now);
        let period = period.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let has_periods = limit.rule.bound.window().is_some() && !has_seconds(&limit.rule.bound);
        Ok(!has_periods || period.is_none_or(|period| period.start == start))
    }

    /// The statements that insert missing accounts, and lock all of them.
    pub(super) fn statements(&self) -> LockStatements {
        LockStatements { plain: columns_of(&self.plain), all: columns_of(&self.keys) }
    }

    /// The statements that read what the accounts have beside their rows.
    pub(super) fn reads(&self, now: Timestamp) -> AccountReads {
        let with_seconds = self.keys.iter().filter(|key| {
            self.set.get(key.limit_id).is_some_and(|limit| has_seconds(&limit.rule.bound))
        });
        let with_seconds: Vec<LimitAccountKey> = with_seconds.cloned().collect();
        AccountReads {
            all: columns_of(&self.keys),
            with_seconds: columns_of(&with_seconds),
            has_guard: self.keys.iter().any(|key| key.limit_id == LimitId::COST_GUARD),
            now: now.micros(),
            day: now.day().number().into(),
        }
    }

    /// The latest start of a period in which values were counted, but none after `latest`.
    ///
    /// It was the time of a decision, so the next one is not before it.
    pub(super) fn latest_start(&self, latest: Timestamp) -> Timestamp {
        let starts = self.values.values().map(|values| values.start);
        starts.filter(|start| *start <= latest).max().unwrap_or(Timestamp::MIN)
    }

    /// The loaded accounts; `None` if a value needs a number of values or a shared account that is
    /// not locked.
    ///
    /// When the locks were chosen, the group may have been in the period before.
    pub(super) fn loaded(
        self,
        tenant_id: TenantId,
        rows: &AccountRows,
        (calendar, now): (&dyn Calendar, Timestamp),
    ) -> Result<Option<LoadedLimits>, StoreError> {
        let accounts = accounts(&self.set, tenant_id, &self.keys, rows, now)?;
        let mut new: HashMap<LimitId, (Timestamp, i64)> = HashMap::new();
        for (key, account) in accounts.iter().filter(|(key, _)| !key.value.is_empty()) {
            let Some(limit) = self.set.get(key.limit_id) else { continue };
            let period = limit.rule.bound.period(calendar, now);
            let period = period.map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let Some(period) = period.filter(|period| !account.is_in_use(*period)) else {
                continue;
            };
            new.entry(key.limit_id).or_insert((period.start, 0)).1 += 1;
        }
        for (limit_id, (start, more)) in new {
            let Some(values) = self.values.get(&limit_id) else { return Ok(None) };
            let in_period = if values.start == start { values.accounts } else { 0 };
            let has_shared = accounts.contains_key(&shared_account(tenant_id, limit_id));
            if in_period.saturating_add(more) > self.values_max && !has_shared {
                return Ok(None);
            }
        }
        let values = self.values.into_iter();
        Ok(Some(LoadedLimits {
            sets: HashMap::from([(tenant_id, self.set)]),
            accounts,
            values: values.map(|(limit_id, values)| ((tenant_id, limit_id), values)).collect(),
        }))
    }
}

/// The key of the account that further values of a limit share.
fn shared_account(tenant_id: TenantId, limit_id: LimitId) -> LimitAccountKey {
    LimitAccountKey { tenant_id, limit_id, value: Arc::default() }
}

/// Keys as the values of two columns.
pub(super) type KeyColumns = (Vec<i64>, Vec<String>);

fn columns_of(keys: &[LimitAccountKey]) -> KeyColumns {
    keys.iter().map(|key| (key.limit_id.number(), key.value.to_string())).unzip()
}

/// The parameters of the statements that lock accounts.
pub(super) struct LockStatements {
    plain: KeyColumns,
    all: KeyColumns,
}

impl LockStatements {
    /// Inserts missing accounts, then locks all accounts. The rows of the second statement are
    /// those of the accounts.
    pub(super) fn send<'a>(
        &'a self,
        client: &'a Client,
        tenant: &'a i64,
    ) -> [Sent<'a, Vec<Row>>; 2] {
        [(INSERT_ACCOUNTS, &self.plain), (LOCK_ACCOUNTS, &self.all)]
            .map(|(sql, keys)| of_keys(client, sql, tenant, keys))
    }
}

/// The parameters of the statements that read what accounts have beside their rows.
pub(super) struct AccountReads {
    all: KeyColumns,
    with_seconds: KeyColumns,
    /// Whether the operator's limit is one of them, which counts the whole day.
    has_guard: bool,
    now: i64,
    day: i64,
}

/// The rows from which accounts are made.
#[derive(Default)]
pub(super) struct AccountRows {
    pub(super) accounts: Vec<Row>,
    pub(super) seconds: Vec<Row>,
    pub(super) due: Vec<Row>,
    pub(super) day: Vec<Row>,
}

impl AccountReads {
    /// Reads the seconds, then the sums of due holds, then the sums of the day.
    pub(super) fn send<'a>(
        &'a self,
        client: &'a Client,
        tenant: &'a i64,
    ) -> [Sent<'a, Vec<Row>>; 3] {
        let due = Box::pin(async move {
            let (limits, values) = &self.all;
            if limits.is_empty() {
                return Ok(Vec::new());
            }
            let key = params![*tenant, *limits, *values, self.now];
            client.query_typed(SUM_DUE, key).await.map_err(store_error)
        });
        let day: Sent<'a, Vec<Row>> = Box::pin(async move {
            if !self.has_guard {
                return Ok(Vec::new());
            }
            let key = params![*tenant, self.day];
            client.query_typed(SUM_DAY, key).await.map_err(store_error)
        });
        [of_keys(client, SELECT_SECONDS, tenant, &self.with_seconds), due, day]
    }
}

fn of_keys<'a>(
    client: &'a Client,
    sql: &'static str,
    tenant: &'a i64,
    (limits, values): &'a KeyColumns,
) -> Sent<'a, Vec<Row>> {
    Box::pin(async move {
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let key = params![*tenant, *limits, *values];
        client.query_typed(sql, key).await.map_err(store_error)
    })
}

/// The starts of the periods of stored accounts.
async fn starts(
    client: &Client,
    tenant_id: TenantId,
    keys: &[LimitAccountKey],
) -> Result<HashMap<LimitAccountKey, Timestamp>, StoreError> {
    let (tenant, columns) = (tenant_id.number(), columns_of(keys));
    let rows = of_keys(client, SELECT_STARTS, &tenant, &columns).await?;
    rows.iter().map(|row| Ok((key_of(row, 0, tenant_id)?, row.instant(2)?))).collect()
}

async fn lock_values(
    client: &Client,
    tenant_id: TenantId,
    new: &HashMap<LimitId, i64>,
) -> Result<HashMap<LimitId, LimitValues>, StoreError> {
    let tenant = tenant_id.number();
    let mut limits: Vec<i64> = new.keys().map(|limit_id| limit_id.number()).collect();
    limits.sort_unstable();
    let key = params![tenant, limits];
    let send = |sql: &'static str| -> Sent<'_, Vec<Row>> {
        Box::pin(async move { client.query_typed(sql, key).await.map_err(store_error) })
    };
    let rows = in_order(vec![send(INSERT_VALUES), send(LOCK_VALUES)]).await?;
    rows.last().map_or(Ok(HashMap::new()), |rows| values_by_limit(rows))
}

fn values_by_limit(rows: &[Row]) -> Result<HashMap<LimitId, LimitValues>, StoreError> {
    rows.iter().map(|row| Ok((row.id(2, LimitId::from_number)?, read_values(row, 0)?))).collect()
}

fn key_of(row: &Row, at: usize, tenant_id: TenantId) -> Result<LimitAccountKey, StoreError> {
    let limit_id = row.id(at, LimitId::from_number)?;
    Ok(LimitAccountKey { tenant_id, limit_id, value: row.text(at + 1)? })
}

/// The accounts of keys from their rows, seconds and sums of due holds. A key without a row has an
/// account in which nothing has counted.
fn accounts(
    set: &LimitSet,
    tenant_id: TenantId,
    keys: &[LimitAccountKey],
    AccountRows { accounts: rows, seconds, due, day: of_day }: &AccountRows,
    now: Timestamp,
) -> Result<HashMap<LimitAccountKey, LimitAccount>, StoreError> {
    let mut seconds_of: HashMap<LimitAccountKey, Vec<MinuteSlot>> = HashMap::new();
    for row in seconds {
        seconds_of.entry(key_of(row, 7, tenant_id)?).or_default().push(read_second(row, 0)?);
    }
    let mut due_of: HashMap<LimitAccountKey, Vec<(Timestamp, Totals)>> = HashMap::new();
    for row in due {
        let sum = (row.instant(2)?, decode::totals(row, 3)?);
        due_of.entry(key_of(row, 0, tenant_id)?).or_default().push(sum);
    }
    let mut accounts = HashMap::with_capacity(keys.len());
    for row in rows {
        let key = key_of(row, 8, tenant_id)?;
        let Some(limit) = set.get(key.limit_id) else { continue };
        let seconds = seconds_of.remove(&key).unwrap_or_default();
        let mut account = read_account(row, 0, &limit.rule.bound, seconds)?;
        account.restore_due(due_of.remove(&key).unwrap_or_default());
        accounts.insert(key, account);
    }
    for key in keys {
        let Some(limit) = set.get(key.limit_id) else { continue };
        let fresh = || LimitAccount::new(&limit.rule.bound);
        let account = accounts.entry(key.clone()).or_insert_with(fresh);
        if let Some(day) = day_to_begin(key.limit_id, account, now)
            && let Some(sums) = of_day.first()
        {
            account.begin_with(day, decode::totals(sums, 0)?);
        }
    }
    Ok(accounts)
}

/// Sends the read of the version of a tenant's limits.
pub(super) fn select_version<'a>(client: &'a Client, tenant: &'a i64) -> Sent<'a, Vec<Row>> {
    Box::pin(async move {
        client.query_typed(SELECT_VERSION, params![*tenant]).await.map_err(store_error)
    })
}

/// The limits that a call falls under and their accounts, without locks.
pub(super) async fn snapshot(
    client: &Client,
    set: Arc<LimitSet>,
    tenant_id: TenantId,
    subject: &Subject<'_>,
    now: Timestamp,
) -> Result<LoadedLimits, StoreError> {
    let keys = set.account_keys(tenant_id, subject);
    if keys.is_empty() {
        let sets = HashMap::from([(tenant_id, set)]);
        return Ok(LoadedLimits { sets, ..LoadedLimits::default() });
    }
    let for_each = set.limits().iter().filter(|limit| limit.is_for_each());
    let for_each: Vec<i64> = for_each.map(|limit| limit.id.number()).collect();
    let (tenant, columns) = (tenant_id.number(), columns_of(&keys));
    let (plain, values) = (Vec::new(), HashMap::new());
    let locks = Locks { set, keys, plain, values, values_max: 0 };
    let reads = locks.reads(now);
    let [seconds, due, day] = reads.send(client, &tenant);
    let values: Sent<'_, Vec<Row>> = Box::pin(async {
        let key = params![tenant, for_each];
        client.query_typed(SELECT_VALUES, key).await.map_err(store_error)
    });
    let rows = of_keys(client, SELECT_ACCOUNTS, &tenant, &columns);
    let mut results = in_order(vec![rows, seconds, due, day, values]).await?.into_iter();
    let mut next = || results.next().unwrap_or_default();
    let rows = AccountRows { accounts: next(), seconds: next(), due: next(), day: next() };
    let values = next();
    let mut stored = values_by_limit(&values)?;
    let of_limit = |limit: &i64| {
        let limit_id = crate::rows::codec::id(LimitId::from_number, *limit)?;
        Ok(((tenant_id, limit_id), stored.remove(&limit_id).unwrap_or_default()))
    };
    let values = for_each.iter().map(of_limit).collect::<Result<_, StoreError>>()?;
    let accounts = accounts(&locks.set, tenant_id, &locks.keys, &rows, now)?;
    Ok(LoadedLimits { sets: HashMap::from([(tenant_id, locks.set)]), accounts, values })
}

/// The changes of accounts, seconds, numbers of values and postings.
pub(super) fn changes(limits: &LimitBook, holds: &[HoldChange]) -> Vec<Bulk<'static>> {
    let changed = limits.accounts().iter().filter(|(_, account)| account.is_changed());
    let mut changed: Vec<(&LimitAccountKey, &LimitAccount)> = changed.collect();
    changed.sort_unstable_by_key(|(key, _)| *key);
    if changed.is_empty() && holds.iter().all(|change| postings_of(change).is_empty()) {
        return Vec::new();
    }
    let mut accounts = KeyedRows::default();
    let mut seconds = KeyedRows::default();
    for (key, account) in changed {
        let sums = AccountSums::of(account).figures();
        accounts.push(key, sums.into_iter().chain([account.last_at().micros()]));
        for slot in account.changed_slots() {
            let index = i64::from(slot.index());
            seconds.push(key, std::iter::once(index).chain(second_figures(slot)));
        }
    }
    let mut values = KeyedRows::default();
    for ((tenant_id, limit_id), LimitValues { start, accounts }) in limits.changed_values() {
        let key = shared_account(tenant_id, limit_id);
        values.push(&key, [start.micros(), accounts]);
    }
    let (ended, made) = postings(holds);
    vec![
        accounts.bulk(UPSERT_ACCOUNTS),
        seconds.bulk(UPSERT_SECONDS),
        values.bulk_without_value(UPSERT_VALUES),
        ended,
        made,
    ]
}

/// Rows of keys and figures, as columns.
#[derive(Default)]
struct KeyedRows {
    limits: Vec<i64>,
    values: Vec<Option<String>>,
    figures: Vec<Vec<i64>>,
}

impl KeyedRows {
    fn push(&mut self, key: &LimitAccountKey, figures: impl IntoIterator<Item = i64>) {
        self.limits.push(key.limit_id.number());
        self.values.push(Some(key.value.to_string()));
        for (at, figure) in figures.into_iter().enumerate() {
            if self.figures.len() == at {
                self.figures.push(Vec::new());
            }
            if let Some(column) = self.figures.get_mut(at) {
                column.push(figure);
            }
        }
    }

    fn bulk(self, sql: &'static str) -> Bulk<'static> {
        let rows = self.limits.len();
        let mut columns = vec![Column::Numbers(self.limits), Column::OwnTexts(self.values)];
        columns.extend(self.figures.into_iter().map(Column::Numbers));
        Bulk { sql, rows, columns }
    }

    fn bulk_without_value(self, sql: &'static str) -> Bulk<'static> {
        let rows = self.limits.len();
        let mut columns = vec![Column::Numbers(self.limits)];
        columns.extend(self.figures.into_iter().map(Column::Numbers));
        Bulk { sql, rows, columns }
    }
}

fn postings_of(change: &HoldChange) -> &[bursar_core::Posting] {
    match change {
        HoldChange::Made(hold) | HoldChange::Ended(hold) => &hold.postings,
        HoldChange::Extended { before, .. } => &before.postings,
    }
}

/// The postings to delete and to insert.
///
/// A group may make a hold and end it. Such a hold is in neither, because postings are deleted
/// first.
fn postings(changes: &[HoldChange]) -> (Bulk<'static>, Bulk<'static>) {
    let mut made: HashMap<CallKey, Hold> = HashMap::new();
    let mut ended: Vec<CallKey> = Vec::new();
    for change in changes.iter().filter(|change| !postings_of(change).is_empty()) {
        let (before, after) = match change {
            HoldChange::Made(hold) => (None, Some(hold.clone())),
            HoldChange::Ended(hold) => (Some(hold), None),
            HoldChange::Extended { before, expires_at } => {
                (Some(before), Some(Hold { expires_at: *expires_at, ..before.clone() }))
            }
        };
        if let Some(before) = before
            && made.remove(&before.call).is_none()
        {
            ended.push(before.call);
        }
        made.extend(after.map(|hold| (hold.call, hold)));
    }
    (ended_postings(&ended), made_postings(made.values()))
}

fn ended_postings(calls: &[CallKey]) -> Bulk<'static> {
    let calls: Vec<Key> = calls.iter().copied().map(Key).collect();
    Bulk { sql: DELETE_POSTINGS, rows: calls.len(), columns: vec![Column::Keys(calls)] }
}

fn made_postings<'h>(holds: impl Iterator<Item = &'h Hold>) -> Bulk<'static> {
    let (mut limits, mut values) = (Vec::new(), Vec::new());
    let (mut expiries, mut calls) = (Vec::new(), Vec::new());
    let (mut starts, mut costs, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for hold in holds {
        for posting in hold.postings.iter() {
            limits.push(posting.account.limit_id.number());
            values.push(Some(posting.account.value.to_string()));
            expiries.push(hold.expires_at.micros());
            calls.push(Key(hold.call));
            starts.push(posting.start.micros());
            costs.push(hold.amount.cost.get());
            tokens.push(hold.amount.tokens);
        }
    }
    let rows = limits.len();
    let columns = vec![
        Column::Numbers(limits),
        Column::OwnTexts(values),
        Column::Numbers(expiries),
        Column::Keys(calls),
        Column::Numbers(starts),
        Column::Numbers(costs),
        Column::Numbers(tokens),
    ];
    Bulk { sql: INSERT_POSTINGS, rows, columns }
}
