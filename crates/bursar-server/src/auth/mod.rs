//! Authentication and authorization.

pub mod access;
pub mod authenticator;
pub mod authorize;
pub mod caller;
pub mod failed_logins;
pub mod key_cache;
pub mod oidc;
pub mod onboarding;
pub mod scopes;
pub mod secret;
