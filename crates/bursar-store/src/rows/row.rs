//! The types of stored rows.

use bursar_core::{
    AuditId, CostSource, Decision, DecisionId, EntryId, EntryKind, Estimate, Integration,
    IntegrationId, KeyId, Nanos, OnboardingState, PolicyResult, RecordSource, Tags, TenantId,
    TenantLifecycle, Timestamp, TokenBuckets, Units, UsageStatus,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    pub tenant_id: TenantId,
    pub name: String,
    pub lifecycle: TenantLifecycle,
    pub onboarding: OnboardingState,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An integration: the rules that decide, and its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrationRow {
    pub tenant_id: TenantId,
    pub integration_id: IntegrationId,
    pub name: String,
    pub provider_type: String,
    /// No response contains it.
    pub credential_ref: Option<String>,
    /// A JSON object as text. No response contains it.
    pub config: String,
    /// Scheme, host and port of the base URL in `config`, to which the credential is bound.
    pub origin: Option<String>,
    /// Status, health and limits.
    pub rules: Integration,
    pub health_checked_at: Option<Timestamp>,
    pub health_message: Option<String>,
    pub default_model: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub created_by: String,
    pub deleted_at: Option<Timestamp>,
}

/// The keyed hash of a secret.
pub type SecretHash = [u8; 32];

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub tenant_id: TenantId,
    pub key_id: KeyId,
    /// The integration of its owner; `None` for an API key.
    pub integration_id: Option<IntegrationId>,
    /// The name of an API key.
    pub name: Option<String>,
    /// The scopes of an API key, separated by spaces. All keys of integrations have the same rights.
    pub scopes: Option<String>,
    pub secret_hash: SecretHash,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    /// The key that replaced it in a rotation.
    pub replaced_by: Option<KeyId>,
    /// The first key of its line of rotations, in whose accounts its calls count.
    pub account_key_id: KeyId,
}

impl KeyRow {
    /// Whether it is neither revoked nor expired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// The author of a change, and the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `founder`, `customer`, `machine` or `system`.
    pub actor_type: &'static str,
    /// The id of a key, or `<issuer>|<subject>` of a token; never a secret.
    pub actor_id: String,
    /// The id of the request, as in `meta.request_id`.
    pub request_id: String,
    /// The address of the client; `None` for the command line.
    pub address: Option<String>,
}

/// A row for the audit log, before it has a sequence number in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub tenant_id: TenantId,
    pub audit_id: AuditId,
    pub at: Timestamp,
    pub actor: Actor,
    /// For example `integration.create`.
    pub action: &'static str,
    pub target_type: &'static str,
    pub target_id: String,
    /// A JSON object with the changes; never a secret.
    pub detail: String,
}

/// Who may change a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManagedBy {
    Tenant,
    Operator,
}

/// The request that led to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DecisionKind {
    /// A check, which changes nothing.
    Check,
    Reservation,
}

impl DecisionKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Reservation => "reservation",
        }
    }
}

/// A decision other than "allowed", with the number of its repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    pub tenant_id: TenantId,
    /// Later decisions have larger ids.
    pub decision_id: DecisionId,
    pub kind: DecisionKind,
    /// The integration; `None` if the tenant has no such integration.
    pub integration_id: Option<IntegrationId>,
    /// The verdict and its reasons at the last occurrence.
    pub decision: Decision,
    /// The call, if the row is about a single call.
    pub call_id: Option<String>,
    /// The estimate of the last request.
    pub estimate: Estimate,
    /// How often it occurred.
    pub times: i64,
    /// When it first occurred.
    pub first_at: Timestamp,
    /// When it last occurred.
    pub last_at: Timestamp,
}

/// One entry of the ledger, as history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    pub entry_id: EntryId,
    pub integration_id: IntegrationId,
    pub kind: EntryKind,
    pub call_id: String,
    pub session_id: Option<String>,
    pub agent_id: Option<String>,
    pub provider: String,
    pub model: String,
    pub response_model: Option<String>,
    pub region: Option<String>,
    pub provider_request_id: Option<String>,
    pub service_tier: Option<String>,
    pub tokens: TokenBuckets,
    pub cost: Nanos,
    pub cost_source: CostSource,
    pub reported_cost: Option<Nanos>,
    pub computed_cost: Option<Nanos>,
    pub usage_status: UsageStatus,
    pub units: Units,
    pub tags: Tags,
    pub source: RecordSource,
    /// The key that wrote the record.
    pub key_id: Option<KeyId>,
    pub latency_ms: Option<i64>,
    pub policy_result: PolicyResult,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// A JSON object as text; `None` for `{}`.
    pub metadata: Option<String>,
    pub occurred_at: Timestamp,
    pub created_at: Timestamp,
}

impl UsageRow {
    /// The bytes of all texts, as `entry_text_bytes` counts them in a statement.
    pub(crate) fn text_bytes(&self) -> usize {
        let optional = [
            &self.session_id,
            &self.agent_id,
            &self.response_model,
            &self.region,
            &self.provider_request_id,
            &self.service_tier,
            &self.error_code,
            &self.error_message,
            &self.metadata,
        ];
        let optional: usize = optional.into_iter().flatten().map(String::len).sum();
        let lists = self.tags.json_bytes() + self.units.json_bytes();
        self.call_id.len() + self.provider.len() + self.model.len() + optional + lists
    }
}
