//! Parsing of a token: the header and claims are read before the signature verifies them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::jwk::PublicKey;
use super::refusal::TokenRefusal;
use super::signature::Algorithm;
use super::strict_json::StrictObject;

/// The longest token in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Registered header parameters that are strings (RFC 7515, 7516 and 8555).
///
/// Bursar uses none of them. One of another type shows that the token is malformed.
const TEXT_PARAMETERS: [&str; 10] =
    ["typ", "cty", "jku", "x5u", "x5t", "x5t#S256", "enc", "zip", "url", "nonce"];

/// A token that was parsed but not verified. Do not trust its fields yet.
pub(super) struct UnverifiedToken<'a> {
    /// The signed text: header and claims.
    signed: &'a str,
    signature: &'a str,
    claims: Map<String, Value>,
    /// The algorithm that the header names.
    pub(super) algorithm: Algorithm,
    /// The key id that the header names.
    pub(super) key_id: Option<String>,
    /// The issuer that the claims name.
    pub(super) issuer: String,
}

/// Parses what is needed to find the key.
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

/// Whether registered header parameters have their proper types.
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
    /// The claims, once this key has verified the signature.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(super) fn verify(self, key: &PublicKey) -> Result<Claims, TokenRefusal> {
        let Self { signed, signature, claims, algorithm, key_id: _, issuer: _ } = self;
        // The key was looked up by its algorithm; verify with no other.
        if key.verifying.algorithm() != algorithm {
            return Err(TokenRefusal::Key);
        }
        key.verifying.verify(signed.as_bytes(), &bytes(signature)?)?;
        Ok(Claims(claims))
    }
}
