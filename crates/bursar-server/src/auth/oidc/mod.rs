//! People of tenants, who prove themselves with the token of an issuer that the operator trusts.
//!
//! A token is read (token.rs), its issuer is found among those that were configured (issuers.rs),
//! its key among those that the issuer publishes (jwks_cache.rs, jwk.rs), its signature is verified
//! (signature.rs), and only then what it claims is looked at (claims.rs). An issuer that was not
//! configured is never asked anything. Deliberately absent: sessions, and signing.

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
pub use issuers::IssuerConfig;
pub(crate) use issuers::read_issuers;
use jwks_cache::{JwksCache, KeyNotFound};
pub use person::{Person, PersonError};
pub use refusal::TokenRefusal;

/// The issuers that are trusted.
#[derive(Default)]
pub struct Issuers(HashMap<String, Issuer>);

struct Issuer {
    config: IssuerConfig,
    keys: Arc<JwksCache>,
}

impl Issuers {
    /// Trusts these, and asks them through this client.
    pub fn new(configs: Vec<IssuerConfig>, outbound: Outbound) -> Self {
        let outbound = Arc::new(outbound);
        let trusted = configs.into_iter().map(|config| {
            let (name, keys_at) = (config.issuer.clone(), config.keys_at.clone());
            let keys = JwksCache::new(name.clone(), keys_at, Arc::clone(&outbound));
            (name, Issuer { config, keys: Arc::new(keys) })
        });
        Self(trusted.collect())
    }

    /// Fetches the keys of all issuers, so that the log of the start tells of one that does not
    /// answer and the first person does not wait.
    pub async fn fetch_keys(&self, now: Timestamp) {
        join_all(self.0.values().map(|issuer| issuer.keys.fetch_first(now))).await;
    }

    /// Who a token proves, at this instant.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn prove(&self, token: &str, now: Timestamp) -> Result<Person, PersonError> {
        let unverified = token::read(token)?;
        let issuer = self.0.get(&unverified.issuer).ok_or(TokenRefusal::Issuer)?;
        let key_id = unverified.key_id.as_deref();
        let found = issuer.keys.find(key_id, unverified.algorithm, now).await;
        let key = found.map_err(|error| match error {
            KeyNotFound::Unknown => PersonError::Refused(TokenRefusal::Key),
            KeyNotFound::Unavailable => PersonError::KeysUnavailable,
        })?;
        Ok(unverified.verify(&key)?.person(&issuer.config, now)?)
    }
}
