//! Authentication and authorization.

pub mod access;
pub(crate) mod authenticator;
pub mod authorize;
pub(crate) mod caller;
pub(crate) mod failed_logins;
pub(crate) mod key_cache;
pub mod oidc;
pub(crate) mod onboarding;
pub(crate) mod scopes;
pub mod secret;
