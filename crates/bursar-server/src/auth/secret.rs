//! Secrets: create, recognise and compare them. They cannot be printed.

use std::fmt;

use bursar_core::{IntegrationId, KeyId, TenantId};
use bursar_store::{AuditKey, KeyRow, SecretHash};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The random bytes of a secret: 192 bits.
const SECRET_BYTES: usize = 24;
/// The hexadecimal digits of a checksum.
const CHECKSUM_DIGITS: usize = 8;
/// The prefix of an operator token, by which Bursar recognises one in the wrong place.
pub(crate) const OPERATOR_PREFIX: &str = "bur_operator_";
/// The shortest accepted bearer token.
const TOKEN_CHARS_MIN: usize = 16;
/// The shortest accepted secret key in bytes.
const SECRET_KEY_BYTES_MIN: usize = 32;

/// A secret text without Debug and Display. It is wiped on drop.
#[derive(Clone, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. Use it only where the secret itself is needed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether a token is long enough to prove who has it.
pub(crate) fn is_strong(token: &Secret) -> bool {
    token.expose().len() >= TOKEN_CHARS_MIN
}

/// The system provided no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Returns 192 random bits as hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`]. There is no weaker fallback.
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

/// The key of the hashes under which secrets are stored.
///
/// Without it, a stolen database reveals nothing about the keys in it.
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
    /// A sentence for the operator if the secret is too short.
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

    /// Identifies the secret key without revealing it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The key that seals the audit log.
    pub fn audit_key(&self) -> AuditKey {
        AuditKey::new(self.audit)
    }

    pub fn hash(&self, secret: &str) -> SecretHash {
        *blake3::keyed_hash(&self.key, secret.as_bytes()).as_bytes()
    }
}

/// Compares two hashes in constant time.
pub(crate) fn same_hash(a: &SecretHash, b: &SecretHash) -> bool {
    a.ct_eq(b).into()
}

fn checksum(text: &str) -> String {
    let digest = blake3::hash(text.as_bytes());
    hex(digest.as_bytes().get(..CHECKSUM_DIGITS / 2).unwrap_or_default())
}

/// Verifies and removes the checksum at the end of a text.
fn verified(text: &str) -> Option<&str> {
    let (body, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_DIGITS)?)?;
    (checksum(body) == sum).then_some(body)
}

/// The part of a key that may be shown: which key it is, and whose.
///
/// The text of a key is its prefix, an underscore, random digits and a checksum of all that. The
/// prefix of an API key is `bur_<tenant>_<key>`, that of a key of an integration
/// `<tenant>:<integration>:<key>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPrefix {
    pub tenant_id: TenantId,
    /// `None` for an API key.
    pub integration_id: Option<IntegrationId>,
    pub key_id: KeyId,
}

impl KeyPrefix {
    /// The text of a new key.
    pub fn with_digits(self, digits: &Secret) -> Secret {
        let body = format!("{self}_{}", digits.expose());
        let sum = checksum(&body);
        Secret(body + &sum)
    }

    /// Reads the prefix of an API key. The checksum rejects most typing errors without a lookup.
    pub fn of_api_key(text: &str) -> Option<Self> {
        let mut parts = verified(text)?.strip_prefix("bur_")?.splitn(3, '_');
        let tenant_id = TenantId::parse(parts.next()?).ok()?;
        let key_id = KeyId::parse(parts.next()?).ok()?;
        parts.next().map(|_| Self { tenant_id, integration_id: None, key_id })
    }

    /// Reads the prefix of an integration key, from the value of its header.
    pub fn of_integration_key(text: &str) -> Option<Self> {
        let mut parts = verified(text)?.splitn(3, ':');
        let tenant_id = TenantId::parse(parts.next()?).ok()?;
        let integration_id = Some(IntegrationId::parse(parts.next()?).ok()?);
        let (key_id, _) = parts.next()?.split_once('_')?;
        Some(Self { tenant_id, integration_id, key_id: KeyId::parse(key_id).ok()? })
    }
}

impl From<&KeyRow> for KeyPrefix {
    fn from(row: &KeyRow) -> Self {
        let KeyRow { tenant_id, integration_id, key_id, .. } = row;
        Self { tenant_id: *tenant_id, integration_id: *integration_id, key_id: *key_id }
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant_id, integration_id, key_id } = self;
        match integration_id {
            None => write!(f, "bur_{tenant_id}_{key_id}"),
            Some(integration_id) => write!(f, "{tenant_id}:{integration_id}:{key_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_whose_they_are_and_typing_errors_are_seen() {
        let tenant_id = TenantId::from_number(7).expect("in range");
        let key_id = KeyId::from_number(8).expect("in range");
        let digits = random_digits().expect("random");
        let prefix = KeyPrefix { tenant_id, integration_id: None, key_id };
        let text = prefix.with_digits(&digits);
        assert_eq!(KeyPrefix::of_api_key(text.expose()), Some(prefix));
        let mut wrong = text.expose().to_owned();
        wrong.pop();
        wrong.push('x');
        for text in [&wrong, "bur_", "\u{e4}"] {
            assert_eq!(KeyPrefix::of_api_key(text), None);
        }

        let integration_id = IntegrationId::from_number(9);
        let prefix = KeyPrefix { tenant_id, integration_id, key_id };
        let text = prefix.with_digits(&digits);
        assert_eq!(KeyPrefix::of_integration_key(text.expose()), Some(prefix));
        assert_eq!(KeyPrefix::of_integration_key("a:b:c"), None);
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
