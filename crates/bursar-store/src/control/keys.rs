//! Creates, revokes and rotates keys.
//!
//! A rotation creates the successor of a key. The old key can stay valid for an overlap, so that
//! clients can be updated one by one. API keys and keys of integrations differ in their scopes,
//! caps and audit actions.

use bursar_core::{IntegrationId, KeyId, OnboardingState, Timestamp};
use serde_json::Value;

use super::caps::NewKey;
use super::change::{Control, accept};
use super::refusal::{Changed, ControlRefusal};
use crate::error::StoreError;
use crate::rows::codec::id;
use crate::rows::row::{KeyRow, SecretHash};

/// The fields of a new key.
#[derive(Clone, Debug)]
pub struct KeyDraft {
    integration_id: Option<IntegrationId>,
    name: Option<String>,
    scopes: Option<String>,
    expires_at: Option<Timestamp>,
}

impl KeyDraft {
    /// An API key; its scopes are separated by spaces.
    pub fn api(name: &str, scopes: &str, expires_at: Option<Timestamp>) -> Self {
        Self {
            integration_id: None,
            name: Some(name.to_owned()),
            scopes: Some(scopes.to_owned()),
            expires_at,
        }
    }

    /// A key of one integration.
    pub fn integration(
        integration_id: IntegrationId,
        name: Option<&str>,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Self {
            integration_id: Some(integration_id),
            name: name.map(str::to_owned),
            scopes: None,
            expires_at,
        }
    }

    fn audit_detail(&self) -> Value {
        let Self { integration_id, name, scopes, expires_at } = self;
        let expires_at_micros = expires_at.map(Timestamp::micros);
        match integration_id {
            None => serde_json::json!({
                "name": name,
                "scopes": scopes,
                "expires_at_micros": expires_at_micros,
            }),
            Some(integration_id) => serde_json::json!({
                "integration_id": integration_id.to_string(),
                "expires_at_micros": expires_at_micros,
            }),
        }
    }
}

/// The actions on keys that the audit log distinguishes.
#[derive(Clone, Copy)]
enum KeyAction {
    Create,
    Rotate,
    Revoke,
}

impl KeyAction {
    /// The action and the target type of the audit row.
    const fn audit_names(self, row: &KeyRow) -> (&'static str, &'static str) {
        match (row.integration_id, self) {
            (None, Self::Create) => ("api_key.create", "api_key"),
            (None, Self::Rotate) => ("api_key.rotate", "api_key"),
            (None, Self::Revoke) => ("api_key.revoke", "api_key"),
            (Some(_), Self::Create) => ("integration_key.create", "integration_key"),
            (Some(_), Self::Rotate) => ("integration_key.rotate", "integration_key"),
            (Some(_), Self::Revoke) => ("integration_key.revoke", "integration_key"),
        }
    }
}

/// Refuses a key that has ended or already has a successor, which could not outlive the key.
fn check_rotatable(key: &KeyRow, now: Timestamp) -> Result<(), ControlRefusal> {
    if !key.is_live(now) {
        return Err(ControlRefusal::KeyEnded);
    }
    if key.replaced_by.is_some() { Err(ControlRefusal::KeyReplaced) } else { Ok(()) }
}

/// Gives a key a successor, and ends the key after the overlap or at its own expiry, whichever is
/// first. Without an overlap the key is revoked.
fn replace(key: &mut KeyRow, successor: KeyId, overlap_seconds: u32, now: Timestamp) {
    key.replaced_by = Some(successor);
    if overlap_seconds == 0 {
        key.revoked_at = Some(now);
        return;
    }
    let overlap_ends = now.plus_seconds(overlap_seconds);
    key.expires_at = Some(key.expires_at.map_or(overlap_ends, |own| own.min(overlap_ends)));
}

impl Control<'_> {
    /// Creates a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create_key(
        &mut self,
        draft: KeyDraft,
        secret_hash: impl FnOnce(KeyId) -> SecretHash,
    ) -> Changed<KeyRow> {
        let tenant = accept!(self.active_tenant()?);
        if let Some(integration_id) = draft.integration_id {
            accept!(self.live_integration(integration_id)?);
        }
        let owner = (self.tenant_id, draft.integration_id);
        accept!(self.caps.check_keys(self.tx, owner, NewKey::Additional)?);
        self.advance(tenant, OnboardingState::ApiKeyCreated)?;
        let key_id = id(KeyId::from_number, self.tx.allocate_ids(1)?)?;
        let detail = draft.audit_detail();
        let KeyDraft { integration_id, name, scopes, expires_at } = draft;
        let row = KeyRow {
            tenant_id: self.tenant_id,
            key_id,
            integration_id,
            name,
            scopes,
            secret_hash: secret_hash(key_id),
            created_at: self.tx.now(),
            created_by: self.actor.actor_id.clone(),
            expires_at,
            revoked_at: None,
            last_used_at: None,
            replaced_by: None,
            account_key_id: key_id,
        };
        self.tx.put_key(&row)?;
        self.audit_key(KeyAction::Create, &row, detail)?;
        Ok(Ok(row))
    }

    /// Revokes a key, in any lifecycle state of the tenant. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke_key(
        &mut self,
        integration_id: Option<IntegrationId>,
        key_id: KeyId,
    ) -> Changed<KeyRow> {
        let mut row = accept!(self.existing_key(integration_id, key_id)?);
        if row.revoked_at.is_none() {
            row.revoked_at = Some(self.tx.now());
            self.tx.put_key(&row)?;
            let detail = match integration_id {
                None => serde_json::json!({}),
                Some(integration_id) => {
                    serde_json::json!({ "integration_id": integration_id.to_string() })
                }
            };
            self.audit_key(KeyAction::Revoke, &row, detail)?;
        }
        Ok(Ok(row))
    }

    /// Replaces a key by a new one with the same owner, name, scopes and expiry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rotate_key(
        &mut self,
        integration_id: Option<IntegrationId>,
        key_id: KeyId,
        overlap_seconds: u32,
        secret_hash: impl FnOnce(KeyId) -> SecretHash,
    ) -> Changed<KeyRow> {
        accept!(self.active_tenant()?);
        if let Some(integration_id) = integration_id {
            accept!(self.live_integration(integration_id)?);
        }
        let mut old = accept!(self.existing_key(integration_id, key_id)?);
        let now = self.tx.now();
        accept!(check_rotatable(&old, now));
        let owner = (self.tenant_id, integration_id);
        accept!(self.caps.check_keys(self.tx, owner, NewKey::rotated(overlap_seconds))?);
        let successor = id(KeyId::from_number, self.tx.allocate_ids(1)?)?;
        let new = KeyRow {
            key_id: successor,
            secret_hash: secret_hash(successor),
            created_at: now,
            created_by: self.actor.actor_id.clone(),
            last_used_at: None,
            ..old.clone()
        };
        replace(&mut old, successor, overlap_seconds, now);
        self.tx.put_key(&new)?;
        self.tx.put_key(&old)?;
        let replaced_by = successor.to_string();
        let detail = match integration_id {
            None => serde_json::json!({
                "replaced_by": replaced_by,
                "overlap_seconds": overlap_seconds,
            }),
            Some(integration_id) => serde_json::json!({
                "integration_id": integration_id.to_string(),
                "replaced_by": replaced_by,
                "overlap_seconds": overlap_seconds,
            }),
        };
        self.audit_key(KeyAction::Rotate, &old, detail)?;
        Ok(Ok(new))
    }

    /// The key, if it belongs to this integration, or to the tenant itself for `None`.
    fn existing_key(
        &mut self,
        integration_id: Option<IntegrationId>,
        key_id: KeyId,
    ) -> Changed<KeyRow> {
        let row = self.tx.key(self.tenant_id, key_id)?;
        let row = row.filter(|row| row.integration_id == integration_id);
        Ok(row.ok_or(ControlRefusal::KeyNotFound))
    }

    fn audit_key(
        &mut self,
        action: KeyAction,
        row: &KeyRow,
        detail: Value,
    ) -> Result<(), StoreError> {
        let (action, target_type) = action.audit_names(row);
        self.audit(action, target_type, row.key_id.to_string(), detail)
    }
}
