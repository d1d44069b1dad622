//! The free objects of a request: `config` of an integration and `metadata` of a record.

use std::net::Ipv6Addr;

use axum::http::Uri;
use axum::http::uri::Authority;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{ApiError, ErrorCode};
use crate::raw_key;

/// The largest free object, as text.
const BYTES_MAX: usize = 32 * 1024;

/// A configuration that may be kept.
#[derive(Debug)]
pub struct ConfigObject {
    /// The object as text.
    pub text: String,
    /// Scheme, host and port of `base_url`, if there is one.
    pub origin: Option<String>,
}

impl Default for ConfigObject {
    fn default() -> Self {
        Self { text: "{}".to_owned(), origin: None }
    }
}

/// Checks the configuration of an integration.
///
/// # Errors
/// 422 on `config`, or on the place in it that is wrong; never with the value.
pub fn check_config(config: &Value) -> Result<ConfigObject, ApiError> {
    let Value::Object(fields) = config else {
        return Err(ApiError::field("config", "must be an object"));
    };
    let text = config.to_string();
    check_size("config", &text)?;
    if contains_nul(config) {
        return Err(ApiError::field("config", "must not contain the character NUL"));
    }
    refuse_secret("config", raw_key::find_secret(config))?;
    let origin = match fields.get("base_url") {
        None | Some(Value::Null) => None,
        Some(Value::String(url)) => Some(origin(url)?),
        Some(_) => return Err(ApiError::field("config.base_url", "must be a URL")),
    };
    // In small letters more looks like a key than in the letters that came.
    let has_key = origin.as_deref().is_some_and(raw_key::contains_key);
    refuse_secret("config", has_key.then(|| ".base_url".to_owned()))?;
    Ok(ConfigObject { text, origin })
}

/// Checks the metadata of a record, and gives its text unless it is empty.
///
/// # Errors
/// 422 on `metadata`, or on the place in it that is wrong; never with the value.
pub fn check_metadata(metadata: Option<&RawValue>) -> Result<Option<Box<str>>, ApiError> {
    let Some(metadata) = metadata else { return Ok(None) };
    let text = metadata.get();
    if text == "{}" {
        return Ok(None);
    }
    check_size("metadata", text)?;
    let value: Value = serde_json::from_str(text)
        .map_err(|_| ApiError::field("metadata", "must be JSON that is not nested too deeply"))?;
    let Value::Object(fields) = &value else {
        return Err(ApiError::field("metadata", "must be an object"));
    };
    if text.contains("\\u0000") && contains_nul(&value) {
        return Err(ApiError::field("metadata", "must not contain the character NUL"));
    }
    refuse_secret("metadata", raw_key::find_key(&value))?;
    Ok((!fields.is_empty()).then(|| Box::from(text)))
}

fn check_size(field: &str, text: &str) -> Result<(), ApiError> {
    if text.len() > BYTES_MAX {
        return Err(ApiError::field(field, "must have at most 32 KiB"));
    }
    Ok(())
}

fn refuse_secret(field: &str, found: Option<String>) -> Result<(), ApiError> {
    match found {
        None => Ok(()),
        Some(place) => {
            let problem = "looks like a secret; keep it as a credential and refer to it";
            Err(ApiError::of(ErrorCode::SecretRefused).on(format!("{field}{place}"), problem))
        }
    }
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(fields) => {
            fields.iter().any(|(key, item)| key.contains('\0') || contains_nul(item))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Scheme, host and port of a URL, the port always said.
fn origin(url: &str) -> Result<String, ApiError> {
    let wrong = || {
        ApiError::field("config.base_url", "must be an http or https URL without user and password")
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (scheme, port) = match uri.scheme_str() {
        Some("https") => ("https", "443"),
        Some("http") => ("http", "80"),
        Some(_) | None => return Err(wrong()),
    };
    let authority = uri.authority().map(Authority::as_str).ok_or_else(wrong)?;
    let end = authority.find(']').map_or(0, |end| end + 1);
    let (host, port) = match authority.get(end..).and_then(|rest| rest.split_once(':')) {
        Some((_, said)) => {
            (authority.strip_suffix(said).and_then(|host| host.strip_suffix(':')), said)
        }
        None => (Some(authority), port),
    };
    let host = host.and_then(read_host).ok_or_else(wrong)?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| is_number && *port > 0).ok_or_else(wrong)?;
    Ok(format!("{scheme}://{host}:{port}"))
}

/// A host in the one form in which hosts are compared. Readers of URLs take more, and differ on it.
fn read_host(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('[') {
        let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!text.is_empty() && text.bytes().all(is_plain)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(
            origin("https://API.example.com/v1?x=1").ok().as_deref(),
            Some("https://api.example.com:443")
        );
        assert_eq!(origin("http://[::1]:8000").ok().as_deref(), Some("http://[::1]:8000"));
        assert_eq!(origin("http://[::0:1]/").ok().as_deref(), Some("http://[::1]:80"));
        for wrong in ["ftp://a", "https://", "/v1", "https://user:pw@a", "a b", "javascript:1"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["a:", "a:0", "a:65536", "a:+1", "a:1:2", "a,b", "a[::1]", "[::1", "[::1]a", "[1]"]
        {
            assert!(origin(&format!("https://{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn free_objects_are_bounded_and_keep_no_secret() {
        let config = |text: &str| serde_json::from_str::<Value>(text).expect("json");
        assert!(check_config(&config(r#"{"base_url":"https://a","x":[1]}"#)).is_ok());
        assert!(check_config(&config("[]")).is_err());
        assert!(check_config(&config(r#"{"password":"hunter2"}"#)).is_err());
        let raw = |text: String| RawValue::from_string(text).expect("json");
        let metadata = |text: String| check_metadata(Some(&raw(text)));
        assert!(matches!(metadata("{}".to_owned()), Ok(None)));
        assert!(matches!(metadata("{ }".to_owned()), Ok(None)));
        assert!(matches!(metadata(r#"{"a":1}"#.to_owned()), Ok(Some(_))));
        assert!(metadata(r#"{"a":"\u0000"}"#.to_owned()).is_err());
        assert!(metadata(r#""text""#.to_owned()).is_err());
        assert!(metadata(format!(r#"{{"a":"{}"}}"#, "x".repeat(BYTES_MAX))).is_err());
        let bomb = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(metadata(bomb).is_err());
    }

    #[test]
    fn an_origin_that_looks_like_a_key_in_small_letters_is_refused() {
        let key = format!("bur_operator_{}", "0123456789ABCDEF".repeat(3));
        let config = serde_json::json!({ "base_url": format!("https://{key}.example.com") });
        assert!(check_config(&config).is_err());
    }
}
