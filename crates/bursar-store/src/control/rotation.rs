//! Rotation of keys: a new key takes the place of an old one, which may go on for a while, so that
//! nobody has to change a key everywhere at one moment.

use bursar_core::{ApiKeyId, IntegrationId, IntegrationKeyId, Timestamp};

use super::caps::NewKey;
use super::change::{Control, accept};
use super::refusal::{Changed, ControlRefusal};
use crate::rows::codec::id;
use crate::rows::row::{ApiKeyRow, IntegrationKeyRow, SecretHash};

/// Until when the old key lives that a new one took the place of.
struct End {
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl End {
    /// After an overlap, and never later than it would have ended anyway; without one it is revoked.
    fn after(overlap_seconds: u32, now: Timestamp, expires_at: Option<Timestamp>) -> Self {
        if overlap_seconds == 0 {
            return Self { expires_at, revoked_at: Some(now) };
        }
        let overlap_ends = now.plus_seconds(overlap_seconds);
        let first = expires_at.map_or(overlap_ends, |own| own.min(overlap_ends));
        Self { expires_at: Some(first), revoked_at: None }
    }
}

/// Refuses a key that opens nothing any more, and one that has a successor already: a second one
/// would end with it.
fn check_live(
    now: Timestamp,
    (revoked_at, expires_at): (Option<Timestamp>, Option<Timestamp>),
    is_replaced: bool,
) -> Result<(), ControlRefusal> {
    if revoked_at.is_some() || expires_at.is_some_and(|end| end <= now) {
        return Err(ControlRefusal::KeyEnded);
    }
    if is_replaced { Err(ControlRefusal::KeyReplaced) } else { Ok(()) }
}

impl Control<'_> {
    /// Makes an API key in the place of another: of the same name, scopes and end.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub fn rotate_api_key(
        &mut self,
        api_key_id: ApiKeyId,
        overlap_seconds: u32,
        secret_hash: impl FnOnce(ApiKeyId) -> SecretHash,
    ) -> Changed<ApiKeyRow> {
        accept!(self.active_tenant()?);
        let Some(mut old) = self.tx.api_key(self.tenant_id, api_key_id)? else {
            return Ok(Err(ControlRefusal::KeyNotFound));
        };
        let now = self.tx.now();
        accept!(check_live(now, (old.revoked_at, old.expires_at), old.replaced_by.is_some()));
        accept!(self.caps.room_for_api_key(
            self.tx,
            self.tenant_id,
            NewKey::rotated(overlap_seconds)
        )?);
        let successor = id(ApiKeyId::from_number, self.tx.allocate_ids(1)?)?;
        let new = ApiKeyRow {
            api_key_id: successor,
            secret_hash: secret_hash(successor),
            created_at: now,
            created_by: self.actor.actor_id.clone(),
            last_used_at: None,
            ..old.clone()
        };
        let End { expires_at, revoked_at } = End::after(overlap_seconds, now, old.expires_at);
        (old.expires_at, old.revoked_at) = (expires_at, revoked_at);
        old.replaced_by = Some(successor);
        self.tx.put_api_key(&new)?;
        self.tx.put_api_key(&old)?;
        let detail = serde_json::json!({
            "replaced_by": successor.to_string(), "overlap_seconds": overlap_seconds,
        });
        self.audit("api_key.rotate", "api_key", api_key_id.to_string(), detail)?;
        Ok(Ok(new))
    }

    /// Makes a key of an integration in the place of another: of the same name and end.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub fn rotate_integration_key(
        &mut self,
        integration_id: IntegrationId,
        integration_key_id: IntegrationKeyId,
        overlap_seconds: u32,
        secret_hash: impl FnOnce(IntegrationKeyId) -> SecretHash,
    ) -> Changed<IntegrationKeyRow> {
        accept!(self.live_integration(integration_id)?);
        let key = self.tx.integration_key(self.tenant_id, integration_id, integration_key_id)?;
        let Some(mut old) = key else { return Ok(Err(ControlRefusal::KeyNotFound)) };
        let now = self.tx.now();
        accept!(check_live(now, (old.revoked_at, old.expires_at), old.replaced_by.is_some()));
        accept!(self.caps.room_for_integration_key(
            self.tx,
            (self.tenant_id, integration_id),
            NewKey::rotated(overlap_seconds)
        )?);
        let successor = id(IntegrationKeyId::from_number, self.tx.allocate_ids(1)?)?;
        let new = IntegrationKeyRow {
            integration_key_id: successor,
            secret_hash: secret_hash(successor),
            created_at: now,
            created_by: self.actor.actor_id.clone(),
            last_used_at: None,
            ..old.clone()
        };
        let End { expires_at, revoked_at } = End::after(overlap_seconds, now, old.expires_at);
        (old.expires_at, old.revoked_at) = (expires_at, revoked_at);
        old.replaced_by = Some(successor);
        self.tx.put_integration_key(&new)?;
        self.tx.put_integration_key(&old)?;
        let detail = serde_json::json!({
            "integration_id": integration_id.to_string(),
            "replaced_by": successor.to_string(),
            "overlap_seconds": overlap_seconds,
        });
        let target = integration_key_id.to_string();
        self.audit("integration_key.rotate", "integration_key", target, detail)?;
        Ok(Ok(new))
    }
}
