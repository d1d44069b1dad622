//! People of tenants, who prove themselves with the token of an issuer that the operator trusts.
//!
//! A token is read (token.rs), its issuer is found among those that were configured (issuers.rs),
//! its key among those that the issuer publishes (jwks_cache.rs, jwk.rs), its signature is verified
//! (signature.rs), and only then what it claims is looked at (claims.rs). An issuer that was not
//! configured is never asked anything. Deliberately absent: sessions, and signing.

mod claims;
mod issuers;
pub(crate) mod jwk;
pub(crate) mod jwks_cache;
mod signature;
pub(crate) mod strict_json;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{TenantId, Timestamp};
use futures_util::future::join_all;

use crate::auth::access::Role;
use crate::http::outbound::Outbound;
pub use issuers::IssuerConfig;
pub(crate) use issuers::read_issuers;
use jwks_cache::{HeldKeys, NoKey};

/// A person of a tenant, as an issuer's token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their tenant.
    pub tenant_id: TenantId,
    /// Who they are to their issuer.
    pub subject: String,
    /// Their issuer.
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
    Refused(#[from] Refusal),
    /// Its issuer does not say what its keys are.
    #[error("The keys of the token's issuer cannot be fetched.")]
    KeysUnavailable,
}

/// What is wrong with a token, in words for whoever presents it. They quote nothing of it, and
/// tell nothing of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not a token, or one that says two things.
    #[error("it is not a signed token of three parts and at most 8 KiB")]
    Malformed,
    /// It is signed in another way, or not at all.
    #[error("its algorithm is none of RS256, ES256 and EdDSA")]
    Algorithm,
    /// It must be understood in a way that nobody does here.
    #[error("it has a critical header (crit)")]
    Critical,
    /// Nobody here trusts its issuer.
    #[error("its issuer (iss) is not trusted here")]
    Issuer,
    /// Its key is not there, or not for its algorithm.
    #[error("its key (kid) is none of its issuer's")]
    Key,
    /// It was changed, or signed by someone else.
    #[error("its signature is wrong")]
    Signature,
    /// It is for someone else.
    #[error("it is meant for someone else (aud)")]
    Audience,
    /// Its time is over.
    #[error("it has expired (exp)")]
    Expired,
    /// Its time has not come.
    #[error("it is not good yet (nbf)")]
    NotYet,
    /// It is good for too long.
    #[error("it is good for longer than {0} seconds (exp, iat), which this server does not take")]
    Lifetime(u32),
    /// Its person is named like a key, and names are kept.
    #[error("its subject (sub) looks like a key, and no key is kept as a name")]
    Subject,
    /// A claim is not what it has to be.
    #[error("its claim {0} is missing or not of its type")]
    Claim(&'static str),
    /// It does not say what its person may.
    #[error("it names no role")]
    Role,
    /// It names no tenant, or one that its issuer does not speak for.
    #[error("it names no tenant that its issuer speaks for")]
    Tenant,
}

/// The issuers that are trusted.
#[derive(Default)]
pub struct Issuers(HashMap<String, Issuer>);

struct Issuer {
    config: IssuerConfig,
    keys: Arc<HeldKeys>,
}

impl Issuers {
    /// Trusts these, and asks them through this client.
    pub fn new(configs: Vec<IssuerConfig>, outbound: Outbound) -> Self {
        signature::use_ring();
        let outbound = Arc::new(outbound);
        let trusted = configs.into_iter().map(|config| {
            let (name, keys_at) = (config.issuer.clone(), config.keys_at.clone());
            let keys = HeldKeys::new(name.clone(), keys_at, Arc::clone(&outbound));
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
        let presented = token::read(token)?;
        let issuer = self.0.get(&presented.issuer).ok_or(Refusal::Issuer)?;
        let key_id = presented.key_id.as_deref();
        let found = issuer.keys.find(key_id, presented.algorithm, now).await;
        let key = found.map_err(|error| match error {
            NoKey::Unknown => PersonError::Refused(Refusal::Key),
            NoKey::Unavailable => PersonError::KeysUnavailable,
        })?;
        Ok(presented.proved_by(&key)?.person(&issuer.config, now)?)
    }
}
