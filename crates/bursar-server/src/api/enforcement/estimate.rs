//! The integration and the estimate that a check or a reservation names.

use bursar_core::{Estimate, IntegrationId, Nanos, ParseIdError};
use serde_json::value::RawValue;

use crate::wire::error::ApiError;
use crate::wire::numbers::{read_cents, read_tokens};

/// The integration of a request, or `None` for one that cannot be the caller's.
///
/// The handler answers `None` like an unknown integration.
///
/// # Errors
/// 422 when the integration is missing or is not a UUID.
pub(crate) fn asked_integration(
    named: Option<&str>,
    restricted_to: Option<IntegrationId>,
) -> Result<Option<IntegrationId>, ApiError> {
    let asked = match named.map(IntegrationId::parse) {
        None => {
            Some(restricted_to.ok_or_else(|| ApiError::field("integration_id", "is required"))?)
        }
        Some(Ok(id)) => Some(id),
        Some(Err(ParseIdError::Unknown)) => None,
        Some(Err(ParseIdError::NotUuid)) => {
            return Err(ApiError::field("integration_id", "must be a UUID"));
        }
    };
    Ok(asked.filter(|asked| restricted_to.is_none_or(|own| own == *asked)))
}

/// Reads an estimate. A missing value is zero.
///
/// # Errors
/// 422 on the wrong field.
pub(crate) fn check_estimate(
    cost: Option<&RawValue>,
    tokens: Option<&RawValue>,
) -> Result<Estimate, ApiError> {
    let cost = cost.map(|sent| read_cents("estimated_cost_cents", sent)).transpose()?;
    let tokens = tokens.map(|sent| read_tokens("estimated_tokens", sent)).transpose()?;
    Ok(Estimate::new(cost.unwrap_or(Nanos::ZERO), tokens.unwrap_or(0))?)
}
