//! An integration on the wire: in a list, in full, its health and its limits.

use bursar_core::AccountSums;
use bursar_store::IntegrationRow;
use serde::Serialize;
use utoipa::ToSchema;

use crate::credentials::reference;
use crate::wire::enums;
use crate::wire::enums::cost_basis_name;
use crate::wire::format::{cents, percent, usd};
use crate::wire::scalars;
use crate::wire::scalars::{Id, Instant, Usd};
use crate::wire::timestamps;

/// An integration in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IntegrationSummary {
    #[schema(value_type = Id)]
    id: String,
    name: String,
    #[schema(value_type = enums::ProviderType)]
    provider_type: String,
    #[schema(value_type = enums::IntegrationStatus)]
    status: &'static str,
    #[schema(value_type = enums::HealthState)]
    health_state: &'static str,
    #[schema(required)]
    default_model: Option<String>,
    #[schema(value_type = Instant)]
    created_at: String,
}

/// An integration in full, with the scheme of its reference and the origin of its configuration
/// only.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IntegrationView {
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = Id)]
    tenant_id: String,
    name: String,
    #[schema(value_type = enums::ProviderType)]
    provider_type: String,
    #[schema(value_type = enums::IntegrationStatus)]
    status: &'static str,
    #[schema(value_type = enums::HealthState)]
    health_state: &'static str,
    #[schema(value_type = Option<Instant>, required)]
    health_checked_at: Option<String>,
    #[schema(required)]
    health_message: Option<String>,
    #[schema(required)]
    credential_scheme: Option<String>,
    #[schema(required)]
    base_url_origin: Option<String>,
    #[schema(required)]
    default_model: Option<String>,
    budget_limit_cents: i64,
    token_limit_month: i64,
    rate_limit_rpm: i64,
    #[schema(value_type = enums::CostBasis)]
    cost_basis: &'static str,
    #[schema(value_type = Instant)]
    created_at: String,
    #[schema(value_type = Instant)]
    updated_at: String,
    created_by: String,
}

/// What remains of a deleted integration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IntegrationDeleted {
    #[schema(value_type = Id)]
    id: String,
    name: String,
    #[schema(value_type = Option<Instant>, required)]
    deleted_at: Option<String>,
}

/// The stored health of an integration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = enums::HealthState)]
    health_state: &'static str,
    #[schema(required)]
    message: Option<String>,
    #[schema(required)]
    latency_ms: Option<i64>,
    #[schema(value_type = Option<Instant>, required)]
    checked_at: Option<String>,
}

/// The limits of an integration and how far they are used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsView {
    #[schema(value_type = Id)]
    integration_id: String,
    integration_name: String,
    budget_limit_cents: i64,
    #[schema(value_type = i64)]
    budget_used_cents: i128,
    #[schema(value_type = Usd)]
    budget_used_usd: String,
    #[schema(value_type = i64)]
    budget_held_cents: i128,
    #[schema(value_type = Usd)]
    budget_held_usd: String,
    budget_percent: f64,
    token_limit_month: i64,
    #[schema(value_type = i64)]
    tokens_used_month: i128,
    #[schema(value_type = i64)]
    tokens_held: i128,
    token_percent: f64,
    rate_limit_rpm: i64,
    #[schema(value_type = i64)]
    current_rpm: i128,
    rate_percent: f64,
    #[schema(value_type = scalars::Month)]
    period: String,
    #[schema(value_type = Instant)]
    period_start: String,
    #[schema(value_type = Instant)]
    period_end: String,
}

impl From<IntegrationRow> for IntegrationSummary {
    fn from(row: IntegrationRow) -> Self {
        Self {
            id: row.integration_id.to_string(),
            name: row.name,
            provider_type: row.provider_type,
            status: row.rules.status.as_str(),
            health_state: row.rules.health.as_str(),
            default_model: row.default_model,
            created_at: timestamps::text(row.created_at),
        }
    }
}

impl From<IntegrationRow> for IntegrationView {
    fn from(row: IntegrationRow) -> Self {
        let limits = row.rules.limits;
        let scheme = |reference: String| reference::scheme(&reference).to_owned();
        Self {
            id: row.integration_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            name: row.name,
            provider_type: row.provider_type,
            status: row.rules.status.as_str(),
            health_state: row.rules.health.as_str(),
            health_checked_at: row.health_checked_at.map(timestamps::text),
            health_message: row.health_message,
            credential_scheme: row.credential_ref.map(scheme),
            base_url_origin: row.origin,
            default_model: row.default_model,
            budget_limit_cents: limits.budget_limit_cents,
            token_limit_month: limits.token_limit_month,
            rate_limit_rpm: limits.rate_limit_rpm,
            cost_basis: cost_basis_name(row.rules.cost_basis),
            created_at: timestamps::text(row.created_at),
            updated_at: timestamps::text(row.updated_at),
            created_by: row.created_by,
        }
    }
}

impl From<IntegrationRow> for IntegrationDeleted {
    fn from(row: IntegrationRow) -> Self {
        Self {
            id: row.integration_id.to_string(),
            name: row.name,
            deleted_at: row.deleted_at.map(timestamps::text),
        }
    }
}

impl From<IntegrationRow> for HealthView {
    fn from(row: IntegrationRow) -> Self {
        Self {
            integration_id: row.integration_id.to_string(),
            health_state: row.rules.health.as_str(),
            message: row.health_message,
            latency_ms: None,
            checked_at: row.health_checked_at.map(timestamps::text),
        }
    }
}

impl LimitsView {
    /// The limits of an integration, and how far one month of it used them.
    pub(crate) fn new(row: IntegrationRow, sums: &AccountSums) -> Self {
        let limits = row.rules.limits;
        let [budget, tokens, rate] = limits.all().map(|limit| sums.state(limit));
        let month = sums.month;
        Self {
            integration_id: row.integration_id.to_string(),
            integration_name: row.name,
            budget_limit_cents: limits.budget_limit_cents,
            budget_used_cents: cents(budget.used),
            budget_used_usd: usd(budget.used),
            budget_held_cents: cents(budget.held),
            budget_held_usd: usd(budget.held),
            budget_percent: percent(budget.used, budget.amount),
            token_limit_month: limits.token_limit_month,
            tokens_used_month: tokens.used,
            tokens_held: tokens.held,
            token_percent: percent(tokens.used, tokens.amount),
            rate_limit_rpm: limits.rate_limit_rpm,
            current_rpm: rate.used,
            rate_percent: percent(rate.used, rate.amount),
            period: month.to_string(),
            period_start: timestamps::text(month.start()),
            period_end: timestamps::text(month.end()),
        }
    }
}
