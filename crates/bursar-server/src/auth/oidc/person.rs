//! The person that a token authenticates, and why a token is rejected.

use bursar_core::{TenantId, Timestamp};

use super::refusal::TokenRefusal;
use crate::auth::access::Role;

/// A person of a tenant, as authenticated by an issuer's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub tenant_id: TenantId,
    /// The subject (`sub`) at the issuer.
    pub subject: String,
    pub issuer: String,
    pub role: Role,
    /// When the token expires.
    pub expires_at: Timestamp,
}

/// Why a token authenticates no one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonError {
    /// The token is refused.
    #[error("The token was refused: {0}.")]
    Refused(#[from] TokenRefusal),
    /// The issuer's keys are not available.
    #[error("The keys of the token's issuer cannot be fetched. Try again later.")]
    KeysUnavailable,
}
