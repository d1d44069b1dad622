//! Issuers of tokens on this machine, and what they sign with.

pub mod issuer;
pub mod rsa_key;
pub mod signer;
