//! The cached keys of an issuer, fetched on demand.
//!
//! A key that the issuer withdraws is refused after five minutes. If the issuer does not answer,
//! the last keys stay valid for a day, so that its outage does not become an outage of this server.
//! A token with an unknown key id triggers a fetch, at most every ten seconds however many such
//! tokens arrive.

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

/// The age up to which keys are used without a refresh.
const FRESH_SECONDS: u64 = 4 * 60;
/// The age from which a request waits for a refresh.
const LIFE_SECONDS: u64 = 5 * 60;
/// The age up to which keys are used while the issuer does not answer.
const OUTAGE_SECONDS: u64 = 24 * 3_600;
/// The shortest time between two fetches.
const FETCH_EVERY_SECONDS: u64 = 10;
/// The largest discovery document in bytes.
const DISCOVERY_BYTES_MAX: usize = 64 * 1024;

/// The keys of one issuer.
pub(super) struct JwksCache {
    issuer: String,
    keys_at: KeysAt,
    outbound: Arc<Outbound>,
    cached: RwLock<CachedKeys>,
    /// Held by the task that fetches.
    fetching: Arc<Mutex<()>>,
}

/// The cached keys and their age.
#[derive(Clone, Default)]
struct CachedKeys {
    keys: KeySet,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    /// Whether the last fetch failed.
    has_failed: bool,
}

/// How old the cached keys are.
enum Age {
    Fresh,
    /// Usable, while a refresh runs in the background.
    Stale,
    /// Usable only if a refresh fails.
    Expired,
}

/// Why the key of a token was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyNotFound {
    /// The issuer has no such key.
    Unknown,
    /// The issuer does not answer.
    Unavailable,
}

/// Why keys could not be fetched, for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0} cannot be read")]
    Outbound(String, #[source] OutboundError),
    #[error("{0} names another issuer than the configured one")]
    OtherIssuer(String),
    #[error("jwks_uri {0}")]
    JwksUrl(&'static str),
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
}

/// The field of the discovery document that is read.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl CachedKeys {
    fn age(&self, now: Timestamp) -> Age {
        let Some(fetched_at) = self.fetched_at else { return Age::Expired };
        match seconds_between(fetched_at, now) {
            0..FRESH_SECONDS => Age::Fresh,
            FRESH_SECONDS..LIFE_SECONDS => Age::Stale,
            LIFE_SECONDS..OUTAGE_SECONDS if self.has_failed => Age::Stale,
            LIFE_SECONDS.. => Age::Expired,
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
        let age_seconds = seconds_between(self.fetched_at?, now);
        if age_seconds >= OUTAGE_SECONDS {
            return None;
        }
        self.keys.find(id, algorithm)
    }
}

/// The seconds between two times in either order: a clock may be set back.
fn seconds_between(one: Timestamp, other: Timestamp) -> u64 {
    one.micros().abs_diff(other.micros()) / 1_000_000
}

impl JwksCache {
    pub(super) fn new(issuer: String, keys_at: KeysAt, outbound: Arc<Outbound>) -> Self {
        let (cached, fetching) = (RwLock::default(), Arc::default());
        Self { issuer, keys_at, outbound, cached, fetching }
    }

    /// Fetches the keys unless that happened a moment ago.
    pub(super) async fn fetch_first(self: &Arc<Self>, now: Timestamp) {
        let _ = self.fetch_or_wait(now).await;
    }

    /// Finds the key that a token refers to.
    ///
    /// # Errors
    /// [`KeyNotFound`].
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Arc<PublicKey>, KeyNotFound> {
        let cached = self.cached.read().clone();
        let cached = match cached.age(now) {
            Age::Fresh => cached,
            Age::Stale => {
                self.fetch_in_background(now);
                cached
            }
            Age::Expired => self.fetch_or_wait(now).await,
        };
        if let Some(key) = cached.find(id, algorithm, now) {
            return Ok(key);
        }
        // The issuer may have published a new key.
        let cached = self.fetch_or_wait(now).await;
        let missing =
            if cached.has_failed { KeyNotFound::Unavailable } else { KeyNotFound::Unknown };
        cached.find(id, algorithm, now).ok_or(missing)
    }

    /// The cached keys after a fetch. Concurrent callers share one fetch.
    async fn fetch_or_wait(self: &Arc<Self>, now: Timestamp) -> CachedKeys {
        let fetching = Arc::clone(&self.fetching).lock_owned().await;
        if self.cached.read().may_fetch(now) {
            // A separate task: a client that disconnects must not cancel a fetch others wait for.
            let fetched = tokio::spawn(Arc::clone(self).fetch(now, fetching)).await;
            if let Err(error) = fetched.map_err(TaskFailed::from) {
                tracing::error!(%error, "a fetch of an issuer's keys failed");
            }
        }
        self.cached.read().clone()
    }

    /// Starts a fetch in the background unless one is running.
    fn fetch_in_background(self: &Arc<Self>, now: Timestamp) {
        let Ok(fetching) = Arc::clone(&self.fetching).try_lock_owned() else { return };
        if self.cached.read().may_fetch(now) {
            tokio::spawn(Arc::clone(self).fetch(now, fetching));
        }
    }

    async fn fetch(self: Arc<Self>, now: Timestamp, fetching: OwnedMutexGuard<()>) {
        let fetched = self.ask().await;
        let mut cached = self.cached.write();
        let had_failed = cached.has_failed;
        cached.tried_at = Some(now);
        cached.has_failed = fetched.is_err();
        match fetched {
            Ok(keys) => {
                let (issuer, count) = (&self.issuer, keys.len());
                if cached.fetched_at.is_none() || had_failed {
                    tracing::info!(issuer, keys = count, "an issuer's keys were fetched");
                } else if count == 0 {
                    tracing::warn!(
                        issuer,
                        "an issuer has no usable key, so its tokens are refused"
                    );
                }
                cached.keys = keys;
                cached.fetched_at = Some(now);
            }
            // Logged once, not at every attempt.
            Err(error) if !had_failed => {
                let error = &error as &dyn std::error::Error;
                let issuer = &self.issuer;
                tracing::warn!(
                    issuer,
                    error,
                    "an issuer's keys cannot be fetched; keys fetched earlier stay in use for a day"
                );
            }
            Err(_) => {}
        }
        drop(cached);
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
            return Err(FetchError::JwksUrl("must be an https URL, because the issuer is one"));
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
