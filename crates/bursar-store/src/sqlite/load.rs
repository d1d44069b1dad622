//! Loads the calls, accounts, months and due holds of a group into a book.

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{
    Account, Book, Call, CallKey, Counter, EntryId, Hold, IntegrationId, Loaded, LoadedLimits,
    Month, RecordedCall, TenantId, TenantSums, Timestamp, Totals,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::account_cache::by_month;
use super::error::store_error;
use super::holds::Holds;
use super::writer_state::SqliteWriter;
use super::{limits, query};
use crate::error::StoreError;
use crate::rows::codec::{SCOPE_INTEGRATION, id};
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::reservation_columns::reservation_columns;
use crate::rows::row::{IntegrationRow, TenantRow};
use crate::tables::integrations::SELECT_INTEGRATION;
use crate::tables::tenants::SELECT_TENANT;
use crate::tables::value::values;
use crate::write::writer_connection::{Claim, LoadRequest, ReservedBefore, WantedAccounts};

const CLAIM: &str = "insert into calls (tenant_id, call_key, entry_id) values (?1, ?2, ?3) \
     on conflict do nothing";
const SELECT_CALL: &str = "select entry_id from calls where tenant_id = ?1 and call_key = ?2";
const SELECT_RESERVATION: &str = concat!(
    "select ",
    reservation_columns!(entry_names),
    " from reservations where tenant_id = ?1 and call_key = ?2"
);
const SELECT_RECORDED: &str = "select call_id, integration_id, session_id, agent_id, provider, \
     model, tokens_in, tokens_out, reported_cost_nanos, policy_result, error_code, occurred_at, \
     cost_source from usage_entries where entry_id = ?1 and tenant_id = ?2";
const SELECT_COUNTER: &str = "select used_cost_nanos, used_tokens, used_calls, held_cost_nanos, \
     held_tokens, held_calls, last_at from counters \
     where tenant_id = ?1 and scope_kind = ?2 and scope_id = ?3 and month = ?4";
const SELECT_RATE: &str = "select second, calls from rate_slots \
     where tenant_id = ?1 and scope_kind = ?2 and scope_id = ?3";
const SELECT_OPEN: &str = "select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at from reservations indexed by reservations_open \
     where tenant_id = ?1 and integration_id = ?2 and state = 1";
const SELECT_DUE_OF: &str = "select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at from reservations where tenant_id = ?1 and integration_id = ?2 \
     and state = 1 and expires_at <= ?3";
/// The sum of due holds that were made in a month.
const SUM_DUE_OF_MONTH: &str = "select coalesce(sum(estimated_cost_nanos), 0), \
     coalesce(sum(estimated_tokens), 0), count(*) from reservations indexed by reservations_open \
     where tenant_id = ?1 and integration_id = ?2 and state = 1 and expires_at <= ?3 \
     and reserved_at >= ?4 and reserved_at < ?5";
const SELECT_RESERVATIONS: &str =
    "select coalesce(sum(reservations), 0) from open_reservations where tenant_id = ?1";
/// Counts due reservations up to a limit.
const COUNT_DUE: &str = "select count(*) from (select 1 from reservations indexed by reservations_due \
     where tenant_id = ?1 and state = 1 and expires_at <= ?2 limit ?3)";
const SUM_BYTES: &str =
    "select coalesce(sum(bytes), 0) from stored_bytes where tenant_id = ?1 and day = ?2";

/// Claims the calls of a group, loads what it needs, and opens its book.
pub(super) fn book<'a>(
    writer: &mut SqliteWriter,
    request: &LoadRequest<'a>,
) -> Result<Book<'a>, StoreError> {
    let calls = calls(writer, request)?;
    let mut touched = request.integrations.clone();
    for ((tenant_id, _), call) in &calls {
        if let Some(reservation) = &call.reservation {
            touched.insert((*tenant_id, reservation.request.integration_id));
        }
    }
    let mut accounts: HashMap<IntegrationId, Account> = HashMap::with_capacity(touched.len());
    for (tenant_id, integration_id) in touched {
        if let Some(account) = current_account(writer, tenant_id, integration_id)? {
            accounts.insert(integration_id, account);
        }
    }
    let due: Vec<Hold> = request.due.values().filter(|hold| writer.is_due(hold)).cloned().collect();
    for (integration_id, month) in months(writer.now, request, &calls, &accounts, &due) {
        if let Some(account) = accounts.get_mut(&integration_id)
            && account.counter(month).is_err()
        {
            let tenant_id = account.tenant_id;
            account.restore(month, counter(&writer.connection, tenant_id, integration_id, month)?);
        }
    }
    let tenants = tenants(writer, request)?;
    let limits = limits(writer, request, &calls)?;
    let loaded = Loaded { accounts, calls, tenants, due, limits };
    let calendar = Arc::clone(&writer.calendar);
    Ok(Book::open(writer.now, request.caps, &*calendar, loaded)?)
}

/// The limits of the group's tenants, and the accounts that it may need.
fn limits(
    writer: &mut SqliteWriter,
    request: &LoadRequest<'_>,
    calls: &HashMap<(TenantId, CallKey), Call>,
) -> Result<LoadedLimits, StoreError> {
    let sets = limits::sets(writer, &request.tenants())?;
    let reserved = calls.iter().filter_map(|(key, call)| {
        let held = call.reservation.as_ref()?;
        let account_key_id = held.request.account_key_id;
        Some(ReservedBefore { call: *key, account_key_id, postings: &held.postings })
    });
    let WantedAccounts { mut holding, counting } = request.limit_accounts(&sets, reserved);
    holding.extend(counting);
    limits::loaded(writer, sets, holding)
}

/// The cached copy of an account, or the stored one.
fn current_account(
    writer: &mut SqliteWriter,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Option<Account>, StoreError> {
    if let Some(account) = writer.accounts.copy_at(integration_id, writer.now)? {
        return Ok((account.tenant_id == tenant_id).then_some(account));
    }
    let Some(mut account) = account(&writer.connection, tenant_id, integration_id, writer.now)?
    else {
        return Ok(None);
    };
    let holds = open_holds(&writer.connection, tenant_id, integration_id)?;
    account.restore_due(by_month(holds.due(writer.now)?));
    account.restore_open(holds.count());
    writer.staged.loaded_holds.insert(integration_id, holds);
    Ok(Some(account))
}

/// Loads the sums that the caps limit.
fn tenants(
    writer: &SqliteWriter,
    request: &LoadRequest<'_>,
) -> Result<HashMap<TenantId, TenantSums>, StoreError> {
    let (db, now) = (&writer.connection, writer.now);
    let mut tenants: HashMap<TenantId, TenantSums> = HashMap::new();
    for (tenant_id, more) in &request.reserving {
        let tenant = tenant_id.number();
        let mut stored = number(db, SELECT_RESERVATIONS, params![tenant])?;
        // Due reservations are counted only if the cap might be reached.
        let beyond = request.caps.beyond_reservations(stored, *more);
        if beyond > 0 {
            stored -= number(db, COUNT_DUE, params![tenant, now.micros(), beyond])?;
        }
        tenants.entry(*tenant_id).or_default().open_reservations = Some(stored);
    }
    if request.caps.stored_bytes_per_day > 0 {
        for tenant_id in &request.recording {
            let key = params![tenant_id.number(), now.day().number()];
            let stored = number(db, SUM_BYTES, key)?;
            tenants.entry(*tenant_id).or_default().stored_bytes = Some(stored);
        }
    }
    Ok(tenants)
}

fn number(db: &Connection, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<i64, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    statement.query_row(params, |row| row.get(0)).map_err(store_error)
}

/// Every month that a command of the group can count in.
fn months(
    now: Timestamp,
    request: &LoadRequest<'_>,
    calls: &HashMap<(TenantId, CallKey), Call>,
    accounts: &HashMap<IntegrationId, Account>,
    due: &[Hold],
) -> std::collections::BTreeSet<(IntegrationId, Month)> {
    let mut months = request.months.clone();
    months.extend(accounts.keys().map(|integration_id| (*integration_id, now.month())));
    months.extend(due.iter().map(|hold| (hold.integration_id, hold.month)));
    let reservations = calls.values().filter_map(|call| call.reservation.as_ref());
    months.extend(reservations.map(|held| (held.request.integration_id, held.month())));
    months
}

fn calls(
    writer: &mut SqliteWriter,
    request: &LoadRequest<'_>,
) -> Result<HashMap<(TenantId, CallKey), Call>, StoreError> {
    let mut claim = writer.connection.prepare_cached(CLAIM).map_err(store_error)?;
    let mut calls = HashMap::with_capacity(request.calls.len());
    for (&(tenant_id, key), call) in &request.calls {
        let entry_id = match call.claim {
            Claim::Read => None,
            Claim::Reserve => Some(None),
            Claim::Record(entry_id) => Some(Some(entry_id)),
        };
        let claimed = match entry_id {
            None => false,
            Some(entry_id) => {
                let number = entry_id.map(EntryId::number);
                let changed = claim
                    .execute(params![tenant_id.number(), key.0.to_be_bytes(), number])
                    .map_err(store_error)?;
                if changed == 1 {
                    writer.claims.insert((tenant_id, key), entry_id);
                }
                changed == 1
            }
        };
        let stored = if claimed { None } else { stored_call(&writer.connection, tenant_id, key)? };
        let call = stored.unwrap_or_else(|| Call::fresh(call.call_id.clone()));
        calls.insert((tenant_id, key), call);
    }
    Ok(calls)
}

fn stored_call(
    db: &Connection,
    tenant_id: TenantId,
    key: CallKey,
) -> Result<Option<Call>, StoreError> {
    let key = params![tenant_id.number(), key.0.to_be_bytes()];
    let mut statement = db.prepare_cached(SELECT_CALL).map_err(store_error)?;
    let entry: Option<Option<i64>> =
        statement.query_row(key, |row| row.get(0)).optional().map_err(store_error)?;
    let Some(entry) = entry else { return Ok(None) };
    let mut statement = db.prepare_cached(SELECT_RESERVATION).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    let reservation = match rows.next().map_err(store_error)? {
        Some(row) => decode::reservation(row, 0, tenant_id)?,
        None => None,
    };
    let record = entry.map(|number| recorded(db, tenant_id, number)).transpose()?;
    decode::call(reservation, record).map(Some)
}

/// The content of a recorded call, which a repetition must match.
fn recorded(
    db: &Connection,
    tenant_id: TenantId,
    entry_number: i64,
) -> Result<RecordedCall, StoreError> {
    let mut statement = db.prepare_cached(SELECT_RECORDED).map_err(store_error)?;
    let mut rows =
        statement.query(params![entry_number, tenant_id.number()]).map_err(store_error)?;
    let row = rows
        .next()
        .map_err(store_error)?
        .ok_or_else(|| StoreError::Corrupt(format!("entry {entry_number} is missing")))?;
    decode::recorded_call(row, 0, id(EntryId::from_number, entry_number)?)
}

/// An account with its rate and the current month.
fn account(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    now: Timestamp,
) -> Result<Option<Account>, StoreError> {
    let key = values![tenant_id, integration_id];
    let integration: Option<IntegrationRow> = query::row(db, SELECT_INTEGRATION.plain, &key)?;
    let tenant: Option<TenantRow> = query::row(db, SELECT_TENANT.plain, &values![tenant_id])?;
    let (Some(integration), Some(tenant)) = (integration, tenant) else { return Ok(None) };
    let mut account = Account::new(tenant_id, tenant.lifecycle, integration.rules);
    let mut statement = db.prepare_cached(SELECT_RATE).map_err(store_error)?;
    let mut rows = statement
        .query(params![tenant_id.number(), SCOPE_INTEGRATION, integration_id.number()])
        .map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        account.rate.restore(row.int(0)?, row.int(1)?);
    }
    let month = now.month();
    account.restore(month, counter(db, tenant_id, integration_id, month)?);
    Ok(Some(account))
}

/// The account at `now`, read from one snapshot of the file.
pub(super) fn open_account(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    now: Timestamp,
) -> Result<Option<Account>, StoreError> {
    let Some(mut account) = account(db, tenant_id, integration_id, now)? else { return Ok(None) };
    let key = params![tenant_id.number(), integration_id.number(), now.micros()];
    let due = holds(db, SELECT_DUE_OF, key, (tenant_id, integration_id))?;
    account.restore_due(by_month(due.due(now)?));
    Ok(Some(account))
}

/// A month's counter; a month without a row is the default.
fn counter(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    month: Month,
) -> Result<Counter, StoreError> {
    let key =
        params![tenant_id.number(), SCOPE_INTEGRATION, integration_id.number(), month.number()];
    let mut statement = db.prepare_cached(SELECT_COUNTER).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    let stored = rows.next().map_err(store_error)?.map(|row| decode::counter(row, 0)).transpose();
    Ok(stored?.unwrap_or_default())
}

/// A month's counter without due holds.
pub(super) fn open_counter(
    db: &Connection,
    tenant_id: TenantId,
    (integration_id, month): (IntegrationId, Month),
    now: Timestamp,
) -> Result<Counter, StoreError> {
    let counter = counter(db, tenant_id, integration_id, month)?;
    if counter.held == Totals::default() {
        return Ok(counter);
    }
    let (start, end) = (month.start().micros(), month.end().micros());
    let key = params![tenant_id.number(), integration_id.number(), now.micros(), start, end];
    let mut statement = db.prepare_cached(SUM_DUE_OF_MONTH).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    // The query always returns one row.
    let due = rows.next().map_err(store_error)?.map(|row| decode::totals(row, 0)).transpose()?;
    Ok(counter.without_due(due.unwrap_or_default())?)
}

/// The holds of an account that are stored as open.
fn open_holds(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Holds, StoreError> {
    let key = params![tenant_id.number(), integration_id.number()];
    holds(db, SELECT_OPEN, key, (tenant_id, integration_id))
}

fn holds(
    db: &Connection,
    sql: &str,
    key: &[&dyn rusqlite::ToSql],
    (tenant_id, integration_id): (TenantId, IntegrationId),
) -> Result<Holds, StoreError> {
    let mut holds = Holds::default();
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        let hold = decode::hold(row, tenant_id, integration_id)?;
        holds.insert(&hold, hold.month.start())?;
    }
    Ok(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_select_open_reservations() {
        let open = crate::rows::codec::reservation_state_code(bursar_core::ReservationState::Open);
        assert!(SELECT_OPEN.ends_with(&format!("state = {open}")));
    }
}
