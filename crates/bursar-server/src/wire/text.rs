//! Validation of texts of the control plane.

use crate::credentials::raw_key;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Checks a name: 1 to 255 characters, no control characters, not a key.
///
/// # Errors
/// 422 on the field.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    check_text(field, name, 255)
}

/// Checks a text of 1 to `chars_max` characters.
///
/// # Errors
/// 422 on the field.
pub(crate) fn check_text(field: &str, text: &str, chars_max: usize) -> Result<(), ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::field(field, "must not be empty"));
    }
    if text.chars().count() > chars_max {
        let problem = format!("must have at most {chars_max} characters");
        return Err(ApiError::field(field, &problem));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::field(field, "must not contain control characters"));
    }
    refuse_key(field, text)
}

/// Refuses a text that looks like a key, because it would be stored and shown.
///
/// # Errors
/// 422 on the field.
pub(crate) fn refuse_key(field: &str, text: &str) -> Result<(), ApiError> {
    if raw_key::contains_key(text) {
        let problem = "looks like a raw key, which must not be stored here";
        return Err(ApiError::of(ErrorCode::SecretRefused).on(field, problem));
    }
    Ok(())
}
