//! Lists API keys and integration keys.

use axum::extract::State;
use bursar_core::IntegrationId;
use bursar_store::KeyRow;
use serde::Serialize;
use utoipa_axum::routes;

use crate::api::keys::key_view::{IntegrationKeyView, KeyView};
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::{KEYS, READ};
use crate::auth::authorize::Authorized;
use crate::http::answer_memory::StoreReader;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::{PageParams, Path, Query, list_meta};
use crate::wire::scalars::Id;

/// Lists the API keys, without their secrets
#[utoipa::path(
    get,
    path = "/api/v1/keys",
    tag = "keys",
    params(PageParams),
    responses((status = 200, body = [KeyView], description = "A page of keys.")),
)]
pub(crate) async fn list_keys(
    State(app): State<App>,
    caller: Authorized,
    reader: StoreReader,
    query: Query,
) -> Result<Answer<Vec<KeyView>>, ApiError> {
    list(&app, &caller, None, reader, query).await
}

/// Lists the keys of an integration, without their secrets
#[utoipa::path(
    get,
    path = "/api/v1/integrations/{id}/keys",
    tag = "keys",
    params(("id" = Id, Path, description = "The integration."), PageParams),
    responses((status = 200, body = [IntegrationKeyView], description = "A page of keys.")),
    extensions(("x-refuses" = json!([ErrorCode::IntegrationNotFound]))),
)]
pub(crate) async fn list_integration_keys(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    reader: StoreReader,
    query: Query,
) -> Result<Answer<Vec<IntegrationKeyView>>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    list(&app, &caller, Some(integration_id), reader, query).await
}

async fn list<View: From<KeyRow> + Serialize>(
    app: &App,
    caller: &Authorized,
    integration_id: Option<IntegrationId>,
    reader: StoreReader,
    mut query: Query,
) -> Result<Answer<Vec<View>>, ApiError> {
    let page = query.page()?;
    query.done()?;
    if let Some(integration_id) = integration_id {
        let owner = app.store.integration(caller.tenant_id, integration_id).await?;
        owner.ok_or_else(|| ApiError::of(ErrorCode::IntegrationNotFound))?;
    }
    let found = reader.keys(caller.tenant_id, integration_id, page).await?;
    let meta = list_meta(page, found.rows.len(), found.total);
    Ok(Answer::list(found.rows.into_iter().map(View::from).collect(), meta))
}

/// The routes of this file, each with its rule.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(KEYS), routes!(list_keys))
        .add(Rule::of(READ), routes!(list_integration_keys))
}
