//! Decodes stored rows, once for all databases.
//!
//! The columns are in the order of the `select` lists, which are the same in each database. A
//! comment names the columns of each function; `at` is the first one.

use std::sync::Arc;

use bursar_core::{
    Call, CallId, CallKey, Counter, Day, EntryId, Estimate, Hold, IntegrationId, KeyId,
    LimitSettings, Month, Nanos, RecordedCall, Reservation, ReserveRequest, TenantId, TokenBuckets,
    TokenCounts, Totals,
};

use crate::error::StoreError;
use crate::read::accounts::OpenReservation;
use crate::read::days::DayPosition;
use crate::read::entries::HistoryPosition;
use crate::read::near_limit::NearLimit;
use crate::rows::codec;
use crate::rows::columns::Columns;
use crate::rows::entry_columns::EntryColumn;
use crate::rows::rollup::RollupFacts;
use crate::rows::row::UsageRow;

pub(crate) fn limits(
    row: &(impl Columns + ?Sized),
    at: usize,
) -> Result<LimitSettings, StoreError> {
    Ok(LimitSettings {
        budget_limit_cents: row.int(at)?,
        token_limit_month: row.int(at + 1)?,
        rate_limit_rpm: row.int(at + 2)?,
    })
}

/// `tenant_id, integration_id`.
pub(crate) fn integration_ref(
    row: &impl Columns,
    at: usize,
) -> Result<(TenantId, IntegrationId), StoreError> {
    Ok((row.id(at, TenantId::from_number)?, row.id(at + 1, IntegrationId::from_number)?))
}

/// A call from its stored reservation and its entry.
pub(crate) fn call(
    reservation: Option<Reservation>,
    record: Option<RecordedCall>,
) -> Result<Call, StoreError> {
    let call_id = match (&reservation, &record) {
        (_, Some(record)) => record.call_id.clone(),
        (Some(reservation), None) => reservation.request.call_id.clone(),
        (None, None) => {
            let text = "a call has neither a reservation nor an entry";
            return Err(StoreError::Corrupt(text.to_owned()));
        }
    };
    Ok(Call::stored(call_id, reservation, record))
}

/// The columns of [`reservation_columns`](mod@crate::rows::reservation_columns); `None` for a call
/// without a reservation.
pub(crate) fn reservation(
    row: &impl Columns,
    at: usize,
    tenant_id: TenantId,
) -> Result<Option<Reservation>, StoreError> {
    let Some(state) = row.opt_number(at + 9)? else { return Ok(None) };
    let request = ReserveRequest {
        call_id: call_id(row, at)?,
        integration_id: row.id(at + 1, IntegrationId::from_number)?,
        estimate: estimate(row, at + 2)?,
        model: row.opt_text(at + 4)?,
        ttl_seconds: row.int(at + 5)?,
        session_id: row.opt_text(at + 11)?,
        agent_id: row.opt_text(at + 12)?,
        tags: codec::tags(row.opt_str(at + 13)?)?,
        account_key_id: row.opt_id(at + 14, KeyId::from_number)?,
    };
    Ok(Some(Reservation {
        request,
        decision: codec::decision(row.opt_str(at + 6)?)?,
        created_at: row.instant(at + 7)?,
        expires_at: row.instant(at + 8)?,
        state: codec::reservation_state(state)?,
        ended_at: row.opt_instant(at + 10)?,
        postings: codec::postings(tenant_id, row.opt_str(at + 15)?)?,
        limits_version: row.int(at + 16)?,
    }))
}

/// The columns of [`reservation`], of an open one.
pub(crate) fn open_reservation(
    row: &impl Columns,
    tenant_id: TenantId,
) -> Result<OpenReservation, StoreError> {
    let reservation = reservation(row, 0, tenant_id)?
        .ok_or_else(|| StoreError::Corrupt("an open reservation has no call id".to_owned()))?;
    Ok(OpenReservation { call_id: reservation.request.call_id.clone(), reservation })
}

pub(crate) fn estimate(row: &(impl Columns + ?Sized), at: usize) -> Result<Estimate, StoreError> {
    Ok(Estimate { cost: Nanos::new(row.int(at)?), tokens: row.int(at + 1)? })
}

fn call_id(row: &impl Columns, at: usize) -> Result<CallId, StoreError> {
    CallId::new(row.text::<String>(at)?).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(crate) fn call_key(row: &impl Columns, at: usize) -> Result<CallKey, StoreError> {
    Ok(CallKey(u128::from_be_bytes(row.bytes(at)?)))
}

/// `call_key, estimated_cost_nanos, estimated_tokens, reserved_at, expires_at` of an open
/// reservation of this integration, without its postings.
pub(crate) fn hold(
    row: &impl Columns,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Hold, StoreError> {
    let Estimate { cost, tokens } = estimate(row, 1)?;
    Ok(Hold {
        tenant_id,
        call: call_key(row, 0)?,
        integration_id,
        month: row.instant(3)?.month(),
        amount: Totals { cost, tokens, calls: 1 },
        expires_at: row.instant(4)?,
        postings: Arc::default(),
    })
}

/// The columns of [`hold`], then `integration_id, postings`.
pub(crate) fn posted_hold(row: &impl Columns, tenant_id: TenantId) -> Result<Hold, StoreError> {
    let hold = hold(row, tenant_id, row.id(5, IntegrationId::from_number)?)?;
    Ok(Hold { postings: codec::postings(tenant_id, row.opt_str(6)?)?, ..hold })
}

/// `call_id, integration_id, session_id, agent_id, provider, model, tokens_in, tokens_out,
/// reported_cost_nanos, policy_result, error_code, occurred_at, cost_source` of an entry: the part
/// with which a repeated record must agree, and the source of its cost.
pub(crate) fn recorded_call(
    row: &impl Columns,
    at: usize,
    entry_id: EntryId,
) -> Result<RecordedCall, StoreError> {
    Ok(RecordedCall {
        entry_id,
        call_id: call_id(row, at)?,
        integration_id: row.id(at + 1, IntegrationId::from_number)?,
        session_id: row.opt_text(at + 2)?,
        agent_id: row.opt_text(at + 3)?,
        provider: row.text(at + 4)?,
        model: row.text(at + 5)?,
        tokens_in: row.int(at + 6)?,
        tokens_out: row.int(at + 7)?,
        reported_cost: row.opt_number(at + 8)?.map(Nanos::new),
        policy_result: codec::policy(row.int(at + 9)?)?,
        error_code: row.opt_text(at + 10)?,
        occurred_at: row.instant(at + 11)?,
        cost_source: codec::cost_source(row.int(at + 12)?)?,
    })
}

/// `used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls, last_at`.
pub(crate) fn counter(row: &impl Columns, at: usize) -> Result<Counter, StoreError> {
    Ok(Counter {
        used: totals(row, at)?,
        held: totals(row, at + 3)?,
        last_at: row.instant(at + 6)?,
    })
}

/// Cost, tokens and calls.
pub(crate) fn totals(row: &impl Columns, at: usize) -> Result<Totals, StoreError> {
    Ok(Totals { cost: Nanos::new(row.int(at)?), tokens: row.int(at + 1)?, calls: row.int(at + 2)? })
}

pub(crate) fn day_position(row: &impl Columns) -> Result<DayPosition, StoreError> {
    let day = Day::from_number(row.int(0)?);
    Ok(DayPosition { day, integration_id: row.id(1, IntegrationId::from_number)? })
}

pub(crate) fn history_position(row: &impl Columns) -> Result<HistoryPosition, StoreError> {
    Ok(HistoryPosition { occurred_at: row.instant(0)?, entry_id: row.id(1, EntryId::from_number)? })
}

fn token_buckets(counts: TokenCounts) -> Result<TokenBuckets, StoreError> {
    TokenBuckets::checked(counts).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// The columns of [`entry_names`](crate::rows::entry_columns::entry_names).
pub(crate) fn usage_row(row: &impl Columns) -> Result<UsageRow, StoreError> {
    use EntryColumn as Of;
    Ok(UsageRow {
        entry_id: row.id(Of::entry_id as usize, EntryId::from_number)?,
        integration_id: row.id(Of::integration_id as usize, IntegrationId::from_number)?,
        kind: codec::kind(row.int(Of::kind as usize)?)?,
        call_id: row.text(Of::call_id as usize)?,
        session_id: row.opt_text(Of::session_id as usize)?,
        agent_id: row.opt_text(Of::agent_id as usize)?,
        provider: row.text(Of::provider as usize)?,
        model: row.text(Of::model as usize)?,
        tokens: token_buckets(TokenCounts {
            tokens_in: row.int(Of::tokens_in as usize)?,
            tokens_out: row.int(Of::tokens_out as usize)?,
            cache_read: row.int(Of::tokens_cache_read as usize)?,
            cache_write: row.int(Of::tokens_cache_write as usize)?,
            cache_write_long: row.int(Of::tokens_cache_write_long as usize)?,
            audio_in: row.int(Of::tokens_audio_in as usize)?,
            image_in: row.int(Of::tokens_image_in as usize)?,
            reasoning: row.int(Of::tokens_reasoning as usize)?,
            audio_out: row.int(Of::tokens_audio_out as usize)?,
            image_out: row.int(Of::tokens_image_out as usize)?,
        })?,
        cost: Nanos::new(row.int(Of::cost_nanos as usize)?),
        cost_source: codec::cost_source(row.int(Of::cost_source as usize)?)?,
        reported_cost: row.opt_number(Of::reported_cost_nanos as usize)?.map(Nanos::new),
        computed_cost: row.opt_number(Of::computed_cost_nanos as usize)?.map(Nanos::new),
        usage_status: codec::usage_status(row.int(Of::usage_status as usize)?)?,
        latency_ms: row.opt_number(Of::latency_ms as usize)?,
        policy_result: codec::policy(row.int(Of::policy_result as usize)?)?,
        error_code: row.opt_text(Of::error_code as usize)?,
        error_message: row.opt_text(Of::error_message as usize)?,
        metadata: row.opt_text(Of::metadata as usize)?,
        occurred_at: row.instant(Of::occurred_at as usize)?,
        created_at: row.instant(Of::created_at as usize)?,
        response_model: row.opt_text(Of::response_model as usize)?,
        region: row.opt_text(Of::region as usize)?,
        provider_request_id: row.opt_text(Of::provider_request_id as usize)?,
        service_tier: row.opt_text(Of::service_tier as usize)?,
        units: codec::units(row.opt_str(Of::units as usize)?)?,
        tags: codec::tags(row.opt_str(Of::tags as usize)?)?,
        source: codec::source(row.int(Of::source as usize)?)?,
        key_id: row.opt_id(Of::key_id as usize, KeyId::from_number)?,
    })
}

/// The columns of [`rollup_facts`] for a statement. An argument is a prefix for each name.
macro_rules! fact_columns {
    () => { $crate::rows::decode::fact_columns!("") };
    ($before:literal) => {
        $crate::rows::decode::fact_columns! { $before
            kind tokens_in tokens_out tokens_cache_read tokens_cache_write tokens_cache_write_long
            tokens_audio_in tokens_image_in tokens_reasoning tokens_audio_out tokens_image_out
            cost_nanos cost_source usage_status latency_ms policy_result error_code
        }
    };
    ($before:literal $first:ident $($name:ident)*) => {
        concat!($before, stringify!($first) $(, ", ", $before, stringify!($name))*)
    };
}
pub(crate) use fact_columns;

/// The figures of an entry that its rollups need, from the columns of [`fact_columns`].
pub(crate) fn rollup_facts(row: &impl Columns, at: usize) -> Result<RollupFacts, StoreError> {
    Ok(RollupFacts {
        kind: codec::kind(row.int(at)?)?,
        tokens: token_buckets(TokenCounts {
            tokens_in: row.int(at + 1)?,
            tokens_out: row.int(at + 2)?,
            cache_read: row.int(at + 3)?,
            cache_write: row.int(at + 4)?,
            cache_write_long: row.int(at + 5)?,
            audio_in: row.int(at + 6)?,
            image_in: row.int(at + 7)?,
            reasoning: row.int(at + 8)?,
            audio_out: row.int(at + 9)?,
            image_out: row.int(at + 10)?,
        })?,
        cost: Nanos::new(row.int(at + 11)?),
        cost_source: codec::cost_source(row.int(at + 12)?)?,
        usage_status: codec::usage_status(row.int(at + 13)?)?,
        latency_ms: row.opt_number(at + 14)?,
        policy_result: codec::policy(row.int(at + 15)?)?,
        failed: row.opt_str(at + 16)?.is_some(),
    })
}

/// `tenant_id, integration_id, budget_limit_cents, token_limit_month, rate_limit_rpm` and the
/// columns of [`counter`].
pub(crate) fn near_limit(row: &impl Columns, month: Month) -> Result<NearLimit, StoreError> {
    let (tenant_id, integration_id) = integration_ref(row, 0)?;
    let counter = counter(row, 5)?.without_due(totals(row, 12)?)?;
    Ok(NearLimit { tenant_id, integration_id, limits: limits(row, 2)?, month, counter })
}
