//! Rows of protection: signals about its decisions, and overrides of thresholds.

use bursar_core::{Dimension, ProtectionDecision, SignalId, TenantId, Timestamp};

/// A decision of protection other than "allow", with the number of its repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalRow {
    pub tenant_id: TenantId,
    /// Later signals have larger ids.
    pub signal_id: SignalId,
    /// The decision, with the values of its last occurrence; never "allow".
    pub decision: ProtectionDecision,
    /// The template of the route.
    pub endpoint: String,
    pub operation: String,
    /// How often it occurred.
    pub times: i64,
    /// When it first occurred.
    pub first_at: Timestamp,
    /// When it last occurred.
    pub last_at: Timestamp,
}

/// A threshold that a tenant has instead of the configured one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideRow {
    pub tenant_id: TenantId,
    pub dimension: Dimension,
    /// The threshold in the dimension's unit; 0 is unlimited.
    pub allowed_value: u32,
    /// The first instant at which the override no longer applies.
    pub expires_at: Timestamp,
    /// The operator's reason.
    pub reason: String,
    pub created_at: Timestamp,
    pub created_by: String,
}
