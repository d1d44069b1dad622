//! Tenants, for the operator.

use axum::extract::State;
use bursar_store::{Control, TenantRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Operator;
use crate::body::Json;
use crate::envelope::Answer;
use crate::error::{ApiError, ErrorCode};
use crate::instant;
use crate::openapi::kinds::{Id, Instant, Name};
use crate::openapi::words;
use crate::params::{self, PageParams, Path, Query, list_meta};
use crate::text::check_name;

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantCreate {
    #[schema(value_type = Name)]
    name: String,
}

/// A tenant as the operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantView {
    #[schema(value_type = Id)]
    id: String,
    name: String,
    #[schema(value_type = words::TenantLifecycle)]
    lifecycle_state: &'static str,
    #[schema(value_type = words::OnboardingState)]
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
            created_at: instant::text(created_at),
            updated_at: instant::text(updated_at),
        }
    }
}

/// Makes a tenant
#[utoipa::path(
    post,
    path = "/api/v1/tenants",
    tag = "tenants",
    security(("operator" = [])),
    request_body(content = TenantCreate, example = json!({ "name": "acme" })),
    responses((status = 201, body = TenantView, description = "The tenant as it was made.")),
    extensions(("x-refuses" = json!([ErrorCode::UnknownField, ErrorCode::SecretRefused]))),
)]
pub async fn create_tenant(
    State(app): State<App>,
    operator: Operator,
    Json(create): Json<TenantCreate>,
) -> Result<Answer<TenantView>, ApiError> {
    check_name("name", &create.name)?;
    let change = move |tx: &mut dyn bursar_store::ControlTx| {
        Control::create_tenant(tx, &operator.actor, &create.name)
    };
    Ok(Answer::created(app.ledger.change(None, change).await?.into()))
}

/// Lists the tenants
#[utoipa::path(
    get,
    path = "/api/v1/tenants",
    tag = "tenants",
    security(("operator" = [])),
    params(PageParams),
    responses((status = 200, body = [TenantView], description = "A page of tenants.")),
)]
pub async fn list_tenants(
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

/// Reads a tenant
#[utoipa::path(
    get,
    path = "/api/v1/tenants/{id}",
    tag = "tenants",
    security(("operator" = [])),
    params(("id" = Id, Path, description = "The tenant.")),
    responses((status = 200, body = TenantView, description = "The tenant.")),
    extensions(("x-refuses" = json!([ErrorCode::TenantNotFound]))),
)]
pub async fn get_tenant(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<Answer<TenantView>, ApiError> {
    let row = app.store.tenant(params::tenant_id(&id)?).await?;
    let row = row.ok_or_else(|| ApiError::of(ErrorCode::TenantNotFound))?;
    Ok(Answer::ok(row.into()))
}
