//! What protection did to requests and what it was told to do otherwise, as rows.

use bursar_core::{Breach, Dimension, ProtectionDecision, SignalId, TenantId, Timestamp};

use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::Columns;

const WARN: i64 = 1;
const THROTTLE: i64 = 2;
const REJECT: i64 = 3;

/// Decisions of protection other than "allow", kept so that someone can see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalRow {
    pub tenant_id: TenantId,
    /// Which; ids grow with time.
    pub signal_id: SignalId,
    /// What was decided, with the values of the last time; never "allow".
    pub decision: ProtectionDecision,
    /// The template of the route.
    pub endpoint: String,
    pub operation: String,
    /// How often it was decided.
    pub times: i64,
    /// When it was decided first.
    pub first_at: Timestamp,
    /// When it was decided last.
    pub last_at: Timestamp,
}

/// A threshold that a tenant has instead of the configured one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideRow {
    pub tenant_id: TenantId,
    /// Of which dimension.
    pub dimension: Dimension,
    /// What is allowed, in the dimension's unit; 0 is unlimited.
    pub allowed_value: u32,
    /// Until, not including, when.
    pub expires_at: Timestamp,
    /// Why, in the operator's words.
    pub reason: String,
    pub created_at: Timestamp,
    /// Who said so.
    pub created_by: String,
}

/// How a signal is stored: dimension, action, wait, current and allowed value.
pub(crate) type StoredDecision = (i64, i64, i64, i64, i64);

/// A decision as it is stored; nothing for "allow", which nobody keeps.
pub(crate) const fn stored_decision(decision: &ProtectionDecision) -> Option<StoredDecision> {
    let (action, breach) = match decision {
        ProtectionDecision::Allow => return None,
        ProtectionDecision::Warn(breach) => (WARN, breach),
        ProtectionDecision::Throttle(breach) => (THROTTLE, breach),
        ProtectionDecision::Reject(breach) => (REJECT, breach),
    };
    let &Breach { dimension, retry_after_ms, current_value, allowed_value } = breach;
    let dimension = codec::dimension_code(dimension);
    Some((dimension, action, retry_after_ms, current_value, allowed_value))
}

/// `tenant_id, signal_id, dimension, action, endpoint, operation, retry_after_ms, current_value,
/// allowed_value, times, first_at, last_at`.
pub(crate) fn signal_row(row: &impl Columns) -> Result<SignalRow, StoreError> {
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
    Ok(SignalRow {
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

/// `tenant_id, dimension, allowed_value, expires_at, reason, created_at, created_by`.
pub(crate) fn override_row(row: &impl Columns) -> Result<OverrideRow, StoreError> {
    Ok(OverrideRow {
        tenant_id: row.id(0, TenantId::from_number)?,
        dimension: codec::dimension(row.int(1)?)?,
        allowed_value: row.int(2)?,
        expires_at: row.instant(3)?,
        reason: row.text(4)?,
        created_at: row.instant(5)?,
        created_by: row.text(6)?,
    })
}

/// `whole dollars, nano-dollars beside them`, from a column on: two sums, so that neither leaves its
/// integer.
pub(crate) fn cost_nanos(row: &impl Columns, at: usize) -> Result<i128, StoreError> {
    const NANOS_PER_DOLLAR: i128 = 1_000_000_000;
    let (dollars, nanos): (i64, i64) = (row.int(at)?, row.int(at + 1)?);
    Ok(i128::from(dollars) * NANOS_PER_DOLLAR + i128::from(nanos))
}
