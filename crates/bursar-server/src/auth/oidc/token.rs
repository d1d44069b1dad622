//! A token as it is presented: three parts, of which the first two are read before the third
//! proves them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::jwk::PublicKey;
use super::refusal::TokenRefusal;
use super::signature::Algorithm;
use super::strict_json::StrictObject;

/// The longest token.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Registered parameters of a header that are text (RFC 7515, 7516 and 8555). None is used here, and
/// one of another type is a sign of a token that is not what it seems.
const TEXT_PARAMETERS: [&str; 10] =
    ["typ", "cty", "jku", "x5u", "x5t", "x5t#S256", "enc", "zip", "url", "nonce"];

/// A token that was read and not verified. Nothing in it is true yet.
pub(super) struct UnverifiedToken<'a> {
    /// The header and the claims, as they were signed.
    signed: &'a str,
    signature: &'a str,
    claims: Map<String, Value>,
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
/// [`TokenRefusal`].
pub(super) fn read(text: &str) -> Result<UnverifiedToken<'_>, TokenRefusal> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenRefusal::Malformed);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenRefusal::Malformed)?;
    if claims.contains('.') {
        return Err(TokenRefusal::Malformed);
    }
    let header = object(header)?;
    if header.contains_key("crit") {
        return Err(TokenRefusal::Critical);
    }
    if !has_types(&header) {
        return Err(TokenRefusal::Malformed);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(TokenRefusal::Malformed),
    };
    let claims = object(claims)?;
    let issuer = claims.get("iss").and_then(Value::as_str).map(str::to_owned);
    Ok(UnverifiedToken {
        signed,
        signature,
        claims,
        algorithm: algorithm.ok_or(TokenRefusal::Algorithm)?,
        key_id,
        issuer: issuer.ok_or(TokenRefusal::Claim("iss"))?,
    })
}

/// Whether the registered parameters of a header are of their types.
fn has_types(header: &Map<String, Value>) -> bool {
    let is_or_absent = |name: &str, is: fn(&Value) -> bool| {
        header.get(name).is_none_or(|value| value.is_null() || is(value))
    };
    let is_texts =
        |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    TEXT_PARAMETERS.iter().all(|name| is_or_absent(name, Value::is_string))
        && is_or_absent("jwk", Value::is_object)
        && is_or_absent("x5c", is_texts)
}

fn object(text: &str) -> Result<Map<String, Value>, TokenRefusal> {
    let read = serde_json::from_slice(&bytes(text)?).map(|StrictObject(fields)| fields);
    read.map_err(|_| TokenRefusal::Malformed)
}

fn bytes(text: &str) -> Result<Vec<u8>, TokenRefusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenRefusal::Malformed)
}

impl UnverifiedToken<'_> {
    /// What the token claims, when this key proves that its issuer says so.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(super) fn verify(self, key: &PublicKey) -> Result<Claims, TokenRefusal> {
        let Self { signed, signature, claims, algorithm, key_id: _, issuer: _ } = self;
        // The key was found by its algorithm; nothing may verify by another.
        if key.verifying.algorithm() != algorithm {
            return Err(TokenRefusal::Key);
        }
        key.verifying.verify(signed.as_bytes(), &bytes(signature)?)?;
        Ok(Claims(claims))
    }
}
