//! What the rotation of a key of either kind is asked with.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::wire::body::{SMALL, Text};
use crate::wire::error::ApiError;

/// For how long the old key goes on when nothing is said: an hour.
const OVERLAP_SECONDS_DEFAULT: u32 = 3_600;
/// And at most: a week.
const OVERLAP_SECONDS_MAX: u32 = 604_800;

/// How a key is rotated; the body may be absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotate {
    /// For how long the old key goes on; 0 revokes it at once.
    #[schema(minimum = 0, maximum = 604_800, default = 3_600)]
    overlap_seconds: Option<i64>,
}

impl KeyRotate {
    /// Reads the overlap from a body that may be absent.
    ///
    /// # Errors
    /// 400 and 422, as for every body.
    pub async fn overlap_seconds(body: Text<SMALL>) -> Result<u32, ApiError> {
        let rotate: Self = body.read_optional().await?;
        let asked = rotate.overlap_seconds.unwrap_or(OVERLAP_SECONDS_DEFAULT.into());
        let overlap = u32::try_from(asked).ok().filter(|asked| *asked <= OVERLAP_SECONDS_MAX);
        overlap.ok_or_else(|| {
            let problem = format!("must be between 0 and {OVERLAP_SECONDS_MAX}");
            ApiError::field("overlap_seconds", &problem)
        })
    }
}
