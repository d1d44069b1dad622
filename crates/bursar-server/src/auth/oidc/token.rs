//! A token as it is presented: three parts, of which the first two are read before the third
//! proves them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde_json::{Map, Value};

use super::Refusal;
use super::claims::Claims;
use crate::auth::oidc::jwk::{Algorithm, PublicKey};
use crate::auth::oidc::strict_json::Unambiguous;

/// The longest token.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token that was read and not proved. Nothing in it is true yet.
pub(super) struct Presented<'a> {
    text: &'a str,
    /// How it says it is signed.
    pub(super) algorithm: Algorithm,
    /// The key that it names.
    pub(super) key_id: Option<String>,
    /// The issuer that it names.
    pub(super) issuer: String,
}

/// Reads what is needed to find the key of a token.
///
/// # Errors
/// [`Refusal`].
pub(super) fn read(text: &str) -> Result<Presented<'_>, Refusal> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let mut parts = text.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    let header = part(header)?;
    if header.contains_key("crit") {
        return Err(Refusal::Critical);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(Refusal::Malformed),
    };
    let issuer = part(claims)?.get("iss").and_then(Value::as_str).map(str::to_owned);
    Ok(Presented {
        text,
        algorithm: algorithm.ok_or(Refusal::Algorithm)?,
        key_id,
        issuer: issuer.ok_or(Refusal::Claim("iss"))?,
    })
}

fn part(text: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Malformed)?;
    let read = serde_json::from_slice(&bytes).map(|Unambiguous(fields)| fields);
    read.map_err(|_| Refusal::Malformed)
}

impl Presented<'_> {
    /// What the token claims, when this key proves that its issuer says so.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn proved_by(&self, key: &PublicKey) -> Result<Claims, Refusal> {
        let mut validation = Validation::new(key.algorithm.library());
        // Claims are looked at in claims.rs: the library reads the clock of this machine, and takes
        // a list for an issuer.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Unambiguous>(self.text, &key.decoding, &validation);
        match decoded {
            Ok(token) => Ok(Claims(token.claims.0)),
            Err(error) if *error.kind() == ErrorKind::InvalidSignature => Err(Refusal::Signature),
            Err(_) => Err(Refusal::Malformed),
        }
    }
}
