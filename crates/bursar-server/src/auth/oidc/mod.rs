//! Authentication of people by the tokens of OpenID Connect issuers.
//!
//! A token is parsed (token.rs), its issuer is looked up in the configuration (issuers.rs) and its
//! key among the issuer's keys (jwks_cache.rs, jwk.rs). Its claims (claims.rs) are read only after
//! the signature was verified (signature.rs). No request goes to an issuer that is not configured.
//! Deliberately absent: sessions, and signing.

mod claims;
mod issuers;
mod jwk;
mod jwks_cache;
mod person;
mod refusal;
mod signature;
mod strict_json;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::Timestamp;
use futures_util::future::join_all;

use crate::http::outbound::Outbound;
use issuers::IssuerConfig;
pub use issuers::IssuerList;
use jwks_cache::{JwksCache, KeyNotFound};
pub use person::{Person, PersonError};
pub use refusal::TokenRefusal;

/// The trusted issuers.
#[derive(Default)]
pub struct Issuers {
    trusted: HashMap<String, Issuer>,
    /// How long a token may be valid.
    token_seconds_max: u32,
}

struct Issuer {
    config: IssuerConfig,
    keys: Arc<JwksCache>,
}

impl Issuers {
    /// Trusts these and their tokens of at most this lifetime, and asks them through this client.
    pub fn new(issuers: IssuerList, token_seconds_max: u32, outbound: Outbound) -> Self {
        let outbound = Arc::new(outbound);
        let trusted = issuers.into_configs().into_iter().map(|config| {
            let (name, keys_at) = (config.issuer.clone(), config.keys_at.clone());
            let keys = JwksCache::new(name.clone(), keys_at, Arc::clone(&outbound));
            (name, Issuer { config, keys: Arc::new(keys) })
        });
        Self { trusted: trusted.collect(), token_seconds_max }
    }

    /// Fetches the keys of all issuers.
    ///
    /// At startup this logs an issuer that does not answer, and spares the first person the wait.
    pub async fn fetch_keys(&self, now: Timestamp) {
        join_all(self.trusted.values().map(|issuer| issuer.keys.fetch_first(now))).await;
    }

    /// Verifies a token and returns its person.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn prove(&self, token: &str, now: Timestamp) -> Result<Person, PersonError> {
        let unverified = token::read(token)?;
        let issuer = self.trusted.get(&unverified.issuer).ok_or(TokenRefusal::Issuer)?;
        let key_id = unverified.key_id.as_deref();
        let found = issuer.keys.find(key_id, unverified.algorithm, now).await;
        let key = found.map_err(|error| match error {
            KeyNotFound::Unknown => PersonError::Refused(TokenRefusal::Key),
            KeyNotFound::Unavailable => PersonError::KeysUnavailable,
        })?;
        let claims = unverified.verify(&key)?;
        Ok(claims.person(&issuer.config, self.token_seconds_max, now)?)
    }
}
