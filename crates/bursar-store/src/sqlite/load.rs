//! Loading: the calls, accounts, months and due holds that a group touches.

use std::collections::{BTreeMap, HashMap};

use bursar_core::{
    Account, Book, Call, CallId, CallKey, Counter, EntryId, Estimate, Hold, IntegrationId, Month,
    Nanos, RecordedCall, Reservation, ReserveRequest, TenantId, Timestamp, Totals,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::control;
use super::lane::SqliteLane;
use super::store_error;
use super::view::Holds;
use crate::codec::{self, SCOPE_INTEGRATION, id, timestamp};
use crate::error::StoreError;
use crate::lane::{Claim, Wanted};

const CLAIM: &str = "insert into calls (tenant_id, call_key, entry_id) values (?1, ?2, ?3) \
     on conflict do nothing";
const SELECT_CALL: &str = "select entry_id, call_id, integration_id, estimated_cost_nanos, \
     estimated_tokens, model, ttl_seconds, decision, reserved_at, expires_at, reservation_state, \
     ended_at from calls where tenant_id = ?1 and call_key = ?2";
const SELECT_RECORDED: &str = "select call_id, integration_id, session_id, agent_id, provider, \
     model, tokens_in, tokens_out, reported_cost_nanos, policy_result, error_code, occurred_at \
     from usage_entries where entry_id = ?1 and tenant_id = ?2";
const SELECT_COUNTER: &str = "select used_cost_nanos, used_tokens, used_calls, held_cost_nanos, \
     held_tokens, held_calls, last_at from counters \
     where tenant_id = ?1 and scope_kind = ?2 and scope_id = ?3 and month = ?4";
const SELECT_RATE: &str = "select second, calls from rate_slots \
     where tenant_id = ?1 and scope_kind = ?2 and scope_id = ?3";
const SELECT_OPEN: &str = "select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at from calls \
     where tenant_id = ?1 and integration_id = ?2 and reservation_state = 1";

/// Claims and loads what a group touches, and opens its book.
pub(super) fn book<'a>(lane: &mut SqliteLane, wanted: &Wanted<'a>) -> Result<Book<'a>, StoreError> {
    let calls = calls(lane, wanted)?;
    let mut touched = wanted.integrations.clone();
    for ((tenant_id, _), call) in &calls {
        if let Some(reservation) = &call.reservation {
            touched.insert((*tenant_id, reservation.request.integration_id));
        }
    }
    let mut accounts: HashMap<IntegrationId, Account> = HashMap::with_capacity(touched.len());
    let mut due: Vec<Hold> = Vec::new();
    for (tenant_id, integration_id) in touched {
        if let Some((account, due_here)) = lane.account(tenant_id, integration_id)? {
            accounts.insert(integration_id, account);
            due.extend(due_here);
        }
    }
    for (integration_id, month) in months(lane.now, wanted, &calls, &accounts, &due) {
        if let Some(account) = accounts.get_mut(&integration_id)
            && account.counter(month).is_err()
        {
            let tenant_id = account.tenant_id;
            account.restore(month, counter(&lane.connection, tenant_id, integration_id, month)?);
        }
    }
    Ok(Book::open(lane.now, accounts, calls, due)?)
}

/// Every month that a command of the group can count in.
fn months(
    now: Timestamp,
    wanted: &Wanted<'_>,
    calls: &HashMap<(TenantId, CallKey), Call>,
    accounts: &HashMap<IntegrationId, Account>,
    due: &[Hold],
) -> std::collections::BTreeSet<(IntegrationId, Month)> {
    let mut months = wanted.months.clone();
    months.extend(accounts.keys().map(|integration_id| (*integration_id, now.month())));
    months.extend(due.iter().map(|hold| (hold.integration_id, hold.month)));
    let reservations = calls.values().filter_map(|call| call.reservation.as_ref());
    months.extend(reservations.map(|held| (held.request.integration_id, held.month())));
    months
}

fn calls(
    lane: &mut SqliteLane,
    wanted: &Wanted<'_>,
) -> Result<HashMap<(TenantId, CallKey), Call>, StoreError> {
    let mut claim = lane.connection.prepare_cached(CLAIM).map_err(store_error)?;
    let mut calls = HashMap::with_capacity(wanted.calls.len());
    for (&(tenant_id, key), call) in &wanted.calls {
        let entry_id = match call.claim {
            Claim::Look => None,
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
                    lane.claims.insert((tenant_id, key), entry_id);
                }
                changed == 1
            }
        };
        let stored = if claimed { None } else { stored_call(&lane.connection, tenant_id, key)? };
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
    let mut statement = db.prepare_cached(SELECT_CALL).map_err(store_error)?;
    let mut rows =
        statement.query(params![tenant_id.number(), key.0.to_be_bytes()]).map_err(store_error)?;
    let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
    let entry_number: Option<i64> = row.get(0).map_err(store_error)?;
    let reservation = reservation(row, 1)?;
    let record = match entry_number {
        None => None,
        Some(number) => Some(recorded(db, tenant_id, number)?),
    };
    let call_id = match (&reservation, &record) {
        (_, Some(record)) => record.call_id.clone(),
        (Some(reservation), None) => reservation.request.call_id.clone(),
        (None, None) => return Err(StoreError::Corrupt("a call id without a use".to_owned())),
    };
    Ok(Some(Call::stored(call_id, reservation, record)))
}

/// The entry of a call, as far as a repetition must agree with it.
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
    Ok(RecordedCall {
        entry_id: id(EntryId::from_number, entry_number)?,
        call_id: call_id(get(row, 0)?)?,
        integration_id: id(IntegrationId::from_number, get(row, 1)?)?,
        session_id: get(row, 2)?,
        agent_id: get(row, 3)?,
        provider: get(row, 4)?,
        model: get(row, 5)?,
        tokens_in: get(row, 6)?,
        tokens_out: get(row, 7)?,
        reported_cost: get::<Option<i64>>(row, 8)?.map(Nanos::new),
        policy_result: codec::policy(get(row, 9)?)?,
        error_code: get(row, 10)?,
        occurred_at: timestamp(get(row, 11)?)?,
    })
}

/// Reads a reservation from the columns `call_id` to `ended_at`, the first of which is `at`.
pub(super) fn reservation(row: &Row<'_>, at: usize) -> Result<Option<Reservation>, StoreError> {
    let Some(state) = get::<Option<i64>>(row, at + 9)? else { return Ok(None) };
    let request = ReserveRequest {
        call_id: call_id(get(row, at)?)?,
        integration_id: id(IntegrationId::from_number, get(row, at + 1)?)?,
        estimate: Estimate { cost: Nanos::new(get(row, at + 2)?), tokens: get(row, at + 3)? },
        model: get(row, at + 4)?,
        ttl_seconds: get(row, at + 5)?,
    };
    let decision: Option<String> = get(row, at + 6)?;
    Ok(Some(Reservation {
        request,
        decision: codec::decision(decision.as_deref())?,
        created_at: timestamp(get(row, at + 7)?)?,
        expires_at: timestamp(get(row, at + 8)?)?,
        state: codec::reservation_state(state)?,
        ended_at: get::<Option<i64>>(row, at + 10)?.map(timestamp).transpose()?,
    }))
}

/// An account with its rate, and no month yet.
pub(super) fn account(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    now: Timestamp,
) -> Result<Option<Account>, StoreError> {
    let Some(integration) = control::integration(db, tenant_id, integration_id)? else {
        return Ok(None);
    };
    let Some(tenant) = control::tenant(db, tenant_id)? else { return Ok(None) };
    let mut account = Account::new(tenant_id, tenant.lifecycle, integration.rules);
    let mut statement = db.prepare_cached(SELECT_RATE).map_err(store_error)?;
    let mut rows = statement
        .query(params![tenant_id.number(), SCOPE_INTEGRATION, integration_id.number()])
        .map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        account.rate.restore(get(row, 0)?, get(row, 1)?);
    }
    let month = now.month();
    account.restore(month, counter(db, tenant_id, integration_id, month)?);
    Ok(Some(account))
}

/// An account as a decision that changes nothing sees it: with the holds that are open at `now`.
/// All of it is read from one snapshot.
pub(super) fn standing(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    now: Timestamp,
) -> Result<Option<Account>, StoreError> {
    let Some(mut account) = account(db, tenant_id, integration_id, now)? else {
        return Ok(None);
    };
    let month = now.month();
    for hold in open_holds(db, tenant_id, integration_id)?.values() {
        if hold.expires_at <= now && hold.month == month {
            account.unhold(month, hold.amount)?;
        }
    }
    Ok(Some(account))
}

/// A month's counter; a month without a row is the default.
pub(super) fn counter(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    month: Month,
) -> Result<Counter, StoreError> {
    let key =
        params![tenant_id.number(), SCOPE_INTEGRATION, integration_id.number(), month.number()];
    let mut statement = db.prepare_cached(SELECT_COUNTER).map_err(store_error)?;
    let read = |row: &Row<'_>| {
        let totals = |at: usize| {
            Ok::<Totals, rusqlite::Error>(Totals {
                cost: Nanos::new(row.get(at)?),
                tokens: row.get(at + 1)?,
                calls: row.get(at + 2)?,
            })
        };
        Ok((totals(0)?, totals(3)?, row.get::<_, i64>(6)?))
    };
    let found = statement.query_row(key, read).optional().map_err(store_error)?;
    let Some((used, held, last_at)) = found else { return Ok(Counter::default()) };
    Ok(Counter { used, held, last_at: timestamp(last_at)? })
}

/// The holds of an account that are stored as open.
pub(super) fn open_holds(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Holds, StoreError> {
    let mut holds = BTreeMap::new();
    let mut statement = db.prepare_cached(SELECT_OPEN).map_err(store_error)?;
    let mut rows = statement
        .query(params![tenant_id.number(), integration_id.number()])
        .map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        let key: [u8; 16] = get(row, 0)?;
        let call = CallKey(u128::from_be_bytes(key));
        let expires_at = timestamp(get(row, 4)?)?;
        let hold = Hold {
            tenant_id,
            call,
            integration_id,
            month: timestamp(get(row, 3)?)?.month(),
            amount: Totals { cost: Nanos::new(get(row, 1)?), tokens: get(row, 2)?, calls: 1 },
            expires_at,
        };
        holds.insert((expires_at, call), hold);
    }
    Ok(holds)
}

/// A tenant and an integration in two columns.
pub(super) fn integration_ref(
    row: &Row<'_>,
    at: usize,
) -> Result<(TenantId, IntegrationId), StoreError> {
    let tenant_id = id(TenantId::from_number, get(row, at)?)?;
    Ok((tenant_id, id(IntegrationId::from_number, get(row, at + 1)?)?))
}

/// A column, with the error of this crate.
pub(super) fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, at: usize) -> Result<T, StoreError> {
    row.get(at).map_err(store_error)
}

fn call_id(text: String) -> Result<CallId, StoreError> {
    CallId::new(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_mean_open_reservations() {
        let open = codec::reservation_state_code(bursar_core::ReservationState::Open);
        assert!(SELECT_OPEN.ends_with(&format!("reservation_state = {open}")));
    }
}
