//! API keys of a tenant.

use axum::extract::State;
use bursar_core::Timestamp;
use bursar_store::{ApiKeyRow, Control, ControlTx};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::keys::create_key::mint;
use crate::api::keys::rotate_key::KeyRotate;
use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::KEYS;
use crate::auth::authorize::Authorized;
use crate::auth::scopes::{SCOPES, ScopeSet, WORDS_MAX};
use crate::auth::secret::{Secret, api_key_prefix, api_key_text};
use crate::http::answer_memory::Reads;
use crate::wire::body::{Json, SMALL, Text, present};
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params;
use crate::wire::params::{PageParams, Path, Query, list_meta};
use crate::wire::scalars::{Id, Instant, Later, Name};
use crate::wire::text::check_name;
use crate::wire::timestamps;

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyCreate {
    /// What it is for.
    #[schema(value_type = Name)]
    name: String,
    /// What it may; a word that comes twice counts once.
    #[schema(value_type = Vec<enums::Scope>, min_items = 1, max_items = 64)]
    scopes: Vec<String>,
    /// From here on it is no good; by default when the key ends that makes it, or never.
    #[schema(value_type = Option<Later>)]
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<Option<String>>,
}

/// A new key; the only time that its secret is shown.
#[derive(Serialize, ToSchema)]
pub struct KeyCreated {
    #[serde(flatten)]
    key: KeyView,
    secret: String,
}

/// A key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    #[schema(value_type = Id)]
    id: String,
    name: String,
    prefix: String,
    #[schema(value_type = Vec<enums::Scope>)]
    scopes: Vec<String>,
    #[schema(value_type = Instant)]
    created_at: String,
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

impl From<ApiKeyRow> for KeyView {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            id: row.api_key_id.to_string(),
            prefix: api_key_prefix(row.tenant_id, row.api_key_id),
            name: row.name,
            scopes: row.scopes.split(' ').map(str::to_owned).collect(),
            created_at: timestamps::text(row.created_at),
            expires_at: row.expires_at.map(timestamps::text),
            last_used_at: row.last_used_at.map(timestamps::text),
            revoked_at: row.revoked_at.map(timestamps::text),
            replaced_by: row.replaced_by.map(|id| id.to_string()),
        }
    }
}

/// Makes an API key
///
/// Its secret is in this answer and in no other. A key cannot give scopes that it lacks, and a key
/// with an end makes only keys that end no later than itself.
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
pub async fn create_key(
    State(app): State<App>,
    caller: Authorized,
    Json(create): Json<KeyCreate>,
) -> Result<Answer<KeyCreated>, ApiError> {
    check_name("name", &create.name)?;
    let scopes = check_scopes(&create.scopes, caller.scopes)?;
    let expires_at = check_end(create.expires_at, caller.ends_at, app.store.now())?;
    let tenant_id = caller.tenant_id;
    let text_of = move |id, digits: &Secret| api_key_text(tenant_id, id, digits);
    let caps = app.tenant_caps;
    let (row, secret) = mint(&app, tenant_id, text_of, move |tx, hash| {
        let mut control = Control::new(tx, &caller.actor, tenant_id).with_caps(caps);
        control.create_api_key(&create.name, &scopes, expires_at, hash)
    })
    .await?;
    Ok(Answer::created(KeyCreated { key: row.into(), secret }))
}

/// Lists the API keys, without their secrets
#[utoipa::path(
    get,
    path = "/api/v1/keys",
    tag = "keys",
    params(PageParams),
    responses((status = 200, body = [KeyView], description = "A page of keys.")),
)]
pub async fn list_keys(
    caller: Authorized,
    reads: Reads,
    mut query: Query,
) -> Result<Answer<Vec<KeyView>>, ApiError> {
    let page = query.page()?;
    query.done()?;
    let found = reads.api_keys(caller.tenant_id, page).await?;
    let meta = list_meta(page, found.rows.len(), found.total);
    Ok(Answer::list(found.rows.into_iter().map(KeyView::from).collect(), meta))
}

/// Revokes an API key
#[utoipa::path(
    delete,
    path = "/api/v1/keys/{id}",
    tag = "keys",
    params(("id" = Id, Path, description = "The key.")),
    responses((status = 200, body = KeyView, description = "The key, revoked.")),
    extensions(("x-refuses" = json!([ErrorCode::KeyNotFound]))),
)]
pub async fn revoke_key(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Answer<KeyView>, ApiError> {
    let api_key_id = params::api_key_id(&id)?;
    let tenant_id = caller.tenant_id;
    let change = move |tx: &mut dyn ControlTx| {
        Control::new(tx, &caller.actor, tenant_id).revoke_api_key(api_key_id)
    };
    let row = app.ledger.change(tenant_id, change).await??;
    app.key_cache.forget(tenant_id);
    Ok(Answer::ok(row.into()))
}

/// Makes an API key in the place of another
///
/// Of the same name, scopes and end, with a secret of its own, which is in this answer and in no
/// other. The old key goes on for the overlap, and never beyond its own end. A key is rotated once,
/// then the one that took its place; who cannot give all of its scopes cannot rotate it, and neither
/// can a key that ends before it.
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
pub async fn rotate_key(
    State(app): State<App>,
    caller: Authorized,
    Path(id): Path<String>,
    body: Text<SMALL>,
) -> Result<Answer<KeyCreated>, ApiError> {
    let api_key_id = params::api_key_id(&id)?;
    let overlap_seconds = KeyRotate::overlap_seconds(body).await?;
    caller.active()?;
    let tenant_id = caller.tenant_id;
    let old = app.store.api_key(tenant_id, api_key_id).await?;
    let old = old.ok_or_else(|| ApiError::of(ErrorCode::KeyNotFound))?;
    // The scopes of a key never change.
    let scopes: Vec<String> = old.scopes.split(' ').map(str::to_owned).collect();
    check_scopes(&scopes, caller.scopes)?;
    // The end of a key only moves forward in time when it is rotated.
    caller.outlives(old.expires_at)?;
    let text_of = move |id, digits: &Secret| api_key_text(tenant_id, id, digits);
    let caps = app.tenant_caps;
    let (row, secret) = mint(&app, tenant_id, text_of, move |tx, hash| {
        let mut control = Control::new(tx, &caller.actor, tenant_id).with_caps(caps);
        control.rotate_api_key(api_key_id, overlap_seconds, hash)
    })
    .await?;
    Ok(Answer::created(KeyCreated { key: row.into(), secret }))
}

/// Reads when a key is to end: in the future, and no later than the key that makes it.
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
            Err(wrong(&format!("must not be later than {own}, when the key ends that asks")))
        }
        Some(_) | None => Ok(end),
    }
}

/// Checks scopes: known ones, each once, and none that the caller has not itself.
fn check_scopes(asked: &[String], own: Option<ScopeSet>) -> Result<String, ApiError> {
    if asked.is_empty() || asked.len() > WORDS_MAX {
        return Err(ApiError::field("scopes", &format!("must name 1 to {WORDS_MAX} scopes")));
    }
    let (mut set, mut words) = (ScopeSet::default(), Vec::new());
    for scope in asked {
        let Some(is_new) = set.insert(scope) else {
            let problem = format!("must each be one of {}, resource:* or *", SCOPES.join(", "));
            return Err(ApiError::field("scopes", &problem));
        };
        if own.is_some_and(|own| !own.covers(scope)) {
            let message = "A key cannot give scopes that it does not have.";
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        if is_new {
            words.push(scope.as_str());
        }
    }
    Ok(words.join(" "))
}

/// The routes of this file, each with its rule.
pub fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(KEYS), routes!(create_key))
        .add(Rule::of(KEYS), routes!(list_keys))
        .add(Rule::of(KEYS).never_refused(), routes!(revoke_key))
        .add(Rule::of(KEYS), routes!(rotate_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_give_more_than_it_has() {
        let scopes = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let own = ScopeSet::stored("keys:write telemetry:*");
        assert!(check_scopes(&scopes(&["telemetry:read", "telemetry:*"]), Some(own)).is_ok());
        assert!(check_scopes(&scopes(&["*"]), Some(own)).is_err());
        assert!(check_scopes(&scopes(&["integrations:read"]), Some(own)).is_err());
        assert!(check_scopes(&scopes(&["*"]), None).is_ok());
        assert!(check_scopes(&scopes(&["nothing:*"]), None).is_err());
        assert!(check_scopes(&[], None).is_err());
    }
}
