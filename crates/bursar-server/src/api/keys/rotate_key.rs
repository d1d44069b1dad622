//! Rotates API keys and integration keys.

use axum::extract::State;
use bursar_core::{IntegrationId, KeyId};
use bursar_store::{Control, KeyRow};
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
use crate::wire::body::{SMALL, Text};
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::Path;
use crate::wire::scalars::Id;

/// How long the old key stays valid by default: an hour.
const OVERLAP_SECONDS_DEFAULT: u32 = 3_600;
/// How long the old key may stay valid: a week.
const OVERLAP_SECONDS_MAX: u32 = 604_800;

/// How to rotate a key. The body is optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRotate {
    /// How long the old key stays valid. 0 revokes it at once.
    #[schema(minimum = 0, maximum = 604_800, default = 3_600)]
    overlap_seconds: Option<i64>,
}

impl KeyRotate {
    /// Reads the overlap from a body that may be absent.
    ///
    /// # Errors
    /// 400 and 422, as for every body.
    pub(crate) async fn overlap_seconds(body: Text<SMALL>) -> Result<u32, ApiError> {
        let rotate: Self = body.read_optional().await?;
        let asked = rotate.overlap_seconds.unwrap_or(OVERLAP_SECONDS_DEFAULT.into());
        let overlap = u32::try_from(asked).ok().filter(|asked| *asked <= OVERLAP_SECONDS_MAX);
        overlap.ok_or_else(|| {
            let problem = format!("must be between 0 and {OVERLAP_SECONDS_MAX}");
            ApiError::field("overlap_seconds", &problem)
        })
    }
}

/// Replaces an API key with a new one
///
/// The new key has the same name, scopes and expiry. Its secret is shown only once. The old key
/// stays valid for the overlap, but not beyond its expiry. A key can be rotated once; rotate its
/// successor next. The caller needs every scope of the key, and a key cannot rotate one that
/// expires later than itself.
#[utoipa::path(
    post,
    path = "/api/v1/keys/{id}/rotate",
    tag = "keys",
    params(("id" = Id, Path, description = "The key.")),
    request_body(content = Option<KeyRotate>, example = json!({ "overlap_seconds": 3600 })),
    responses((status = 201, body = KeyCreated, description = "The new key with its secret.")),
    extensions(("x-refuses" = json!([
        ErrorCode::Forbidden,
        ErrorCode::TenantSuspended,
        ErrorCode::TooManyKeys,
        ErrorCode::KeyNotFound,
        ErrorCode::InvalidState,
        ErrorCode::UnknownField,
    ]))),
)]
pub(crate) async fn rotate_key(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    body: Text<SMALL>,
) -> Result<Answer<KeyCreated>, ApiError> {
    let key_id = params::key_id(&id)?;
    let overlap_seconds = KeyRotate::overlap_seconds(body).await?;
    let (row, secret) = rotate(&app, caller, (None, key_id), overlap_seconds).await?;
    Ok(Answer::created(KeyCreated { key: row.into(), secret }))
}

/// Replaces an integration key with a new one
///
/// The new key has the same name. Its secret is shown only once. The old key stays valid for the
/// overlap. A key can be rotated once; rotate its successor next. The caller needs every scope of
/// the key, and a key cannot rotate one that expires later than itself.
#[utoipa::path(
    post,
    path = "/api/v1/integrations/{id}/keys/{key_id}/rotate",
    tag = "keys",
    params(
        ("id" = Id, Path, description = "The integration."),
        ("key_id" = Id, Path, description = "The key."),
    ),
    request_body(content = Option<KeyRotate>, example = json!({ "overlap_seconds": 3600 })),
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
        ErrorCode::KeyNotFound,
        ErrorCode::InvalidState,
        ErrorCode::UnknownField,
    ]))),
)]
pub(crate) async fn rotate_integration_key(
    State(app): State<App>,
    caller: Authorized,
    Path((id, key_id)): Path<(String, String)>,
    body: Text<SMALL>,
) -> Result<Answer<IntegrationKeyCreated>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let key_id = params::key_id(&key_id)?;
    check_integration_key(&caller)?;
    let overlap_seconds = KeyRotate::overlap_seconds(body).await?;
    let old = (Some(integration_id), key_id);
    let (row, secret) = rotate(&app, caller, old, overlap_seconds).await?;
    Ok(Answer::created(IntegrationKeyCreated { key: row.into(), secret }))
}

async fn rotate(
    app: &App,
    caller: Authorized,
    (integration_id, key_id): (Option<IntegrationId>, KeyId),
    overlap_seconds: u32,
) -> Result<(KeyRow, String), ApiError> {
    caller.require_active()?;
    let tenant_id = caller.tenant_id;
    // A missing key is refused by the change itself.
    if let Some(old) = app.store.key(tenant_id, integration_id, key_id).await? {
        // The scopes of a key never change.
        if let Some(scopes) = &old.scopes {
            let scopes: Vec<String> = scopes.split(' ').map(str::to_owned).collect();
            check_scopes(&scopes, caller.scopes)?;
        }
        // A concurrent rotation only shortens the life of the key, so this check stays valid.
        caller.check_key_expiry(old.expires_at)?;
    }
    let caps = app.tenant_caps;
    store_new_key(app, (tenant_id, integration_id), move |tx, hash| {
        let mut control = Control::new(tx, &caller.actor, tenant_id).with_caps(caps);
        control.rotate_key(integration_id, key_id, overlap_seconds, hash)
    })
    .await
}

/// The routes of this file, each with its rule.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(KEYS), routes!(rotate_key))
        .add(Rule::of(KEYS), routes!(rotate_integration_key))
}
