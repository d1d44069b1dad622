//! The keys of an issuer as they are held here: fetched when they are needed, for a while.
//!
//! A key that an issuer takes back is refused after five minutes, unless the issuer does not
//! answer: then the last keys that it told go on for a day, so that its outage is not one of this
//! server. A token that names a key which is not held asks for a fetch, but not more often than
//! every ten seconds, however many such tokens come.

use std::sync::Arc;

use bursar_core::Timestamp;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::issuers::KeysAt;
use super::jwk::{JWKS_BYTES_MAX, Jwks, KeySet, PublicKey, TooManyKeys};
use super::signature::Algorithm;
use crate::http::outbound::{Outbound, OutboundError, WebUrl};
use crate::jobs::background::TaskFailed;

/// How long keys are used without looking for others.
const FRESH_SECONDS: u64 = 4 * 60;
/// How long keys are used without waiting for others.
const LIFE_SECONDS: u64 = 5 * 60;
/// How long keys are used while their issuer does not answer.
const OUTAGE_SECONDS: u64 = 24 * 3_600;
/// The shortest time between two fetches.
const FETCH_EVERY_SECONDS: u64 = 10;
/// The largest discovery document.
const DISCOVERY_BYTES_MAX: usize = 64 * 1024;

/// The keys of one issuer.
pub(super) struct JwksCache {
    issuer: String,
    keys_at: KeysAt,
    outbound: Arc<Outbound>,
    held: RwLock<CachedKeys>,
    /// Locked by the task that fetches.
    fetching: Arc<Mutex<()>>,
}

/// What is known, and since when.
#[derive(Clone, Default)]
struct CachedKeys {
    keys: KeySet,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    /// Whether the last try failed.
    has_failed: bool,
}

/// What can be done with what is held.
enum Age {
    Fresh,
    /// Used, while others are fetched.
    Ageing,
    /// Not used before it was tried to fetch others.
    Over,
}

/// Why a token's key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyNotFound {
    /// The issuer has no such key.
    Unknown,
    /// The issuer does not answer.
    Unavailable,
}

/// Why keys cannot be fetched, in words for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0} cannot be read")]
    Outbound(String, #[source] OutboundError),
    #[error("{0} is of another issuer")]
    OtherIssuer(String),
    #[error("jwks_uri {0}")]
    JwksUrl(&'static str),
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
}

/// What is read of an issuer's discovery document.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl CachedKeys {
    fn age(&self, now: Timestamp) -> Age {
        let Some(fetched_at) = self.fetched_at else { return Age::Over };
        match seconds_between(fetched_at, now) {
            0..FRESH_SECONDS => Age::Fresh,
            FRESH_SECONDS..LIFE_SECONDS => Age::Ageing,
            LIFE_SECONDS..OUTAGE_SECONDS if self.has_failed => Age::Ageing,
            LIFE_SECONDS.. => Age::Over,
        }
    }

    fn may_fetch(&self, now: Timestamp) -> bool {
        self.tried_at.is_none_or(|tried_at| seconds_between(tried_at, now) >= FETCH_EVERY_SECONDS)
    }

    fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Option<Arc<PublicKey>> {
        let held_for = seconds_between(self.fetched_at?, now);
        if held_for >= OUTAGE_SECONDS {
            return None;
        }
        self.keys.find(id, algorithm)
    }
}

/// Whole seconds between two instants, whichever is first: clocks may be set back.
fn seconds_between(one: Timestamp, other: Timestamp) -> u64 {
    one.micros().abs_diff(other.micros()) / 1_000_000
}

impl JwksCache {
    pub(super) fn new(issuer: String, keys_at: KeysAt, outbound: Arc<Outbound>) -> Self {
        let (held, fetching) = (RwLock::default(), Arc::default());
        Self { issuer, keys_at, outbound, held, fetching }
    }

    /// Fetches, unless it was done a moment ago.
    pub(super) async fn fetch_first(self: &Arc<Self>, now: Timestamp) {
        let _ = self.fetch_or_wait(now).await;
    }

    /// The key that a token names.
    ///
    /// # Errors
    /// [`KeyNotFound`].
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Arc<PublicKey>, KeyNotFound> {
        let held = self.held.read().clone();
        let held = match held.age(now) {
            Age::Fresh => held,
            Age::Ageing => {
                self.fetch_in_background(now);
                held
            }
            Age::Over => self.fetch_or_wait(now).await,
        };
        if let Some(key) = held.find(id, algorithm, now) {
            return Ok(key);
        }
        // The issuer may have a new one.
        let held = self.fetch_or_wait(now).await;
        let missing = if held.has_failed { KeyNotFound::Unavailable } else { KeyNotFound::Unknown };
        held.find(id, algorithm, now).ok_or(missing)
    }

    /// What is held after a fetch, which one of all who wait for it has made.
    async fn fetch_or_wait(self: &Arc<Self>, now: Timestamp) -> CachedKeys {
        let fetching = Arc::clone(&self.fetching).lock_owned().await;
        if self.held.read().may_fetch(now) {
            // In a task of its own: a client that goes away ends nothing that others wait for.
            let fetched = tokio::spawn(Arc::clone(self).fetch(now, fetching)).await;
            if let Err(error) = fetched.map_err(TaskFailed::from) {
                tracing::error!(%error, "the keys of an issuer were not fetched");
            }
        }
        self.held.read().clone()
    }

    /// Fetches while nobody waits, unless someone does it already.
    fn fetch_in_background(self: &Arc<Self>, now: Timestamp) {
        let Ok(fetching) = Arc::clone(&self.fetching).try_lock_owned() else { return };
        if self.held.read().may_fetch(now) {
            tokio::spawn(Arc::clone(self).fetch(now, fetching));
        }
    }

    async fn fetch(self: Arc<Self>, now: Timestamp, fetching: OwnedMutexGuard<()>) {
        let fetched = self.ask().await;
        let mut held = self.held.write();
        let had_failed = held.has_failed;
        held.tried_at = Some(now);
        held.has_failed = fetched.is_err();
        match fetched {
            Ok(keys) => {
                let (issuer, count) = (&self.issuer, keys.len());
                if held.fetched_at.is_none() || had_failed {
                    tracing::info!(issuer, keys = count, "the keys of an issuer were fetched");
                } else if count == 0 {
                    tracing::warn!(issuer, "an issuer has no key that can be used");
                }
                held.keys = keys;
                held.fetched_at = Some(now);
            }
            // Told once, not at every try.
            Err(error) if !had_failed => {
                let error = &error as &dyn std::error::Error;
                let issuer = &self.issuer;
                tracing::warn!(issuer, error, "the keys of an issuer cannot be fetched");
            }
            Err(_) => {}
        }
        drop(held);
        drop(fetching);
    }

    async fn ask(&self) -> Result<KeySet, FetchError> {
        let url = match &self.keys_at {
            KeysAt::Jwks(url) => url.clone(),
            KeysAt::Discovery(url) => self.discover(url).await?,
        };
        let jwks: Jwks = self.get(&url, JWKS_BYTES_MAX).await?;
        Ok(KeySet::of(jwks)?)
    }

    async fn discover(&self, url: &WebUrl) -> Result<WebUrl, FetchError> {
        let Discovery { issuer, jwks_uri } = self.get(url, DISCOVERY_BYTES_MAX).await?;
        if issuer != self.issuer {
            return Err(FetchError::OtherIssuer(url.shown().to_owned()));
        }
        let found = WebUrl::parse(&jwks_uri).map_err(FetchError::JwksUrl)?;
        if url.is_tls() && !found.is_tls() {
            return Err(FetchError::JwksUrl("must be https, as the issuer is"));
        }
        Ok(found)
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        url: &WebUrl,
        bytes_max: usize,
    ) -> Result<T, FetchError> {
        let got = self.outbound.get_json(url, bytes_max).await;
        got.map_err(|error| FetchError::Outbound(url.shown().to_owned(), error))
    }
}
