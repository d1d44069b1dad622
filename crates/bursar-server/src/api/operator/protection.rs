//! Protection: what it did to a tenant, and temporary overrides of its thresholds.

use axum::extract::State;
use bursar_core::{Dimension, SignalId, Timestamp};
use bursar_store::{Control, ControlTx, OverrideRow, SignalRow};
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::OPERATOR;
use crate::auth::authorize::Operator;
use crate::http::answer_memory::StoreReader;
use crate::protection::SIGNALS_KEPT;
use crate::wire::body::Json;
use crate::wire::enums;
use crate::wire::envelope::{Answer, ListMeta};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::{Path, Query};
use crate::wire::scalars::{
    ALLOWED_VALUE_MAX, AllowedValue, BoundedInteger, Id, Instant, Later, REASON_CHARS_MAX,
    ReasonText,
};
use crate::wire::schema::{EXAMPLE_ID, query};
use crate::wire::text::check_text;
use crate::wire::timestamps;

const LIMIT_DEFAULT: u32 = 100;
/// An override is temporary. To keep one longer, create it again.
const OVERRIDE_DAYS_MAX: u32 = 90;
const SECONDS_PER_DAY: u32 = 86_400;

/// A temporary threshold for one tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OverrideCreate {
    #[schema(value_type = Id)]
    tenant_id: String,
    #[schema(value_type = enums::ProtectionDimension)]
    dimension: String,
    /// `rate`: requests to one route in a minute. `burst`: requests in a second. Both replace the
    /// configured threshold for management and reads. They also lower the threshold for traffic;
    /// otherwise traffic keeps its own threshold if that is higher. `cost`: the cents of the limit on
    /// what the tenant may spend on a UTC day. `anomaly`: requests in five minutes that are still
    /// normal. 0 means unlimited.
    #[schema(value_type = AllowedValue)]
    allowed_value: u32,
    /// At most 90 days ahead.
    #[schema(value_type = Later)]
    expires_at: String,
    /// The reason. Bursar stores it in the audit log.
    #[schema(value_type = ReasonText)]
    reason: String,
}

/// A threshold of a tenant that replaces the configured one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OverrideView {
    #[schema(value_type = Id)]
    tenant_id: String,
    #[schema(value_type = enums::ProtectionDimension)]
    dimension: &'static str,
    allowed_value: u32,
    #[schema(value_type = Instant)]
    expires_at: String,
    reason: String,
    #[schema(value_type = Instant)]
    created_at: String,
    created_by: String,
}

/// An action of protection, or several equal ones within a minute.
#[derive(Debug, Serialize, ToSchema)]
struct SignalView {
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = enums::ProtectionDimension)]
    dimension: &'static str,
    #[schema(value_type = enums::ProtectionAction)]
    action: &'static str,
    /// The template of the route.
    endpoint: String,
    /// The HTTP method.
    operation: String,
    /// How often the action was taken.
    count: i64,
    /// The value at the last action, in requests.
    current_value: i64,
    /// The threshold.
    allowed_value: i64,
    /// How long the caller was told to wait. 0 when the request was not refused.
    retry_after_ms: i64,
    #[schema(value_type = Instant)]
    first_at: String,
    #[schema(value_type = Instant)]
    last_at: String,
}

/// The actions of protection on a tenant, and the tenant's overrides.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignalsView {
    #[schema(value_type = Id)]
    tenant_id: String,
    /// The overrides in force.
    overrides: Vec<OverrideView>,
    /// The actions, newest first.
    signals: Vec<SignalView>,
}

/// The page of signals, for the OpenAPI document.
struct SignalParams;

impl IntoParams for SignalParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<BoundedInteger<1, SIGNALS_KEPT, LIMIT_DEFAULT>>(
                "limit",
                "The maximum number of signals on a page.",
            ),
            query::<String>("cursor", "The `next_cursor` of an earlier page."),
        ]
    }
}

impl From<OverrideRow> for OverrideView {
    fn from(row: OverrideRow) -> Self {
        let OverrideRow {
            tenant_id,
            dimension,
            allowed_value,
            expires_at,
            reason,
            created_at,
            created_by,
        } = row;
        Self {
            tenant_id: tenant_id.to_string(),
            dimension: dimension.as_str(),
            allowed_value,
            expires_at: timestamps::text(expires_at),
            reason,
            created_at: timestamps::text(created_at),
            created_by,
        }
    }
}

impl SignalView {
    /// `None` for an action that is never stored.
    fn of(row: SignalRow) -> Option<Self> {
        let SignalRow {
            tenant_id: _,
            signal_id,
            decision,
            endpoint,
            operation,
            times,
            first_at,
            last_at,
        } = row;
        let breach = *decision.breach()?;
        Some(Self {
            id: signal_id.to_string(),
            dimension: breach.dimension.as_str(),
            action: decision.as_str(),
            endpoint,
            operation,
            count: times,
            current_value: breach.current_value,
            allowed_value: breach.allowed_value,
            retry_after_ms: breach.retry_after_ms,
            first_at: timestamps::text(first_at),
            last_at: timestamps::text(last_at),
        })
    }
}

/// Shows what protection did to a tenant
///
/// A signal appears within about a second. Bursar keeps the newest 1,000 rows of a tenant. Equal
/// signals within a minute share one row; every node has its own rows. To read the next page, pass
/// the last `next_cursor` as `cursor`.
#[utoipa::path(
    get,
    path = "/fdr/abuse/signals/{tenant_id}",
    tag = "protection",
    params(
        ("tenant_id" = Id, Path, description = "The tenant."),
        SignalParams,
    ),
    responses((status = 200, body = SignalsView, description = "Signals and overrides.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound]))),
)]
pub(crate) async fn list_signals(
    State(app): State<App>,
    _: Operator,
    reader: StoreReader,
    Path(tenant_id): Path<String>,
    mut query: Query,
) -> Result<Answer<SignalsView>, ApiError> {
    let limit = query.integer("limit", 1..=SIGNALS_KEPT)?.unwrap_or(LIMIT_DEFAULT);
    let before = query.read("cursor", |text| {
        SignalId::parse(text).map_err(|_| "must be the next_cursor of an earlier page")
    })?;
    query.done()?;
    let tenant_id = params::tenant_id(&tenant_id)?;
    let unknown = || ApiError::of(ErrorCode::TenantNotFound);
    app.store.tenant(tenant_id).await?.ok_or_else(unknown)?;
    let overrides = app.store.protection_overrides(tenant_id, app.store.now()).await?;
    // One row more than requested tells whether there is another page.
    let mut signals = reader.signals(tenant_id, before, limit + 1).await?;
    let has_more = signals.len() > limit as usize;
    signals.truncate(limit as usize);
    let next_cursor = signals.last().filter(|_| has_more).map(|row| row.signal_id.to_string());
    let view = SignalsView {
        tenant_id: tenant_id.to_string(),
        overrides: overrides.into_iter().map(OverrideView::from).collect(),
        signals: signals.into_iter().filter_map(SignalView::of).collect(),
    };
    let meta = ListMeta { total: None, page: 1, page_size: limit, has_more, next_cursor };
    Ok(Answer::list(view, meta))
}

/// Overrides a threshold of a tenant for a limited time
///
/// The override replaces the previous one of the same dimension and takes effect on every node
/// within two seconds. An override of `cost` applies from the next decision on: calls above it are
/// `blocked` with `budget_exceeded`.
#[utoipa::path(
    post,
    path = "/fdr/abuse/override",
    tag = "protection",
    request_body(
        content = OverrideCreate,
        example = json!({
            "tenant_id": EXAMPLE_ID,
            "dimension": "rate",
            "allowed_value": 5000,
            "expires_at": "2100-01-01T00:00:00Z",
            "reason": "an agreed migration",
        }),
    ),
    responses((status = 201, body = OverrideView, description = "The new override.")),
    extensions(("x-refuses" = json!([
        ErrorCode::TenantNotFound,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub(crate) async fn override_protection(
    State(app): State<App>,
    operator: Operator,
    Json(create): Json<OverrideCreate>,
) -> Result<Answer<OverrideView>, ApiError> {
    let OverrideCreate { tenant_id, dimension, allowed_value, expires_at, reason } = create;
    let mut dimensions = Dimension::ALL.into_iter();
    let dimension = dimensions
        .find(|known| known.as_str() == dimension)
        .ok_or_else(|| ApiError::field("dimension", "must be rate, burst, cost or anomaly"))?;
    if allowed_value > ALLOWED_VALUE_MAX {
        return Err(ApiError::field("allowed_value", "must be from 0 to 1000000000"));
    }
    check_text("reason", &reason, REASON_CHARS_MAX)?;
    let expires_at = check_expiry(&expires_at, app.store.now())?;
    let tenant_id = params::tenant_id(&tenant_id)?;
    let change = move |tx: &mut dyn ControlTx| {
        let mut control = Control::new(tx, &operator.actor, tenant_id);
        control.override_protection(dimension, allowed_value, expires_at, &reason)
    };
    let row = app.ledger.change(tenant_id, change).await??;
    app.protection.forget(tenant_id);
    Ok(Answer::created(row.into()))
}

fn check_expiry(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let expires_at =
        timestamps::parse(text).map_err(|problem| ApiError::field("expires_at", problem))?;
    let latest = now.plus_seconds(OVERRIDE_DAYS_MAX * SECONDS_PER_DAY);
    if expires_at <= now || expires_at > latest {
        return Err(ApiError::field("expires_at", "must lie in the future, by at most 90 days"));
    }
    Ok(expires_at)
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(OPERATOR), routes!(list_signals))
        .add(Rule::of(OPERATOR), routes!(override_protection))
}
