//! How a key comes to be: its secret is made here, hashed into its row, and shown once.

use bursar_core::TenantId;
use bursar_store::{Changed, ControlTx, SecretHash};

use crate::app::App;
use crate::auth::secret::{Secret, random_digits};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Makes a key: `text_of` writes it from its id and random digits, `make` stores its row with the
/// hash of that. Answers the row and the text, which nobody can tell again.
///
/// # Errors
/// What `make` refuses, whatever storage says, and 500 when the system gives no randomness.
pub async fn mint<Id, Row: Send + 'static>(
    app: &App,
    tenant_id: TenantId,
    text_of: impl Fn(Id, &Secret) -> Secret + Send + 'static,
    mut make: impl FnMut(&mut dyn ControlTx, &mut dyn FnMut(Id) -> SecretHash) -> Changed<Row>
    + Send
    + 'static,
) -> Result<(Row, String), ApiError> {
    let digits = random_digits().map_err(|_| ApiError::of(ErrorCode::Internal))?;
    let hasher = app.clone();
    let change = move |tx: &mut dyn ControlTx| {
        let mut text = None;
        let mut hash = |id| hasher.secret_key.hash(text.insert(text_of(id, &digits)).expose());
        let made = make(tx, &mut hash)?;
        Ok(made.map(|row| (row, text)))
    };
    let (row, text) = app.ledger.change(tenant_id, change).await??;
    // A first key brings the onboarding on, and one in the place of another ends that one: callers
    // who are remembered do not know.
    app.key_cache.forget(tenant_id);
    let text = text.ok_or_else(|| ApiError::of(ErrorCode::Internal))?;
    Ok((row, text.expose().to_owned()))
}
