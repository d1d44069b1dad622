//! Integrations: create, read, change, enable, disable and delete them; show their limits.

use axum::extract::State;
use bursar_core::{AccountSums, CostBasis, IntegrationStatus, LimitSettings, OwnedSubject};
use bursar_store::{
    Changed, Control, ControlTx, IntegrationDraft, IntegrationEdit, IntegrationFilter,
    IntegrationRow,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::integrations::integration_view::{
    HealthView, IntegrationDeleted, IntegrationSummary, IntegrationView, LimitsView,
};
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::{LIMITS, READ, WRITE};
use crate::auth::authorize::Authorized;
use crate::credentials::reference;
use crate::http::answer_memory::StoreReader;
use crate::wire::body::{Json, present};
use crate::wire::enums;
use crate::wire::enums::{PROVIDER_TYPES, cost_basis_name};
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::freeform_json::{ConfigObject, check_config};
use crate::wire::params;
use crate::wire::params::{PageParams, Path, Query, list_meta};
use crate::wire::scalars;
use crate::wire::scalars::{CredentialRef, FreeObject, Id, LimitAmount, ModelName, Name};
use crate::wire::text::{check_name, check_text};
use crate::wire::timestamps;

/// The statuses that the list can be filtered by.
const STATUSES: &[IntegrationStatus] = &[
    IntegrationStatus::Created,
    IntegrationStatus::Enabled,
    IntegrationStatus::Disabled,
    IntegrationStatus::Error,
];

/// An integration to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegrationCreate {
    /// Unique among the tenant's integrations that are not deleted.
    #[schema(value_type = Name)]
    name: String,
    #[schema(value_type = enums::ProviderType)]
    provider_type: String,
    /// Where the credential is stored. Bursar never returns it.
    #[schema(value_type = Option<CredentialRef>)]
    credential_ref: Option<String>,
    /// Parameters for calls, such as `base_url`. Bursar never returns them. They must not hold
    /// secrets.
    #[schema(value_type = Option<FreeObject>)]
    config: Option<Box<RawValue>>,
    /// The model that calls use when they name none.
    #[schema(value_type = Option<ModelName>)]
    default_model: Option<String>,
    /// The monthly budget. 0 means unlimited.
    #[schema(value_type = LimitAmount)]
    #[serde(default)]
    budget_limit_cents: i64,
    /// The monthly token limit. 0 means unlimited.
    #[schema(value_type = LimitAmount)]
    #[serde(default)]
    token_limit_month: i64,
    /// The calls allowed in 60 seconds. 0 means unlimited.
    #[schema(value_type = LimitAmount)]
    #[serde(default)]
    rate_limit_rpm: i64,
    /// Defaults to `reported`.
    #[schema(value_type = Option<enums::CostBasis>)]
    cost_basis: Option<String>,
}

/// Changes to an integration. An absent field stays as it is; null clears a nullable field.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub struct IntegrationUpdate {
    #[schema(value_type = Name, required = false)]
    #[serde(default, deserialize_with = "present")]
    name: Option<Option<String>>,
    #[schema(ignore)]
    #[serde(default, deserialize_with = "present")]
    provider_type: Option<serde_json::Value>,
    #[schema(value_type = Option<CredentialRef>)]
    #[serde(default, deserialize_with = "present")]
    credential_ref: Option<Option<String>>,
    #[schema(value_type = FreeObject, required = false)]
    #[serde(default, deserialize_with = "present")]
    config: Option<Box<RawValue>>,
    #[schema(value_type = Option<ModelName>)]
    #[serde(default, deserialize_with = "present")]
    default_model: Option<Option<String>>,
    #[schema(value_type = LimitAmount, required = false)]
    #[serde(default, deserialize_with = "present")]
    budget_limit_cents: Option<Option<i64>>,
    #[schema(value_type = LimitAmount, required = false)]
    #[serde(default, deserialize_with = "present")]
    token_limit_month: Option<Option<i64>>,
    #[schema(value_type = LimitAmount, required = false)]
    #[serde(default, deserialize_with = "present")]
    rate_limit_rpm: Option<Option<i64>>,
    #[schema(value_type = enums::CostBasis, required = false)]
    #[serde(default, deserialize_with = "present")]
    cost_basis: Option<Option<String>>,
}

/// Lists the integrations
#[utoipa::path(
    get,
    path = "/api/v1/integrations",
    tag = "integrations",
    params(
        PageParams,
        (
            "status" = Option<enums::IntegrationStatus>,
            Query,
            description = "Only integrations with this status.",
        ),
        (
            "provider_type" = Option<enums::ProviderType>,
            Query,
            description = "Only integrations of this provider.",
        ),
    ),
    responses((status = 200, body = [IntegrationSummary], description = "A page of integrations.")),
)]
pub(crate) async fn list_integrations(
    caller: Authorized,
    reader: StoreReader,
    mut query: Query,
) -> Result<Answer<Vec<IntegrationSummary>>, ApiError> {
    let page = query.page()?;
    let status = query.read("status", |text| {
        let found = STATUSES.iter().find(|status| status.as_str() == text);
        found.copied().ok_or("must be created, enabled, disabled or error")
    })?;
    let provider_type = query.read("provider_type", |text| {
        let known = PROVIDER_TYPES.contains(&text);
        known.then(|| text.to_owned()).ok_or("is not a known provider")
    })?;
    query.done()?;
    let filter = IntegrationFilter { status, provider_type };
    let found = reader.integrations(caller.tenant_id, filter, page).await?;
    let meta = list_meta(page, found.rows.len(), found.total);
    Ok(Answer::list(found.rows.into_iter().map(IntegrationSummary::from).collect(), meta))
}

/// Creates an integration
///
/// A new integration has the status `created`. Enable it before you send calls through it.
#[utoipa::path(
    post,
    path = "/api/v1/integrations",
    tag = "integrations",
    request_body(
        content = IntegrationCreate,
        example = json!({
            "name": "production",
            "provider_type": "openai",
            "credential_ref": "vault://secret/tenants/acme/openai",
            "budget_limit_cents": 10_000,
            "rate_limit_rpm": 600,
        }),
    ),
    responses((status = 201, body = IntegrationView, description = "The integration.")),
    extensions(("x-refuses" = json!([
        ErrorCode::Forbidden,
        ErrorCode::TenantSuspended,
        ErrorCode::NameTaken,
        ErrorCode::TooManyIntegrations,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub(crate) async fn create_integration(
    State(app): State<App>,
    caller: Authorized,
    Json(create): Json<IntegrationCreate>,
) -> Result<Answer<IntegrationView>, ApiError> {
    let draft = check_create(&app, &caller, create)?;
    let tenant_id = caller.tenant_id;
    let caps = app.tenant_caps;
    let change = move |tx: &mut dyn ControlTx| {
        let control = Control::new(tx, &caller.actor, tenant_id);
        control.with_caps(caps).create_integration(draft.clone())
    };
    let row = app.ledger.change(tenant_id, change).await??;
    Ok(Answer::created(row.into()))
}

/// Returns an integration
///
/// Of the credential reference Bursar returns the scheme only, and of the configuration the origin
/// only.
#[utoipa::path(
    get,
    path = "/api/v1/integrations/{id}",
    tag = "integrations",
    params(("id" = Id, Path, description = "The integration.")),
    responses((status = 200, body = IntegrationView, description = "The integration.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn get_integration(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<IntegrationView>, ApiError> {
    Ok(Answer::ok(find(&app, &caller, &id).await?.into()))
}

/// Changes an integration
///
/// Only the fields that are present change. Null clears `credential_ref` and `default_model`.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/integrations/{id}",
    tag = "integrations",
    params(("id" = Id, Path, description = "The integration.")),
    request_body(content = IntegrationUpdate, example = json!({ "budget_limit_cents": 20_000 })),
    responses((status = 200, body = IntegrationView, description = "The changed integration.")),
    extensions(("x-refuses" = json!([
        ErrorCode::NothingToChange,
        ErrorCode::Forbidden,
        ErrorCode::TenantSuspended,
        ErrorCode::IntegrationNotFound,
        ErrorCode::NameTaken,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub(crate) async fn update_integration(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    Json(update): Json<IntegrationUpdate>,
) -> Result<Answer<IntegrationView>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let edit = check_update(&app, &caller, update)?;
    if edit.is_empty() {
        return Err(ApiError::of(ErrorCode::NothingToChange));
    }
    let update =
        move |control: &mut Control<'_>| control.update_integration(integration_id, edit.clone());
    Ok(Answer::ok(change(&app, caller, update).await?.into()))
}

/// Deletes an integration
///
/// Its usage stays. Its name can be used again, and its keys stop working.
#[utoipa::path(
    delete,
    path = "/api/v1/integrations/{id}",
    tag = "integrations",
    params(("id" = Id, Path, description = "The integration.")),
    responses((status = 200, body = IntegrationDeleted, description = "The deleted integration.")),
    extensions(("x-refuses" = json!([
        ErrorCode::TenantSuspended,
        ErrorCode::IntegrationNotFound,
    ]))),
)]
pub(crate) async fn delete_integration(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<IntegrationDeleted>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let row = change(&app, caller, move |control| control.delete_integration(integration_id));
    Ok(Answer::ok(row.await?.into()))
}

/// Enables an integration
///
/// The status must be `created` or `disabled`. An integration in `error` needs a successful test
/// first.
#[utoipa::path(
    post,
    path = "/api/v1/integrations/{id}/enable",
    tag = "integrations",
    params(("id" = Id, Path, description = "The integration.")),
    responses((status = 200, body = IntegrationView, description = "The enabled integration.")),
    extensions(("x-refuses" = json!([
        ErrorCode::TenantSuspended,
        ErrorCode::IntegrationNotFound,
        ErrorCode::InvalidState,
    ]))),
)]
pub(crate) async fn enable_integration(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<IntegrationView>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let row = change(&app, caller, move |control| control.enable_integration(integration_id));
    Ok(Answer::ok(row.await?.into()))
}

/// Disables an integration
///
/// Works in every status. Bursar still accepts usage records of calls in flight.
#[utoipa::path(
    post,
    path = "/api/v1/integrations/{id}/disable",
    tag = "integrations",
    params(("id" = Id, Path, description = "The integration.")),
    responses((status = 200, body = IntegrationView, description = "The disabled integration.")),
    extensions(("x-refuses" = json!([
        ErrorCode::TenantSuspended,
        ErrorCode::IntegrationNotFound,
    ]))),
)]
pub(crate) async fn disable_integration(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<IntegrationView>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let row = change(&app, caller, move |control| control.disable_integration(integration_id));
    Ok(Answer::ok(row.await?.into()))
}

/// Returns the last known health of an integration
#[utoipa::path(
    get,
    path = "/api/v1/integrations/{id}/health",
    tag = "integrations",
    params(("id" = Id, Path, description = "The integration.")),
    responses((status = 200, body = HealthView, description = "Its health.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn get_integration_health(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<HealthView>, ApiError> {
    Ok(Answer::ok(find(&app, &caller, &id).await?.into()))
}

/// Shows the limits of an integration, and what is used and held
#[utoipa::path(
    get,
    path = "/api/v1/integrations/{id}/limits",
    tag = "integrations",
    params(
        ("id" = Id, Path, description = "The integration."),
        (
            "period" = Option<scalars::Month>,
            Query,
            description = "The month. Default: the current month.",
        ),
    ),
    responses((
        status = 200,
        body = LimitsView,
        description = "The limits, and what is used and held.",
    )),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn get_integration_limits(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Answer<LimitsView>, ApiError> {
    let period = query.read("period", timestamps::parse_month)?;
    query.done()?;
    let row = find(&app, &caller, &id).await?;
    let not_found = || ApiError::of(ErrorCode::IntegrationNotFound);
    if caller.restricted_to.is_some_and(|own| own != row.integration_id) {
        return Err(not_found());
    }
    let subject = OwnedSubject::new(row.integration_id);
    let snapshot = app.store.account_snapshot(caller.tenant_id, subject).await?;
    let snapshot = snapshot.ok_or_else(not_found)?;
    let current = snapshot.now.month();
    let month = period.unwrap_or(current);
    if month == current {
        let failed = |_| ApiError::of(ErrorCode::Internal);
        let sums = AccountSums::of(&snapshot.account, snapshot.now).map_err(failed)?;
        return Ok(Answer::ok(LimitsView::new(row, &sums)));
    }
    // A past month has no current rate, but its counters remain.
    let counter = app.store.counter(caller.tenant_id, row.integration_id, month).await?;
    let sums = AccountSums { month, counter, calls_last_minute: 0 };
    Ok(Answer::ok(LimitsView::new(row, &sums)))
}

/// An integration of the caller's tenant. One of another tenant is not found.
async fn find(app: &App, caller: &Authorized, id: &str) -> Result<IntegrationRow, ApiError> {
    let integration_id = params::integration_id(id)?;
    let row = app.store.integration(caller.tenant_id, integration_id).await?;
    row.ok_or_else(|| ApiError::of(ErrorCode::IntegrationNotFound))
}

async fn change(
    app: &App,
    caller: Authorized,
    mut change: impl FnMut(&mut Control<'_>) -> Changed<IntegrationRow> + Send + 'static,
) -> Result<IntegrationRow, ApiError> {
    let tenant_id = caller.tenant_id;
    let in_transaction =
        move |tx: &mut dyn ControlTx| change(&mut Control::new(tx, &caller.actor, tenant_id));
    let row = app.ledger.change(tenant_id, in_transaction).await??;
    // The keys of a deleted integration must stop working at once.
    app.key_cache.forget(tenant_id);
    Ok(row)
}

fn check_create(
    app: &App,
    caller: &Authorized,
    create: IntegrationCreate,
) -> Result<IntegrationDraft, ApiError> {
    check_name("name", &create.name)?;
    check_provider(&create.provider_type)?;
    let credential_ref = create
        .credential_ref
        .map(|reference| reference::check(reference, caller.set_by, &app.allowed_prefixes))
        .transpose()?;
    let config = create.config.as_deref().map(check_config).transpose()?;
    let ConfigObject { text, origin } = config.unwrap_or_default();
    check_model(create.default_model.as_deref())?;
    let limits = LimitSettings {
        budget_limit_cents: not_negative("budget_limit_cents", create.budget_limit_cents)?,
        token_limit_month: not_negative("token_limit_month", create.token_limit_month)?,
        rate_limit_rpm: not_negative("rate_limit_rpm", create.rate_limit_rpm)?,
    };
    let cost_basis = create.cost_basis.as_deref().map(check_cost_basis).transpose()?;
    Ok(IntegrationDraft {
        name: create.name,
        provider_type: create.provider_type,
        credential_ref,
        config: text,
        origin,
        default_model: create.default_model,
        limits,
        cost_basis: cost_basis.unwrap_or_default(),
    })
}

fn check_update(
    app: &App,
    caller: &Authorized,
    update: IntegrationUpdate,
) -> Result<IntegrationEdit, ApiError> {
    if update.provider_type.is_some() {
        return Err(ApiError::field(
            "provider_type",
            "cannot be changed; create a new integration",
        ));
    }
    let name = update.name.map(|name| not_null("name", name)).transpose()?;
    if let Some(name) = &name {
        check_name("name", name)?;
    }
    let check_ref = |reference| reference::check(reference, caller.set_by, &app.allowed_prefixes);
    let credential_ref =
        update.credential_ref.map(|reference| reference.map(check_ref).transpose()).transpose()?;
    let config = update.config.as_deref().map(check_config).transpose()?;
    check_model(update.default_model.as_ref().and_then(|model| model.as_deref()))?;
    let limit = |field: &str, limit: Option<Option<i64>>| {
        let value = limit.map(|limit| not_null(field, limit)).transpose()?;
        value.map(|value| not_negative(field, value)).transpose()
    };
    let basis = update.cost_basis.map(|basis| not_null("cost_basis", basis)).transpose()?;
    Ok(IntegrationEdit {
        name,
        credential_ref,
        config: config.map(|config| (config.text, config.origin)),
        default_model: update.default_model,
        budget_limit_cents: limit("budget_limit_cents", update.budget_limit_cents)?,
        token_limit_month: limit("token_limit_month", update.token_limit_month)?,
        rate_limit_rpm: limit("rate_limit_rpm", update.rate_limit_rpm)?,
        cost_basis: basis.as_deref().map(check_cost_basis).transpose()?,
    })
}

fn not_null<T>(field: &str, value: Option<T>) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::field(field, "cannot be null"))
}

fn not_negative(field: &str, value: i64) -> Result<i64, ApiError> {
    if value < 0 {
        return Err(ApiError::field(field, "must not be negative; 0 means unlimited"));
    }
    Ok(value)
}

fn check_provider(provider_type: &str) -> Result<(), ApiError> {
    if PROVIDER_TYPES.contains(&provider_type) {
        return Ok(());
    }
    let problem = format!("must be one of {}", PROVIDER_TYPES.join(", "));
    Err(ApiError::field("provider_type", &problem))
}

fn check_model(model: Option<&str>) -> Result<(), ApiError> {
    model.map_or(Ok(()), |model| check_text("default_model", model, 256))
}

fn check_cost_basis(text: &str) -> Result<CostBasis, ApiError> {
    [CostBasis::Reported, CostBasis::Computed]
        .into_iter()
        .find(|basis| cost_basis_name(*basis) == text)
        .ok_or_else(|| ApiError::field("cost_basis", "must be reported or computed"))
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(READ), routes!(list_integrations))
        .add(Rule::of(WRITE), routes!(create_integration))
        .add(Rule::of(READ), routes!(get_integration))
        .add(Rule::of(WRITE), routes!(update_integration))
        .add(Rule::of(WRITE).never_refused(), routes!(delete_integration))
        .add(Rule::of(WRITE), routes!(enable_integration))
        .add(Rule::of(WRITE).never_refused(), routes!(disable_integration))
        .add(Rule::of(READ), routes!(get_integration_health))
        .add(Rule::of(LIMITS), routes!(get_integration_limits))
}
