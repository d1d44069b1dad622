//! The views of API keys and integration keys.

use bursar_store::KeyRow;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::secret::KeyPrefix;
use crate::wire::enums;
use crate::wire::scalars::{Id, Instant, Name};
use crate::wire::timestamps;

/// A new key with its secret, which is shown only once.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyCreated {
    #[serde(flatten)]
    pub(crate) key: KeyView,
    pub(crate) secret: String,
}

/// A key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
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
    /// The key that replaced it in a rotation.
    #[schema(value_type = Option<Id>, required)]
    replaced_by: Option<String>,
}

impl From<KeyRow> for KeyView {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.key_id.to_string(),
            prefix: KeyPrefix::from(&row).to_string(),
            name: row.name.unwrap_or_default(),
            scopes: row.scopes.iter().flat_map(|all| all.split(' ')).map(str::to_owned).collect(),
            created_at: timestamps::text(row.created_at),
            expires_at: row.expires_at.map(timestamps::text),
            last_used_at: row.last_used_at.map(timestamps::text),
            revoked_at: row.revoked_at.map(timestamps::text),
            replaced_by: row.replaced_by.map(|id| id.to_string()),
        }
    }
}

/// A new key with its secret, which is shown only once and is the whole value of the header.
#[derive(Serialize, ToSchema)]
pub(crate) struct IntegrationKeyCreated {
    #[serde(flatten)]
    pub(crate) key: IntegrationKeyView,
    pub(crate) secret: String,
}

/// A key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IntegrationKeyView {
    #[schema(value_type = Id)]
    id: String,
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = Option<Name>, required)]
    name: Option<String>,
    prefix: String,
    #[schema(value_type = Instant)]
    created_at: String,
    /// Set if the key was rotated, or created by a key with an expiry.
    #[schema(value_type = Option<Instant>, required)]
    expires_at: Option<String>,
    #[schema(value_type = Option<Instant>, required)]
    last_used_at: Option<String>,
    #[schema(value_type = Option<Instant>, required)]
    revoked_at: Option<String>,
    /// The key that replaced it in a rotation.
    #[schema(value_type = Option<Id>, required)]
    replaced_by: Option<String>,
}

impl From<KeyRow> for IntegrationKeyView {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.key_id.to_string(),
            integration_id: row.integration_id.map(|id| id.to_string()).unwrap_or_default(),
            prefix: KeyPrefix::from(&row).to_string(),
            name: row.name,
            created_at: timestamps::text(row.created_at),
            expires_at: row.expires_at.map(timestamps::text),
            last_used_at: row.last_used_at.map(timestamps::text),
            revoked_at: row.revoked_at.map(timestamps::text),
            replaced_by: row.replaced_by.map(|id| id.to_string()),
        }
    }
}
