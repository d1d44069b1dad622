//! Loads and saves limits and their accounts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bursar_core::{
    Bound, Hold, HoldChange, LimitAccount, LimitAccountKey, LimitBook, LimitId, LimitSet,
    LimitValues, LoadedLimits, MinuteSlot, Nanos, Subject, TenantId, Timestamp, Totals,
};
use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::error::store_error;
use super::holds::Holds;
use super::query;
use super::writer_state::SqliteWriter;
use crate::cost_guard::{CostGuard, day_to_begin};
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::limit_account::{
    AccountSums, has_seconds, read_account, read_second, read_values, second_figures,
};
use crate::tables::limits::{SELECT_COST_OVERRIDE, SELECT_SET, SetRow, read_cost_override, set_of};
use crate::tables::value::{FromRow, values};

const SELECT_ACCOUNT: &str = "select period_start, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls, last_at from limit_accounts \
     where tenant_id = ?1 and limit_id = ?2 and value = ?3";
const SELECT_SECONDS: &str = "select second, used_cost_nanos, used_tokens, used_calls, \
     held_cost_nanos, held_tokens, held_calls from limit_seconds \
     where tenant_id = ?1 and limit_id = ?2 and value = ?3";
const SELECT_VALUES: &str =
    "select period_start, accounts from limit_values where tenant_id = ?1 and limit_id = ?2";
const SELECT_POSTINGS: &str = "select call_key, cost_nanos, tokens, period_start, expires_at \
     from postings where tenant_id = ?1 and limit_id = ?2 and value = ?3";
const SUM_DUE: &str = "select period_start, sum(cost_nanos), sum(tokens), count(*) \
     from postings where tenant_id = ?1 and limit_id = ?2 and value = ?3 and expires_at <= ?4 \
     group by period_start";
/// What a tenant has spent on a day, by the rollups of days by model: grain 2.
const SUM_DAY: &str = "select coalesce(sum(cost_nanos), 0), \
     coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(calls - blocked), 0) \
     from rollups indexed by rollups_by_day where tenant_id = $1 and grain = 2 and start = $2";
const UPSERT_ACCOUNT: &str = "insert into limit_accounts (tenant_id, limit_id, value, \
     period_start, used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, \
     held_calls, last_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
     on conflict (tenant_id, limit_id, value) do update set \
     period_start = excluded.period_start, used_cost_nanos = excluded.used_cost_nanos, \
     used_tokens = excluded.used_tokens, used_calls = excluded.used_calls, \
     held_cost_nanos = excluded.held_cost_nanos, held_tokens = excluded.held_tokens, \
     held_calls = excluded.held_calls, last_at = excluded.last_at";
const UPSERT_SECOND: &str = "insert into limit_seconds (tenant_id, limit_id, value, slot, second, \
     used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
     on conflict (tenant_id, limit_id, value, slot) do update set second = excluded.second, \
     used_cost_nanos = excluded.used_cost_nanos, used_tokens = excluded.used_tokens, \
     used_calls = excluded.used_calls, held_cost_nanos = excluded.held_cost_nanos, \
     held_tokens = excluded.held_tokens, held_calls = excluded.held_calls";
const UPSERT_VALUES: &str = "insert into limit_values (tenant_id, limit_id, period_start, \
     accounts) values (?1, ?2, ?3, ?4) on conflict (tenant_id, limit_id) do update set \
     period_start = excluded.period_start, accounts = excluded.accounts";
const INSERT_POSTING: &str = "insert into postings (tenant_id, limit_id, value, expires_at, \
     call_key, period_start, cost_nanos, tokens) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const DELETE_POSTING: &str = "delete from postings where tenant_id = ?1 and limit_id = ?2 \
     and value = ?3 and expires_at = ?4 and call_key = ?5";

type Sets = HashMap<TenantId, Arc<LimitSet>>;

/// The limits of these tenants, from the cache or the file.
pub(super) fn sets(
    writer: &SqliteWriter,
    tenants: &BTreeSet<TenantId>,
) -> Result<Sets, StoreError> {
    let set = |tenant_id: &TenantId| match writer.limits.set(*tenant_id) {
        Some(set) => Ok((*tenant_id, set)),
        None => {
            let set = stored_set(&writer.connection, &writer.guard, *tenant_id)?;
            Ok((*tenant_id, Arc::new(set)))
        }
    };
    tenants.iter().map(set).collect()
}

/// The accounts of these keys, from the cache or the file.
pub(super) fn loaded(
    writer: &mut SqliteWriter,
    sets: Sets,
    keys: BTreeSet<LimitAccountKey>,
) -> Result<LoadedLimits, StoreError> {
    let mut loaded = LoadedLimits::default();
    for key in keys {
        let Some(bound) = bound_of(&sets, &key) else { continue };
        let account = match writer.limits.copy_at(&key, writer.now)? {
            Some(account) => account,
            None => {
                let mut account = stored_account(&writer.connection, bound, &key)?;
                let holds = stored_holds(&writer.connection, &key)?;
                account.restore_due(holds.due(writer.now)?);
                writer.staged.limits.loaded_holds.insert(key.clone(), holds);
                account
            }
        };
        let account = counted_from_start(&writer.connection, &key, account, writer.now)?;
        loaded.accounts.insert(key, account);
    }
    for (tenant_id, limit_id) in limits_for_each(&sets) {
        let values = match writer.limits.values((tenant_id, limit_id)) {
            Some(values) => values,
            None => stored_values(&writer.connection, tenant_id, limit_id)?,
        };
        loaded.values.insert((tenant_id, limit_id), values);
    }
    loaded.sets = sets;
    Ok(loaded)
}

/// The limits that a call falls under and their accounts, read from one snapshot of the file.
pub(super) fn snapshot(
    db: &Connection,
    guard: &CostGuard,
    tenant_id: TenantId,
    subject: &Subject<'_>,
    now: Timestamp,
) -> Result<LoadedLimits, StoreError> {
    let set = Arc::new(stored_set(db, guard, tenant_id)?);
    let mut loaded = LoadedLimits::default();
    for key in set.account_keys(tenant_id, subject) {
        let Some(limit) = set.get(key.limit_id) else { continue };
        let mut account = stored_account(db, &limit.rule.bound, &key)?;
        account.restore_due(stored_due(db, &key, now)?);
        let account = counted_from_start(db, &key, account, now)?;
        loaded.accounts.insert(key, account);
    }
    loaded.sets.insert(tenant_id, set);
    for (tenant_id, limit_id) in limits_for_each(&loaded.sets) {
        let values = stored_values(db, tenant_id, limit_id)?;
        loaded.values.insert((tenant_id, limit_id), values);
    }
    Ok(loaded)
}

fn bound_of<'s>(sets: &'s Sets, key: &LimitAccountKey) -> Option<&'s Bound> {
    let limit = sets.get(&key.tenant_id)?.get(key.limit_id)?;
    Some(&limit.rule.bound)
}

/// The limits of these sets that have an account for each value.
fn limits_for_each(sets: &Sets) -> Vec<(TenantId, LimitId)> {
    let of_set = |(tenant_id, set): (&TenantId, &Arc<LimitSet>)| {
        let for_each = set.limits().iter().filter(|limit| limit.is_for_each());
        for_each.map(|limit| (*tenant_id, limit.id)).collect::<Vec<_>>()
    };
    sets.iter().flat_map(of_set).collect()
}

/// Begins the day of the operator's limit with what was spent before. Other accounts stay as they
/// are.
fn counted_from_start(
    db: &Connection,
    key: &LimitAccountKey,
    mut account: LimitAccount,
    now: Timestamp,
) -> Result<LimitAccount, StoreError> {
    let Some(day) = day_to_begin(key.limit_id, &account, now) else { return Ok(account) };
    let mut used = Totals::default();
    let of = values![key.tenant_id, i64::from(now.day().number())];
    query::select(db, SUM_DAY, &of, &mut |row| {
        used = decode::totals(row, 0)?;
        Ok(())
    })?;
    account.begin_with(day, used);
    Ok(account)
}

fn stored_set(
    db: &Connection,
    guard: &CostGuard,
    tenant_id: TenantId,
) -> Result<LimitSet, StoreError> {
    let mut overridden = None;
    query::select(db, SELECT_COST_OVERRIDE, &values![tenant_id], &mut |row| {
        overridden = Some(read_cost_override(row)?);
        Ok(())
    })?;
    let mut rows = Vec::new();
    query::select(db, SELECT_SET, &values![tenant_id], &mut |row| {
        rows.push(SetRow::from_row(row)?);
        Ok(())
    })?;
    Ok(set_of(rows, guard.limit(overridden)))
}

fn stored_account(
    db: &Connection,
    bound: &Bound,
    key: &LimitAccountKey,
) -> Result<LimitAccount, StoreError> {
    let of = params![key.tenant_id.number(), key.limit_id.number(), &*key.value];
    let mut seconds: Vec<MinuteSlot> = Vec::new();
    if has_seconds(bound) {
        let mut statement = db.prepare_cached(SELECT_SECONDS).map_err(store_error)?;
        let mut rows = statement.query(of).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            seconds.push(read_second(row, 0)?);
        }
    }
    let mut statement = db.prepare_cached(SELECT_ACCOUNT).map_err(store_error)?;
    let mut rows = statement.query(of).map_err(store_error)?;
    match rows.next().map_err(store_error)? {
        Some(row) => read_account(row, 0, bound, seconds),
        None => Ok(LimitAccount::new(bound)),
    }
}

/// The open holds of an account.
fn stored_holds(db: &Connection, key: &LimitAccountKey) -> Result<Holds, StoreError> {
    let mut holds = Holds::default();
    let mut statement = db.prepare_cached(SELECT_POSTINGS).map_err(store_error)?;
    let of = params![key.tenant_id.number(), key.limit_id.number(), &*key.value];
    let mut rows = statement.query(of).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        let estimate = decode::estimate(row, 1)?;
        holds.add(
            decode::call_key(row, 0)?,
            row.instant(4)?,
            estimate.totals(),
            row.instant(3)?,
        )?;
    }
    Ok(holds)
}

/// The sums of the due holds of an account, by the start of their posting.
fn stored_due(
    db: &Connection,
    key: &LimitAccountKey,
    now: Timestamp,
) -> Result<Vec<(Timestamp, Totals)>, StoreError> {
    let mut due = Vec::new();
    let mut statement = db.prepare_cached(SUM_DUE).map_err(store_error)?;
    let of = params![key.tenant_id.number(), key.limit_id.number(), &*key.value, now.micros()];
    let mut rows = statement.query(of).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        due.push((row.instant(0)?, decode::totals(row, 1)?));
    }
    Ok(due)
}

fn stored_values(
    db: &Connection,
    tenant_id: TenantId,
    limit_id: LimitId,
) -> Result<LimitValues, StoreError> {
    let mut statement = db.prepare_cached(SELECT_VALUES).map_err(store_error)?;
    let mut rows =
        statement.query(params![tenant_id.number(), limit_id.number()]).map_err(store_error)?;
    let row = rows.next().map_err(store_error)?;
    row.map_or_else(|| Ok(LimitValues::default()), |row| read_values(row, 0))
}

/// Writes the changes of accounts and of the numbers of values.
pub(super) fn save(db: &Connection, limits: &LimitBook) -> Result<(), StoreError> {
    let mut upsert = db.prepare_cached(UPSERT_ACCOUNT).map_err(store_error)?;
    let mut upsert_second = db.prepare_cached(UPSERT_SECOND).map_err(store_error)?;
    for (key, account) in limits.accounts().iter().filter(|(_, account)| account.is_changed()) {
        let (tenant, limit) = (key.tenant_id.number(), key.limit_id.number());
        let of: [&dyn ToSql; 3] = [&tenant, &limit, &&*key.value];
        let (figures, last_at) = (AccountSums::of(account).figures(), account.last_at().micros());
        let figures = figures.iter().chain([&last_at]).map(|figure| figure as &dyn ToSql);
        upsert.execute(params_from_iter(of.into_iter().chain(figures))).map_err(store_error)?;
        for second in account.changed_slots() {
            let (slot, figures) = (second.index(), second_figures(second));
            let figures = figures.iter().map(|figure| figure as &dyn ToSql);
            let row = of.into_iter().chain([&slot as &dyn ToSql]).chain(figures);
            upsert_second.execute(params_from_iter(row)).map_err(store_error)?;
        }
    }
    let mut upsert = db.prepare_cached(UPSERT_VALUES).map_err(store_error)?;
    for ((tenant_id, limit_id), values) in limits.changed_values() {
        let LimitValues { start, accounts } = values;
        let row = params![tenant_id.number(), limit_id.number(), start.micros(), accounts];
        upsert.execute(row).map_err(store_error)?;
    }
    Ok(())
}

/// Writes the changes of postings.
pub(super) fn save_postings(db: &Connection, changes: &[HoldChange]) -> Result<(), StoreError> {
    for change in changes {
        match change {
            HoldChange::Made(hold) => insert_postings(db, hold, hold.expires_at)?,
            HoldChange::Ended(hold) => delete_postings(db, hold)?,
            HoldChange::Extended { before, expires_at } => {
                delete_postings(db, before)?;
                insert_postings(db, before, *expires_at)?;
            }
        }
    }
    Ok(())
}

fn insert_postings(db: &Connection, hold: &Hold, expires_at: Timestamp) -> Result<(), StoreError> {
    for posting in hold.postings.iter() {
        let key = &posting.account;
        let mut insert = db.prepare_cached(INSERT_POSTING).map_err(store_error)?;
        let row = params![
            key.tenant_id.number(),
            key.limit_id.number(),
            &*key.value,
            expires_at.micros(),
            hold.call.0.to_be_bytes(),
            posting.start.micros(),
            Nanos::get(hold.amount.cost),
            hold.amount.tokens,
        ];
        insert.execute(row).map_err(store_error)?;
    }
    Ok(())
}

fn delete_postings(db: &Connection, hold: &Hold) -> Result<(), StoreError> {
    for posting in hold.postings.iter() {
        let key = &posting.account;
        let mut delete = db.prepare_cached(DELETE_POSTING).map_err(store_error)?;
        let row = params![
            key.tenant_id.number(),
            key.limit_id.number(),
            &*key.value,
            hold.expires_at.micros(),
            hold.call.0.to_be_bytes(),
        ];
        delete.execute(row).map_err(store_error)?;
    }
    Ok(())
}
