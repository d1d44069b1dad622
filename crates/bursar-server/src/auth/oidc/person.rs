//! Whom a token proves, and why it proves nobody.

use bursar_core::{TenantId, Timestamp};

use super::refusal::TokenRefusal;
use crate::auth::access::Role;

/// A person of a tenant, as an issuer's token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub tenant_id: TenantId,
    /// Who they are to their issuer.
    pub subject: String,
    pub issuer: String,
    /// What they may.
    pub role: Role,
    /// From when on their token proves nothing more.
    pub expires_at: Timestamp,
}

/// Why a token proves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonError {
    /// It is refused.
    #[error("The token is refused: {0}.")]
    Refused(#[from] TokenRefusal),
    /// Its issuer does not say what its keys are.
    #[error("The keys of the token's issuer cannot be fetched.")]
    KeysUnavailable,
}
