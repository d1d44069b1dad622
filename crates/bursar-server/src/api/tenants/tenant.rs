//! Tenants: the operator creates, reads and changes them.

use axum::extract::State;
use bursar_core::TenantLifecycle;
use bursar_store::{Control, ControlTx, TenantRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::OPERATOR;
use crate::auth::authorize::Operator;
use crate::wire::body::Json;
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::{PageParams, Path, Query, list_meta};
use crate::wire::scalars::{Id, Instant, Name};
use crate::wire::text::check_name;
use crate::wire::timestamps;

/// A tenant to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantCreate {
    #[schema(value_type = Name)]
    name: String,
}

/// Changes to a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub(crate) struct TenantUpdate {
    #[schema(value_type = Name, required = false)]
    name: Option<String>,
}

/// A tenant as the operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    #[schema(value_type = Id)]
    id: String,
    name: String,
    #[schema(value_type = enums::TenantLifecycle)]
    lifecycle_state: &'static str,
    #[schema(value_type = enums::OnboardingState)]
    onboarding_state: &'static str,
    #[schema(value_type = Instant)]
    created_at: String,
    #[schema(value_type = Instant)]
    updated_at: String,
}

impl From<TenantRow> for TenantView {
    fn from(row: TenantRow) -> Self {
        let TenantRow { tenant_id, name, lifecycle, onboarding, created_at, updated_at } = row;
        Self {
            id: tenant_id.to_string(),
            name,
            lifecycle_state: lifecycle.as_str(),
            onboarding_state: onboarding.as_str(),
            created_at: timestamps::text(created_at),
            updated_at: timestamps::text(updated_at),
        }
    }
}

/// Creates a tenant
#[utoipa::path(
    post,
    path = "/api/v1/tenants",
    tag = "tenants",
    request_body(content = TenantCreate, example = json!({ "name": "acme" })),
    responses((status = 201, body = TenantView, description = "The new tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::UnknownField, ErrorCode::SecretRefused]))),
)]
pub(crate) async fn create_tenant(
    State(app): State<App>,
    operator: Operator,
    Json(create): Json<TenantCreate>,
) -> Result<Answer<TenantView>, ApiError> {
    check_name("name", &create.name)?;
    let change =
        move |tx: &mut dyn ControlTx| Control::create_tenant(tx, &operator.actor, &create.name);
    Ok(Answer::created(app.ledger.change(None, change).await?.into()))
}

/// Lists the tenants
#[utoipa::path(
    get,
    path = "/api/v1/tenants",
    tag = "tenants",
    params(PageParams),
    responses((status = 200, body = [TenantView], description = "A page of tenants.")),
)]
pub(crate) async fn list_tenants(
    State(app): State<App>,
    _: Operator,
    mut query: Query,
) -> Result<Answer<Vec<TenantView>>, ApiError> {
    let page = query.page()?;
    query.done()?;
    let found = app.store.tenants(page).await?;
    let meta = list_meta(page, found.rows.len(), found.total);
    Ok(Answer::list(found.rows.into_iter().map(TenantView::from).collect(), meta))
}

/// Returns a tenant
#[utoipa::path(
    get,
    path = "/api/v1/tenants/{id}",
    tag = "tenants",
    params(("id" = Id, Path, description = "The tenant.")),
    responses((status = 200, body = TenantView, description = "The tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound]))),
)]
pub(crate) async fn get_tenant(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<Answer<TenantView>, ApiError> {
    let row = app.store.tenant(params::tenant_id(&id)?).await?;
    let row = row.ok_or_else(|| ApiError::of(ErrorCode::TenantNotFound))?;
    Ok(Answer::ok(row.into()))
}

/// Renames a tenant
#[utoipa::path(
    patch,
    path = "/api/v1/tenants/{id}",
    tag = "tenants",
    params(("id" = Id, Path, description = "The tenant.")),
    request_body(content = TenantUpdate, example = json!({ "name": "acme" })),
    responses((status = 200, body = TenantView, description = "The changed tenant.")),
    extensions(("x-refuses" = json!([
        ErrorCode::NothingToChange,
        ErrorCode::TenantNotFound,
        ErrorCode::TenantTerminated,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub(crate) async fn update_tenant(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(update): Json<TenantUpdate>,
) -> Result<Answer<TenantView>, ApiError> {
    let tenant_id = params::tenant_id(&id)?;
    let name = update.name.ok_or_else(|| ApiError::of(ErrorCode::NothingToChange))?;
    check_name("name", &name)?;
    let change = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &operator.actor, tenant_id).rename_tenant(&name)
    };
    Ok(Answer::ok(app.ledger.change(tenant_id, change).await??.into()))
}

/// Suspends an active tenant
///
/// Reads work, and usage records are accepted. Every decision is a hard block. Reservations can be
/// released and keys revoked; the tenant can change nothing else.
#[utoipa::path(
    post,
    path = "/api/v1/tenants/{id}/suspend",
    tag = "tenants",
    params(("id" = Id, Path, description = "The tenant.")),
    responses((status = 200, body = TenantView, description = "The changed tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound, ErrorCode::InvalidState]))),
)]
pub(crate) async fn suspend_tenant(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Answer<TenantView>, ApiError> {
    change_lifecycle(&app, operator, &id, TenantLifecycle::Suspended).await
}

/// Resumes a suspended tenant
#[utoipa::path(
    post,
    path = "/api/v1/tenants/{id}/resume",
    tag = "tenants",
    params(("id" = Id, Path, description = "The tenant.")),
    responses((status = 200, body = TenantView, description = "The changed tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound, ErrorCode::InvalidState]))),
)]
pub(crate) async fn resume_tenant(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Answer<TenantView>, ApiError> {
    change_lifecycle(&app, operator, &id, TenantLifecycle::Active).await
}

/// Terminates an active or suspended tenant
///
/// This is final: its keys and its people lose access. Its usage stays.
#[utoipa::path(
    post,
    path = "/api/v1/tenants/{id}/terminate",
    tag = "tenants",
    params(("id" = Id, Path, description = "The tenant.")),
    responses((status = 200, body = TenantView, description = "The changed tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound, ErrorCode::InvalidState]))),
)]
pub(crate) async fn terminate_tenant(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Answer<TenantView>, ApiError> {
    change_lifecycle(&app, operator, &id, TenantLifecycle::Terminated).await
}

/// Archives a terminated tenant
#[utoipa::path(
    post,
    path = "/api/v1/tenants/{id}/archive",
    tag = "tenants",
    params(("id" = Id, Path, description = "The tenant.")),
    responses((status = 200, body = TenantView, description = "The changed tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound, ErrorCode::InvalidState]))),
)]
pub(crate) async fn archive_tenant(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Answer<TenantView>, ApiError> {
    change_lifecycle(&app, operator, &id, TenantLifecycle::Archived).await
}

async fn change_lifecycle(
    app: &App,
    operator: Operator,
    id: &str,
    to: TenantLifecycle,
) -> Result<Answer<TenantView>, ApiError> {
    let tenant_id = params::tenant_id(id)?;
    let change = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &operator.actor, tenant_id).set_tenant_lifecycle(to)
    };
    let row = app.ledger.change(tenant_id, change).await??;
    app.key_cache.forget(tenant_id);
    Ok(Answer::ok(row.into()))
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(OPERATOR), routes!(create_tenant))
        .add(Rule::of(OPERATOR), routes!(list_tenants))
        .add(Rule::of(OPERATOR), routes!(get_tenant))
        .add(Rule::of(OPERATOR), routes!(update_tenant))
        .add(Rule::of(OPERATOR), routes!(suspend_tenant))
        .add(Rule::of(OPERATOR), routes!(resume_tenant))
        .add(Rule::of(OPERATOR), routes!(terminate_tenant))
        .add(Rule::of(OPERATOR), routes!(archive_tenant))
}
