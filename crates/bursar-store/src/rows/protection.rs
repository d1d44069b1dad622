//! What protection did to requests and what it was told to do otherwise, as rows.

use bursar_core::{Dimension, ProtectionDecision, SignalId, TenantId, Timestamp};

use crate::error::StoreError;
use crate::rows::columns::Columns;

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

/// `whole dollars, nano-dollars beside them`, from a column on: two sums, so that neither leaves its
/// integer.
pub(crate) fn cost_nanos(row: &impl Columns, at: usize) -> Result<i128, StoreError> {
    const NANOS_PER_DOLLAR: i128 = 1_000_000_000;
    let (dollars, nanos): (i64, i64) = (row.int(at)?, row.int(at + 1)?);
    Ok(i128::from(dollars) * NANOS_PER_DOLLAR + i128::from(nanos))
}
