//! The public keys of an issuer as published in its JWKS.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::signature::{Algorithm, POINT_BYTES, VerifyingKey};

/// The largest JWKS in bytes.
pub(super) const JWKS_BYTES_MAX: usize = 256 * 1024;
/// The most keys of one issuer.
const KEYS_MAX: usize = 100;

/// A public key, and the id by which tokens refer to it.
pub(super) struct PublicKey {
    id: Option<String>,
    pub(super) verifying: VerifyingKey,
}

/// The usable keys of an issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet(Arc<[Arc<PublicKey>]>);

/// A JWKS as received.
#[derive(Deserialize)]
pub(super) struct Jwks {
    keys: Vec<Value>,
}

/// The JWKS lists more keys than Bursar keeps.
#[derive(Debug, thiserror::Error)]
#[error("the JWKS has more than {KEYS_MAX} keys")]
pub(super) struct TooManyKeys;

/// The fields of a key that are read. Private parts and certificates are ignored.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Keeps the usable keys. Keys of unknown types or for other uses are ignored.
    ///
    /// # Errors
    /// [`TooManyKeys`].
    pub(super) fn of(jwks: Jwks) -> Result<Self, TooManyKeys> {
        if jwks.keys.len() > KEYS_MAX {
            return Err(TooManyKeys);
        }
        let written = jwks.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self(written.filter_map(|key| public_key(&key)).map(Arc::new).collect()))
    }

    /// The key that a token refers to. A token without a key id is matched if there is only one
    /// key.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        let found = match (id, &*self.0) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| {
                key.id.as_deref() == Some(id) && key.verifying.algorithm() == algorithm
            }),
        };
        found.filter(|key| key.verifying.algorithm() == algorithm).map(Arc::clone)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn public_key(key: &Jwk) -> Option<PublicKey> {
    let is_for_signatures = key.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && key.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !is_for_signatures {
        return None;
    }
    let verifying = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => VerifyingKey::rsa(&bytes(key.n.as_deref())?, &bytes(key.e.as_deref())?)?,
        ("EC", Some("P-256")) => {
            VerifyingKey::p256(&point(key.x.as_deref())?, &point(key.y.as_deref())?)
        }
        ("OKP", Some("Ed25519")) => VerifyingKey::ed25519(point(key.x.as_deref())?),
        _ => return None,
    };
    let is_of = |name: &str| Algorithm::named(name) == Some(verifying.algorithm());
    let fits = key.alg.as_deref().is_none_or(is_of);
    fits.then(|| PublicKey { id: key.kid.clone(), verifying })
}

fn bytes(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

/// The bytes of a coordinate or point, if it has the right length.
fn point(text: Option<&str>) -> Option<[u8; POINT_BYTES]> {
    bytes(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(keys: &[Value]) -> KeySet {
        let jwks = serde_json::from_value(json!({ "keys": keys })).expect("a JWKS");
        KeySet::of(jwks).unwrap_or_else(|error| panic!("{error}"))
    }

    fn coordinate(byte: u8) -> String {
        URL_SAFE_NO_PAD.encode([byte; POINT_BYTES])
    }

    fn modulus(bits: usize) -> String {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] = 0xff >> (bytes.len() * 8 - bits);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    #[test]
    fn keys_that_cannot_be_used_are_passed_over() {
        let rsa = json!({ "kty": "RSA", "n": modulus(2_048), "e": "AQAB", "alg": "RS256" });
        let ec = json!({ "kty": "EC", "crv": "P-256", "x": coordinate(1), "y": coordinate(2) });
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": coordinate(3), "use": "sig" });
        assert_eq!(set(&[rsa.clone(), ec.clone(), ed.clone()]).len(), 3);
        assert_eq!(set(&[with(rsa.clone(), "n", json!(modulus(8_192)))]).len(), 1);
        assert_eq!(set(&[with(ed.clone(), "key_ops", json!(["verify"]))]).len(), 1);
        for (key, name, value) in [
            (&rsa, "n", json!(modulus(2_047))),
            (&rsa, "n", json!(modulus(8_193))),
            (&rsa, "n", json!("")),
            (&rsa, "n", json!("AA")),
            (&rsa, "n", json!("not base64!")),
            (&rsa, "n", json!(5)),
            (&rsa, "e", json!(null)),
            (&rsa, "alg", json!("RS512")),
            (&rsa, "alg", json!("ES256")),
            (&rsa, "use", json!("enc")),
            (&rsa, "key_ops", json!(["sign"])),
            (&ec, "crv", json!("P-384")),
            (&ec, "y", json!("AA")),
            (&ec, "alg", json!("EdDSA")),
            (&ed, "crv", json!("Ed448")),
            (&ed, "x", json!(coordinate(1) + "AA")),
            (&ed, "kty", json!("oct")),
            (&ed, "kty", json!(7)),
        ] {
            let key = with(key.clone(), name, value);
            assert_eq!(set(std::slice::from_ref(&key)).len(), 0, "{key}");
        }
        assert_eq!(set(&[json!(1), json!({}), json!(null)]).len(), 0);
    }

    #[test]
    fn a_hundred_keys_are_enough() {
        let jwks = |count: usize| {
            serde_json::from_value(json!({ "keys": vec![json!({}); count] })).expect("keys")
        };
        assert!(KeySet::of(jwks(100)).is_ok());
        assert!(KeySet::of(jwks(101)).is_err());
    }

    #[test]
    fn a_token_names_its_key_unless_there_is_only_one() {
        let key = |id: &str, byte: u8| {
            let x = coordinate(byte);
            json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": id })
        };
        let one = set(&[key("a", 1)]);
        assert!(one.find(None, Algorithm::EdDsa).is_some());
        assert!(one.find(Some("a"), Algorithm::EdDsa).is_some());
        assert!(one.find(Some("b"), Algorithm::EdDsa).is_none());
        assert!(one.find(None, Algorithm::Rs256).is_none());
        assert!(one.find(Some("a"), Algorithm::Rs256).is_none());
        let two = set(&[key("a", 1), key("b", 2)]);
        assert!(two.find(None, Algorithm::EdDsa).is_none());
        assert!(two.find(Some("b"), Algorithm::EdDsa).is_some());
        assert!(set(&[]).find(None, Algorithm::EdDsa).is_none());
    }
}
