//! Rows of the control plane, as storage keeps them.

use bursar_core::{
    AuditId, CostSource, Decision, DecisionId, EntryId, EntryKind, Estimate, Integration,
    IntegrationId, KeyId, Nanos, OnboardingState, PolicyResult, TenantId, TenantLifecycle,
    Timestamp, TokenBuckets, UsageStatus,
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

/// An integration: what decides, and what only describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrationRow {
    pub tenant_id: TenantId,
    pub integration_id: IntegrationId,
    pub name: String,
    pub provider_type: String,
    /// Goes in and never comes out.
    pub credential_ref: Option<String>,
    /// A JSON object as text; goes in and never comes out.
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
    /// The one integration that it is good for; nothing for an API key.
    pub integration_id: Option<IntegrationId>,
    /// An API key has one.
    pub name: Option<String>,
    /// What an API key may do: scopes, separated by spaces. What a key of an integration may do is
    /// the same for all of them.
    pub scopes: Option<String>,
    pub secret_hash: SecretHash,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    /// The key that replaced it in a rotation.
    pub replaced_by: Option<KeyId>,
}

impl KeyRow {
    /// Whether it is neither revoked nor expired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// Who did something, and in which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `founder`, `customer`, `machine` or `system`.
    pub actor_type: &'static str,
    /// Which one: the id of a key, `<issuer>|<subject>` of a token; never a secret.
    pub actor_id: String,
    /// The request, as in `meta.request_id`.
    pub request_id: String,
    /// The address of the client; nothing for the command line on a store of its own.
    pub address: Option<String>,
}

/// A row for the audit log, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub tenant_id: TenantId,
    pub audit_id: AuditId,
    pub at: Timestamp,
    pub actor: Actor,
    /// What was done: `integration.create`.
    pub action: &'static str,
    pub target_type: &'static str,
    pub target_id: String,
    /// A JSON object of what changed; never a secret.
    pub detail: String,
}

/// Whether a decision was only asked for, or with a reservation.
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

/// A decision other than "allowed", kept so that someone can ask why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    pub tenant_id: TenantId,
    /// Which; ids grow with time.
    pub decision_id: DecisionId,
    /// What it answered.
    pub kind: DecisionKind,
    /// About which integration; nothing when it is none of the tenant's.
    pub integration_id: Option<IntegrationId>,
    /// The answer and its reasons, as they were the last time.
    pub decision: Decision,
    /// The call, when the row stands for one.
    pub call_id: Option<String>,
    /// What the last of the callers expected to take.
    pub estimate: Estimate,
    /// How often it was given.
    pub times: i64,
    /// When it was given first.
    pub first_at: Timestamp,
    /// When it was given last.
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
    pub tokens: TokenBuckets,
    pub cost: Nanos,
    pub cost_source: CostSource,
    pub reported_cost: Option<Nanos>,
    pub computed_cost: Option<Nanos>,
    pub usage_status: UsageStatus,
    pub latency_ms: Option<i64>,
    pub policy_result: PolicyResult,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// A JSON object as text; nothing stands for `{}`.
    pub metadata: Option<String>,
    pub occurred_at: Timestamp,
    pub created_at: Timestamp,
}
