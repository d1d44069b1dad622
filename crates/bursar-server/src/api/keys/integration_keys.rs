//! Keys that are good for one integration.

use axum::extract::State;
use bursar_store::{Control, ControlTx, IntegrationKeyRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::keys::create_key::mint;
use crate::api::keys::rotate_key::KeyRotate;
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::{KEYS, READ};
use crate::auth::authorize::Authorized;
use crate::auth::scopes::INTEGRATION_KEY_SCOPES;
use crate::auth::secret::{Secret, integration_key_prefix, integration_key_text};
use crate::http::answer_memory::Reads;
use crate::wire::body::{SMALL, Text};
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::{PageParams, Path, Query, list_meta};
use crate::wire::scalars::{Id, Instant, Name};
use crate::wire::text::check_name;
use crate::wire::timestamps;

/// A key to be made; the body may be absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegrationKeyCreate {
    #[schema(value_type = Option<Name>)]
    name: Option<String>,
}

/// A new key; the only time that its secret is shown, which is the whole value of the header.
#[derive(Serialize, ToSchema)]
pub struct IntegrationKeyCreated {
    #[serde(flatten)]
    key: IntegrationKeyView,
    secret: String,
}

/// A key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct IntegrationKeyView {
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = Option<Name>, required)]
    name: Option<String>,
    prefix: String,
    #[schema(value_type = Instant)]
    created_at: String,
    /// The end of a key that was rotated, or that a key with an end has made.
    #[schema(value_type = Option<Instant>, required)]
    expires_at: Option<String>,
    #[schema(value_type = Option<Instant>, required)]
    last_used_at: Option<String>,
    #[schema(value_type = Option<Instant>, required)]
    revoked_at: Option<String>,
    /// The key that took its place when it was rotated.
    #[schema(value_type = Option<Id>, required)]
    replaced_by: Option<String>,
}

impl From<IntegrationKeyRow> for IntegrationKeyView {
    fn from(row: IntegrationKeyRow) -> Self {
        let key_id = row.integration_key_id;
        Self {
            id: key_id.to_string(),
            integration_id: row.integration_id.to_string(),
            prefix: integration_key_prefix(row.tenant_id, row.integration_id, key_id),
            name: row.name,
            created_at: timestamps::text(row.created_at),
            expires_at: row.expires_at.map(timestamps::text),
            last_used_at: row.last_used_at.map(timestamps::text),
            revoked_at: row.revoked_at.map(timestamps::text),
            replaced_by: row.replaced_by.map(|id| id.to_string()),
        }
    }
}

/// Makes a key of one integration
///
/// Its secret, the whole value of the header, is in this answer and in no other. Whoever makes it
/// needs all that it can do. It ends when the API key ends that makes it.
#[utoipa::path(
    post,
    path = "/api/v1/integrations/{id}/keys",
    tag = "keys",
    params(("id" = Id, Path, description = "The integration.")),
    request_body(content = Option<IntegrationKeyCreate>, example = json!({ "name": "worker" })),
    responses((status = 201, body = IntegrationKeyCreated, description = "The key, secret too.")),
    extensions(("x-refuses" = json!([
        ErrorCode::Forbidden,
        ErrorCode::TenantSuspended,
        ErrorCode::TooManyKeys,
        ErrorCode::IntegrationNotFound,
        ErrorCode::UnknownField,
        ErrorCode::SecretRefused,
    ]))),
)]
pub async fn create_integration_key(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    body: Text<SMALL>,
) -> Result<Answer<IntegrationKeyCreated>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    check_can_give(&caller)?;
    let create: IntegrationKeyCreate = body.read_optional().await?;
    if let Some(name) = &create.name {
        check_name("name", name)?;
    }
    let tenant_id = caller.tenant_id;
    let text_of = move |key_id, digits: &Secret| {
        integration_key_text(tenant_id, integration_id, key_id, digits)
    };
    let caps = app.tenant_caps;
    let (row, secret) = mint(&app, tenant_id, text_of, move |tx, hash| {
        let mut control = Control::new(tx, &caller.actor, tenant_id).with_caps(caps);
        let name = create.name.as_deref();
        control.create_integration_key(integration_id, name, caller.ends_at, hash)
    })
    .await?;
    Ok(Answer::created(IntegrationKeyCreated { key: row.into(), secret }))
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
pub async fn list_integration_keys(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    reads: Reads,
    mut query: Query,
) -> Result<Answer<Vec<IntegrationKeyView>>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let page = query.page()?;
    query.done()?;
    let owner = app.store.integration(caller.tenant_id, integration_id).await?;
    owner.ok_or_else(|| ApiError::of(ErrorCode::IntegrationNotFound))?;
    let found = reads.integration_keys(caller.tenant_id, integration_id, page).await?;
    let meta = list_meta(page, found.rows.len(), found.total);
    Ok(Answer::list(found.rows.into_iter().map(IntegrationKeyView::from).collect(), meta))
}

/// Revokes a key of an integration
#[utoipa::path(
    delete,
    path = "/api/v1/integrations/{id}/keys/{key_id}",
    tag = "keys",
    params(
        ("id" = Id, Path, description = "The integration."),
        ("key_id" = Id, Path, description = "The key."),
    ),
    responses((status = 200, body = IntegrationKeyView, description = "The key, revoked.")),
    extensions(("x-refuses" = json!([
        ErrorCode::IntegrationNotFound,
        ErrorCode::KeyNotFound,
    ]))),
)]
pub async fn revoke_integration_key(
    State(app): State<App>,
    caller: Authorized,
    Path((id, key_id)): Path<(String, String)>,
) -> Result<Answer<IntegrationKeyView>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let key_id = params::integration_key_id(&key_id)?;
    let tenant_id = caller.tenant_id;
    let change = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &caller.actor, tenant_id).revoke_integration_key(integration_id, key_id)
    };
    let row = app.ledger.change(tenant_id, change).await??;
    app.key_cache.forget(tenant_id);
    Ok(Answer::ok(row.into()))
}

/// Makes a key of an integration in the place of another
///
/// Of the same name, with a secret of its own, which is in this answer and in no other. The old key
/// goes on for the overlap. A key is rotated once, then the one that took its place; whoever rotates
/// it needs all that it can do, and a key cannot rotate one that ends later than itself.
#[utoipa::path(
    post,
    path = "/api/v1/integrations/{id}/keys/{key_id}/rotate",
    tag = "keys",
    params(
        ("id" = Id, Path, description = "The integration."),
        ("key_id" = Id, Path, description = "The key."),
    ),
    request_body(content = Option<KeyRotate>, example = json!({ "overlap_seconds": 3600 })),
    responses((status = 201, body = IntegrationKeyCreated, description = "The key, secret too.")),
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
pub async fn rotate_integration_key(
    State(app): State<App>,
    caller: Authorized,
    Path((id, key_id)): Path<(String, String)>,
    body: Text<SMALL>,
) -> Result<Answer<IntegrationKeyCreated>, ApiError> {
    let integration_id = params::integration_id(&id)?;
    let key_id = params::integration_key_id(&key_id)?;
    check_can_give(&caller)?;
    let overlap_seconds = KeyRotate::overlap_seconds(body).await?;
    caller.active()?;
    let tenant_id = caller.tenant_id;
    if let Some(old) = app.store.integration_key(tenant_id, integration_id, key_id).await? {
        // The end of a key only moves forward in time when it is rotated.
        caller.outlives(old.expires_at)?;
    }
    let text_of =
        move |new, digits: &Secret| integration_key_text(tenant_id, integration_id, new, digits);
    let caps = app.tenant_caps;
    let (row, secret) = mint(&app, tenant_id, text_of, move |tx, hash| {
        let mut control = Control::new(tx, &caller.actor, tenant_id).with_caps(caps);
        control.rotate_integration_key(integration_id, key_id, overlap_seconds, hash)
    })
    .await?;
    Ok(Answer::created(IntegrationKeyCreated { key: row.into(), secret }))
}

/// Refuses whoever cannot do all that the key of an integration can.
fn check_can_give(caller: &Authorized) -> Result<(), ApiError> {
    match INTEGRATION_KEY_SCOPES.iter().find(|scope| !caller.may(scope)) {
        None => Ok(()),
        Some(missing) => {
            let message =
                format!("The key of an integration can do {missing}, which yours cannot.");
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
    }
}

/// The routes of this file, each with its rule.
pub fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(KEYS), routes!(create_integration_key))
        .add(Rule::of(READ), routes!(list_integration_keys))
        .add(Rule::of(KEYS).never_refused(), routes!(revoke_integration_key))
        .add(Rule::of(KEYS), routes!(rotate_integration_key))
}
