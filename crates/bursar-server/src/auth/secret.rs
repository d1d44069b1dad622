//! Secrets: how they are made, recognised and compared. Nothing here can be printed.

use bursar_core::{ApiKeyId, IntegrationId, IntegrationKeyId, ParseIdError, TenantId};
use bursar_store::{AuditKey, SecretHash};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Random bytes in a secret: 192 bits.
const SECRET_BYTES: usize = 24;
/// Hexadecimal digits of a checksum.
const CHECKSUM_DIGITS: usize = 8;
/// With this a token of the operator begins, so that it is recognised where it does not belong.
pub const OPERATOR_PREFIX: &str = "bur_operator_";
/// The shortest secret key that is accepted.
const SECRET_KEY_BYTES_MIN: usize = 32;

/// A text that must not be seen: no Debug, no Display, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Why no secret could be made: the system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// 192 random bits as hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`]; nothing weaker is made instead.
pub fn random_digits() -> Result<Secret, NoRandomness> {
    let mut bytes = [0u8; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    let digits = hex(&bytes);
    bytes.zeroize();
    Ok(Secret(digits))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The key under which secrets are hashed before they are stored.
///
/// Without it, a stolen database tells nothing about the keys in it.
#[derive(ZeroizeOnDrop)]
pub struct SecretKey {
    key: [u8; 32],
    audit: [u8; 32],
    #[zeroize(skip)]
    fingerprint: String,
}

impl SecretKey {
    /// Derives the key from the operator's secret of at least 32 bytes.
    ///
    /// # Errors
    /// A sentence for the operator when it is too short.
    pub fn derive(secret: &Secret) -> Result<Self, &'static str> {
        let bytes = secret.expose().as_bytes();
        if bytes.len() < SECRET_KEY_BYTES_MIN {
            return Err("the secret key must have at least 32 bytes");
        }
        let key = blake3::derive_key("bursar 2026-11 hash of keys", bytes);
        let audit = blake3::derive_key("bursar 2026-11 seal of audit logs", bytes);
        let print = blake3::derive_key("bursar 2026-11 fingerprint of the secret key", bytes);
        let fingerprint = hex(print.get(..8).unwrap_or_default());
        Ok(Self { key, audit, fingerprint })
    }

    /// What tells one secret key from another, and nothing about it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The key that seals the audit log.
    pub fn audit_key(&self) -> AuditKey {
        AuditKey::new(self.audit)
    }

    /// The hash of a secret.
    pub fn hash(&self, secret: &str) -> SecretHash {
        *blake3::keyed_hash(&self.key, secret.as_bytes()).as_bytes()
    }
}

/// Compares two hashes in a time that tells nothing about them.
pub fn same_hash(a: &SecretHash, b: &SecretHash) -> bool {
    a.ct_eq(b).into()
}

fn checksum(text: &str) -> String {
    let digest = blake3::hash(text.as_bytes());
    hex(digest.as_bytes().get(..CHECKSUM_DIGITS / 2).unwrap_or_default())
}

/// Splits a checksum off the end of a text that carries one.
fn verified(text: &str) -> Option<&str> {
    let (body, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_DIGITS)?)?;
    (checksum(body) == sum).then_some(body)
}

/// The text of a new API key: `bur_<tenant>_<key id>_<secret>`, the secret ending in a checksum.
pub fn api_key_text(tenant_id: TenantId, api_key_id: ApiKeyId, digits: &Secret) -> Secret {
    let body = format!("bur_{tenant_id}_{api_key_id}_{}", digits.expose());
    let sum = checksum(&body);
    Secret(body + &sum)
}

/// The part of an API key that may be shown.
pub fn api_key_prefix(tenant_id: TenantId, api_key_id: ApiKeyId) -> String {
    format!("bur_{tenant_id}_{api_key_id}")
}

/// Reads whose key a text claims to be; the checksum turns most typing errors away unasked.
pub fn read_api_key(text: &str) -> Option<(TenantId, ApiKeyId)> {
    let body = verified(text)?.strip_prefix("bur_")?;
    let mut parts = body.splitn(3, '_');
    let tenant_id = TenantId::parse(parts.next()?).ok()?;
    let api_key_id = ApiKeyId::parse(parts.next()?).ok()?;
    parts.next().map(|_| (tenant_id, api_key_id))
}

/// The text of a new integration key: the whole value of its header.
pub fn integration_key_text(
    tenant_id: TenantId,
    integration_id: IntegrationId,
    key_id: IntegrationKeyId,
    digits: &Secret,
) -> Secret {
    let body = format!("{tenant_id}:{integration_id}:{key_id}_{}", digits.expose());
    let sum = checksum(&body);
    Secret(body + &sum)
}

/// The part of an integration key that may be shown.
pub fn integration_key_prefix(
    tenant_id: TenantId,
    integration_id: IntegrationId,
    key_id: IntegrationKeyId,
) -> String {
    format!("{tenant_id}:{integration_id}:{key_id}")
}

/// Reads whose key the value of the integration key's header claims to be.
pub fn read_integration_key(text: &str) -> Option<(TenantId, IntegrationId, IntegrationKeyId)> {
    let mut parts = verified(text)?.splitn(3, ':');
    let known = |error: Result<TenantId, ParseIdError>| error.ok();
    let tenant_id = known(TenantId::parse(parts.next()?))?;
    let integration_id = IntegrationId::parse(parts.next()?).ok()?;
    let (key_id, _) = parts.next()?.split_once('_')?;
    Some((tenant_id, integration_id, IntegrationKeyId::parse(key_id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_whose_they_are_and_typing_errors_are_seen() {
        let tenant = TenantId::from_number(7).expect("in range");
        let key = ApiKeyId::from_number(8).expect("in range");
        let digits = random_digits().expect("random");
        let text = api_key_text(tenant, key, &digits);
        assert_eq!(read_api_key(text.expose()), Some((tenant, key)));
        let mut wrong = text.expose().to_owned();
        wrong.pop();
        wrong.push('x');
        assert_eq!(read_api_key(&wrong), None);
        assert_eq!(read_api_key("bur_"), None);
        assert_eq!(read_api_key("ä"), None);

        let integration = IntegrationId::from_number(9).expect("in range");
        let key = IntegrationKeyId::from_number(10).expect("in range");
        let text = integration_key_text(tenant, integration, key, &digits);
        assert_eq!(read_integration_key(text.expose()), Some((tenant, integration, key)));
        assert_eq!(read_integration_key("a:b:c"), None);
    }

    #[test]
    fn another_secret_key_hashes_otherwise() {
        let key =
            |text: &str| SecretKey::derive(&Secret::new(text.repeat(8))).expect("long enough");
        let (a, b) = (key("abcd"), key("abce"));
        assert!(!same_hash(&a.hash("x"), &b.hash("x")));
        assert!(same_hash(&a.hash("x"), &a.hash("x")));
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert!(SecretKey::derive(&Secret::new("short".to_owned())).is_err());
    }
}
