//! Creates API keys and integration keys.

use axum::extract::State;
use bursar_core::{IntegrationId, Timestamp};
use bursar_store::{Control, KeyDraft, KeyRow};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::keys::grants::{check_integration_key, check_scopes};
use crate::api::keys::key_view::{IntegrationKeyCreated, KeyCreated};
use crate::api::keys::new_key::store_new_key;
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::KEYS;
use crate::auth::authorize::Authorized;
use crate::wire::body::{Json, SMALL, Text, present};
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::Path;
use crate::wire::scalars::{Id, Later, Name};
use crate::wire::text::check_name;
use crate::wire::timestamps;

/// An API key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyCreate {
    /// What the key is for.
    #[schema(value_type = Name)]
    name: String,
    /// The scopes of the key. A repeated scope counts once.
    #[schema(value_type = Vec<enums::Scope>, min_items = 1, max_items = 64)]
    scopes: Vec<String>,
    /// When the key expires. Defaults to the expiry of the API key that creates it, or never.
    #[schema(value_type = Option<Later>)]
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<Option<String>>,
}

/// An integration key to create. The body is optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IntegrationKeyCreate {
    #[schema(value_type = Option<Name>)]
    name: Option<String>,
}

/// Creates an API key
///
/// The secret is shown only once. A key cannot grant scopes that it lacks, and a key with an expiry
/// creates only keys that expire no later than itself.
#[utoipa::path(
    post,
    path = "/api/v1/keys",
    tag = "keys",
    request_body(
        content = KeyCreate,
        example = json!({ "name": "backend", "scopes": ["telemetry:write", "enforcement:check"] }),
    ),
    responses((status = 201, body = KeyCreated, description = "The key with its secret.")),
    extensions(("x-refuses" = json!([
        ErrorCode::Forbidden,
        ErrorCode::TenantSuspended,
        ErrorCode::TooManyKeys,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub(crate) async fn create_key(
    State(app): State<App>,
    caller: Authorized,
    Json(create): Json<KeyCreate>,
) -> Result<Answer<KeyCreated>, ApiError> {
    check_name("name", &create.name)?;
    let scopes = check_scopes(&create.scopes, caller.scopes)?;
    let expires_at = check_end(create.expires_at, caller.ends_at, app.store.now())?;
    let draft = KeyDraft::api(&create.name, &scopes, expires_at);
    let (row, secret) = store(&app, caller, None, draft).await?;
    Ok(Answer::created(KeyCreated { key: row.into(), secret }))
}

/// Creates an integration key
///
/// The secret is shown only once and is the whole value of the header. The caller needs every scope
/// of the new key. If the caller uses an API key, the new key expires with that key.
#[utoipa::path(
    post,
    path = "/api/v1/integrations/{id}/keys",
    tag = "keys",
    params(("id" = Id, Path, description = "The integration.")),
    request_body(content = Option<IntegrationKeyCreate>, example = json!({ "name": "worker" })),
    responses((
        status = 201,
        body = IntegrationKeyCreated,
        description = "The new key with its secret.",
    )),
    extensions(("x-refuses" = json!([
        ErrorCode::Forbidden,
        ErrorCode::TenantSuspended,
        ErrorCode::TooManyKeys,
        ErrorCode::IntegrationNotFound,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub(crate) async fn create_integration_key(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    body: Text<SMALL>,
) -> Result<Answer<IntegrationKeyCreated>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    check_integration_key(&caller)?;
    let create: IntegrationKeyCreate = body.read_optional().await?;
    if let Some(name) = &create.name {
        check_name("name", name)?;
    }
    let draft = KeyDraft::integration(integration_id, create.name.as_deref(), caller.ends_at);
    let (row, secret) = store(&app, caller, Some(integration_id), draft).await?;
    Ok(Answer::created(IntegrationKeyCreated { key: row.into(), secret }))
}

async fn store(
    app: &App,
    caller: Authorized,
    integration_id: Option<IntegrationId>,
    draft: KeyDraft,
) -> Result<(KeyRow, String), ApiError> {
    let (tenant_id, caps) = (caller.tenant_id, app.tenant_caps);
    store_new_key(app, (tenant_id, integration_id), move |tx, hash| {
        let mut control = Control::new(tx, &caller.actor, tenant_id).with_caps(caps);
        control.create_key(draft.clone(), hash)
    })
    .await
}

/// Reads the expiry of a key: in the future, and no later than that of the key that creates it.
fn check_end(
    asked: Option<Option<String>>,
    own: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApiError> {
    let wrong = |problem: &str| ApiError::field("expires_at", problem);
    let end = match asked {
        None => return Ok(own),
        Some(None) => None,
        Some(Some(text)) => Some(timestamps::parse(&text).map_err(wrong)?),
    };
    if end.is_some_and(|end| end <= now) {
        return Err(wrong("must lie in the future"));
    }
    match own {
        Some(own) if end.is_none_or(|end| end > own) => {
            let own = timestamps::text(own);
            Err(wrong(&format!("must not be later than {own}, when your own key expires")))
        }
        Some(_) | None => Ok(end),
    }
}

/// The routes of this file, each with its rule.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(KEYS), routes!(create_key))
        .add(Rule::of(KEYS), routes!(create_integration_key))
}
