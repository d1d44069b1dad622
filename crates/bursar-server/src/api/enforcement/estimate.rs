//! What questions and reservations have in common: an integration, named or implied, and an
//! estimate.

use bursar_core::{Estimate, IntegrationId, Nanos, ParseIdError};
use serde_json::value::RawValue;

use crate::wire::error::ApiError;

/// An amount in cents, read exactly from the text of the JSON number.
///
/// # Errors
/// 422 on the field.
pub fn check_cents(field: &str, number: &RawValue) -> Result<Nanos, ApiError> {
    Nanos::from_cents_text(number.get()).map_err(|error| ApiError::field(field, &error.to_string()))
}

/// The integration that is asked about; nothing for one that cannot be the caller's, which
/// answers like an unknown one.
///
/// # Errors
/// 422 when it is missing or no UUID.
pub fn asked_integration(
    named: Option<&str>,
    only: Option<IntegrationId>,
) -> Result<Option<IntegrationId>, ApiError> {
    let asked = match named.map(IntegrationId::parse) {
        None => Some(only.ok_or_else(|| ApiError::field("integration_id", "is required"))?),
        Some(Ok(id)) => Some(id),
        Some(Err(ParseIdError::Unknown)) => None,
        Some(Err(ParseIdError::NotUuid)) => {
            return Err(ApiError::field("integration_id", "must be a UUID"));
        }
    };
    Ok(asked.filter(|asked| only.is_none_or(|only| only == *asked)))
}

/// Reads an estimate; what is not given is zero.
///
/// # Errors
/// 422 on the field that is wrong.
pub fn check_estimate(cost: Option<&RawValue>, tokens: Option<i64>) -> Result<Estimate, ApiError> {
    let cost = cost.map(|text| check_cents("estimated_cost_cents", text)).transpose()?;
    Ok(Estimate::new(cost.unwrap_or(Nanos::ZERO), tokens.unwrap_or(0))?)
}
