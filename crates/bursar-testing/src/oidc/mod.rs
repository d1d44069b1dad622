//! OIDC issuers on this machine, and their keys.

pub mod issuer;
pub mod rsa_key;
pub mod signer;
