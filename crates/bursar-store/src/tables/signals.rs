//! Signals of protection: what it did to requests. Their number is limited for each tenant.

use async_trait::async_trait;
use bursar_core::{Breach, ProtectionDecision, SignalId, TenantId};

use super::query::Query;
use super::value::{FromRow, values};
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::protection::SignalRow;
use crate::write::writer_connection::ControlTx;

const WARN: i64 = 1;
const THROTTLE: i64 = 2;
const REJECT: i64 = 3;

const UPSERT_SIGNAL: &str = "insert into signals (tenant_id, signal_id, dimension, \
     action, endpoint, operation, retry_after_ms, current_value, allowed_value, times, first_at, \
     last_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
     on conflict (tenant_id, signal_id) do update set retry_after_ms = excluded.retry_after_ms, \
     current_value = excluded.current_value, allowed_value = excluded.allowed_value, \
     times = excluded.times, last_at = excluded.last_at";
const DROP_SIGNALS: &str = "delete from signals where tenant_id = $1 and signal_id <= \
     (select signal_id from signals where tenant_id = $1 \
     order by signal_id desc limit 1 offset $2)";
const LIST_SIGNALS: &str = "select tenant_id, signal_id, dimension, action, endpoint, operation, \
     retry_after_ms, current_value, allowed_value, times, first_at, last_at from signals \
     where tenant_id = $1 and signal_id < $2 order by signal_id desc limit $3";

/// Reads of signals.
#[async_trait]
pub trait SignalReads: Send + Sync {
    /// The signals of a tenant, newest first.
    async fn signals(
        &self,
        tenant_id: TenantId,
        before: Option<SignalId>,
        limit: u32,
    ) -> Result<Vec<SignalRow>, StoreError>;
}

#[async_trait]
impl<S: Query> SignalReads for S {
    async fn signals(
        &self,
        tenant_id: TenantId,
        before: Option<SignalId>,
        limit: u32,
    ) -> Result<Vec<SignalRow>, StoreError> {
        let before = before.map_or(i64::MAX, SignalId::number);
        self.list(tenant_id, LIST_SIGNALS, values![tenant_id, before, limit]).await
    }
}

impl dyn ControlTx + '_ {
    /// Stores a signal, new or repeated. "Allow" is no signal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_signal(&mut self, row: &SignalRow) -> Result<(), StoreError> {
        let (action, breach) = match &row.decision {
            ProtectionDecision::Allow => return Ok(()),
            ProtectionDecision::Warn(breach) => (WARN, breach),
            ProtectionDecision::Throttle(breach) => (THROTTLE, breach),
            ProtectionDecision::Reject(breach) => (REJECT, breach),
        };
        let values = values![
            row.tenant_id,
            row.signal_id,
            codec::dimension_code(breach.dimension),
            action,
            row.endpoint,
            row.operation,
            breach.retry_after_ms,
            breach.current_value,
            breach.allowed_value,
            row.times,
            row.first_at,
            row.last_at,
        ];
        self.execute(row.tenant_id, UPSERT_SIGNAL.into(), &values)
    }

    /// Drops all but the newest signals of a tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop_signals(&mut self, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        self.execute(tenant_id, DROP_SIGNALS.into(), &values![tenant_id, kept])
    }
}

impl FromRow for SignalRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        let breach = Breach {
            dimension: codec::dimension(row.int(2)?)?,
            retry_after_ms: row.int(6)?,
            current_value: row.int(7)?,
            allowed_value: row.int(8)?,
        };
        let decision = match row.int(3)? {
            WARN => ProtectionDecision::Warn(breach),
            THROTTLE => ProtectionDecision::Throttle(breach),
            REJECT => ProtectionDecision::Reject(breach),
            other => return Err(StoreError::Corrupt(format!("no action has the code {other}"))),
        };
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            signal_id: row.id(1, SignalId::from_number)?,
            decision,
            endpoint: row.text(4)?,
            operation: row.text(5)?,
            times: row.int(9)?,
            first_at: row.instant(10)?,
            last_at: row.instant(11)?,
        })
    }
}
