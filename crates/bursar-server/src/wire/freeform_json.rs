//! The free-form objects in requests: `config` of an integration and `metadata` of a record.

use std::net::Ipv6Addr;

use axum::http::Uri;
use axum::http::uri::Authority;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::credentials::raw_key;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::json_object::JsonObject;

const EMPTY: &str = "{}";

/// A validated configuration.
#[derive(Debug)]
pub struct ConfigObject {
    /// The rewritten object.
    pub text: String,
    /// The scheme, host and port of `base_url`, if present.
    pub origin: Option<String>,
}

impl Default for ConfigObject {
    fn default() -> Self {
        Self { text: EMPTY.to_owned(), origin: None }
    }
}

/// Validates the configuration of an integration.
///
/// # Errors
/// 422 on `config` or on the field in it that is wrong. The value is never quoted.
pub fn check_config(config: &RawValue) -> Result<ConfigObject, ApiError> {
    let config = check("config", config, raw_key::find_secret)?;
    if let Some(place) = config.duplicate_key() {
        return Err(ApiError::field(format!("config{place}"), "must be given once"));
    }
    let origin = match config.value().get("base_url") {
        None | Some(Value::Null) => None,
        Some(Value::String(url)) => Some(origin(url)?),
        Some(_) => return Err(ApiError::field("config.base_url", "must be a URL")),
    };
    // Lower-casing the host can make it look like a key.
    let has_key = origin.as_deref().is_some_and(raw_key::contains_key);
    refuse_secret("config", has_key.then(|| ".base_url".to_owned()))?;
    Ok(ConfigObject { text: config.into_text(), origin })
}

/// Validates the metadata of a record. Returns its text unless it is empty.
///
/// A duplicate name is no reason to lose a record: the last value is stored.
///
/// # Errors
/// 422 on `metadata` or on the field in it that is wrong. The value is never quoted.
pub fn check_metadata(metadata: Option<&RawValue>) -> Result<Option<Box<str>>, ApiError> {
    let Some(metadata) = metadata.filter(|metadata| metadata.get() != EMPTY) else {
        return Ok(None);
    };
    let text = check("metadata", metadata, raw_key::find_key)?.into_text();
    Ok((text != EMPTY).then(|| text.into()))
}

/// Rewrites an object, and validates the rewritten form.
fn check(
    field: &str,
    sent: &RawValue,
    find_secret: impl FnOnce(&Value) -> Option<String>,
) -> Result<JsonObject, ApiError> {
    let object = JsonObject::parse(sent).map_err(|problem| ApiError::field(field, problem))?;
    if object.text().contains("\\u0000") && contains_nul(object.value()) {
        return Err(ApiError::field(field, "must not contain the character NUL"));
    }
    refuse_secret(field, find_secret(object.value()))?;
    Ok(object)
}

fn refuse_secret(field: &str, found: Option<String>) -> Result<(), ApiError> {
    match found {
        None => Ok(()),
        Some(place) => {
            let problem = "looks like a secret, which must not be stored; send a reference instead";
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

/// The scheme, host and explicit port of a URL.
fn origin(url: &str) -> Result<String, ApiError> {
    let wrong = || {
        ApiError::field(
            "config.base_url",
            "must be an http or https URL without a user and a password",
        )
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

/// A host in canonical form. URL parsers accept more forms, and differ on them.
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

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    #[test]
    fn free_objects_are_bounded_and_keep_no_secret() {
        let config = |text: &str| check_config(&raw(text));
        assert!(config(r#"{"base_url":"https://a","x":[1]}"#).is_ok());
        assert!(config("[]").is_err());
        assert!(config("null").is_err());
        assert!(config(r#"{"password":"hunter2"}"#).is_err());
        let metadata = |text: &str| check_metadata(Some(&raw(text)));
        assert!(matches!(metadata("{}"), Ok(None)));
        assert!(matches!(metadata("{ }"), Ok(None)));
        assert!(matches!(metadata(r#"{"a":1}"#), Ok(Some(_))));
        assert!(metadata(r#"{"a":"\u0000"}"#).is_err());
        assert!(matches!(metadata(r#"{"a":"\\u0000"}"#), Ok(Some(_))), "a text about it");
        assert!(metadata(r#""text""#).is_err());
        assert!(metadata(&format!(r#"{{"a":"{}"}}"#, "x".repeat(32 * 1024))).is_err());
        let bomb = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(metadata(&bomb).is_err());
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_in_a_configuration_and_resolved_in_metadata() {
        let sent = raw(r#"{ "x": [{ "a": "sk-proj-abcdefghijklmnopqrst", "\u0061": "y" }] }"#);
        let refused = check_config(&sent).expect_err("it is ambiguous");
        assert_eq!(refused.message(), "config.x[0].a must be given once");
        let stored = check_metadata(Some(&sent)).expect("a fact");
        assert_eq!(stored.as_deref(), Some(r#"{"x":[{"a":"y"}]}"#));
    }

    #[test]
    fn a_key_is_found_whatever_escapes_it_is_written_with() {
        for text in [
            r#"{"a":"\u0073k-proj-abcdefghijklmnopqrst"}"#,
            r#"{"\u0073\u006b-proj-abcdefghijklmnopqrst":1}"#,
            r#"{"a":"\nsk-proj-abcdefghijklmnopqrst"}"#,
            r#"{"a":"sk-pro\u006a-abcdefghijklmnopqrst","b":"\\"}"#,
        ] {
            assert!(check_metadata(Some(&raw(text))).is_err(), "{text}");
            assert!(check_config(&raw(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_letter_of_an_escape_makes_a_key_neither_of_what_comes_nor_of_what_is_stored() {
        for text in [
            r#"{"a":"\u0008ur_operator_0123456789abcdef0123456789abcdef"}"#,
            r#"{"a":"x\nvapi-abcdefghijklmnopqrst"}"#,
            r#"{"a":"x\r8_abcdefghijklmnopqrstabcdefghijklmnopqrst"}"#,
            r#"{"a":"x\fw_abcdefghijklmnopqrstabcdefghijklmnopqrst"}"#,
            r#"{"\u0008ur_secret_0123456789abcdef0123456789abcdef":1}"#,
        ] {
            let stored = check_metadata(Some(&raw(text))).expect("a fact").expect("not empty");
            assert!(!raw_key::contains_key(&stored), "{stored}");
            let config = check_config(&raw(text)).expect("no key");
            assert!(!raw_key::contains_key(&config.text), "{}", config.text);
        }
    }

    #[test]
    fn an_origin_that_looks_like_a_key_in_small_letters_is_refused() {
        let key = format!("bur_operator_{}", "0123456789ABCDEF".repeat(3));
        let config = serde_json::json!({ "base_url": format!("https://{key}.example.com") });
        assert!(check_config(&raw(&config.to_string())).is_err());
    }
}
