//! Revokes API keys and integration keys.

use axum::extract::State;
use bursar_core::{IntegrationId, KeyId};
use bursar_store::{Control, ControlTx, KeyRow};
use utoipa_axum::routes;

use crate::api::keys::key_view::{IntegrationKeyView, KeyView};
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::KEYS;
use crate::auth::authorize::Authorized;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::Path;
use crate::wire::scalars::Id;

/// Revokes an API key
#[utoipa::path(
    delete,
    path = "/api/v1/keys/{id}",
    tag = "keys",
    params(("id" = Id, Path, description = "The key.")),
    responses((status = 200, body = KeyView, description = "The revoked key.")),
    extensions(("x-refuses" = json!([ErrorCode::KeyNotFound]))),
)]
pub(crate) async fn revoke_key(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<KeyView>, ApiError> {
    let key_id = params::key_id(&id)?;
    Ok(Answer::ok(revoke(&app, caller, None, key_id).await?.into()))
}

/// Revokes an integration key
#[utoipa::path(
    delete,
    path = "/api/v1/integrations/{id}/keys/{key_id}",
    tag = "keys",
    params(
        ("id" = Id, Path, description = "The integration."),
        ("key_id" = Id, Path, description = "The key."),
    ),
    responses((status = 200, body = IntegrationKeyView, description = "The revoked key.")),
    extensions(("x-refuses" = json!([
        ErrorCode::IntegrationNotFound,
        ErrorCode::KeyNotFound,
    ]))),
)]
pub(crate) async fn revoke_integration_key(
    State(app): State<App>,
    caller: Authorized,
    Path((id, key_id)): Path<(String, String)>,
) -> Result<Answer<IntegrationKeyView>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let key_id = params::key_id(&key_id)?;
    Ok(Answer::ok(revoke(&app, caller, Some(integration_id), key_id).await?.into()))
}

async fn revoke(
    app: &App,
    caller: Authorized,
    integration_id: Option<IntegrationId>,
    key_id: KeyId,
) -> Result<KeyRow, ApiError> {
    let tenant_id = caller.tenant_id;
    let change = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &caller.actor, tenant_id).revoke_key(integration_id, key_id)
    };
    let row = app.ledger.change(tenant_id, change).await??;
    app.key_cache.forget(tenant_id);
    Ok(row)
}

/// The routes of this file, each with its rule.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(KEYS).never_refused(), routes!(revoke_key))
        .add(Rule::of(KEYS).never_refused(), routes!(revoke_integration_key))
}
