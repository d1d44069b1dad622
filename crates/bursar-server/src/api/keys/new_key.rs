//! Creates the secret of a new key and stores its hash.

use bursar_core::{IntegrationId, KeyId, TenantId};
use bursar_store::{Changed, ControlTx, KeyRow, SecretHash};

use crate::app::App;
use crate::auth::secret::{KeyPrefix, random_digits};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Stores a new key of this owner with `store`. Returns the row and the text of the key, of which
/// only a hash is stored.
///
/// # Errors
/// Refusals of `store`, errors of the store, and 500 if the system has no randomness.
pub(crate) async fn store_new_key(
    app: &App,
    (tenant_id, integration_id): (TenantId, Option<IntegrationId>),
    mut store: impl FnMut(&mut dyn ControlTx, &mut dyn FnMut(KeyId) -> SecretHash) -> Changed<KeyRow>
    + Send
    + 'static,
) -> Result<(KeyRow, String), ApiError> {
    let digits = random_digits().map_err(|_| ApiError::of(ErrorCode::Internal))?;
    let hasher = app.clone();
    let change = move |tx: &mut dyn ControlTx| {
        let mut text = None;
        let mut hash = |key_id| {
            let prefix = KeyPrefix { tenant_id, integration_id, key_id };
            hasher.secret_key.hash(text.insert(prefix.with_digits(&digits)).expose())
        };
        let stored = store(tx, &mut hash)?;
        Ok(stored.map(|row| (row, text)))
    };
    let (row, text) = app.ledger.change(tenant_id, change).await??;
    // The first key advances the onboarding, and a rotation ends the old key, so cached callers are
    // outdated.
    app.key_cache.forget(tenant_id);
    let text = text.ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
    Ok((row, text.expose().to_owned()))
}
