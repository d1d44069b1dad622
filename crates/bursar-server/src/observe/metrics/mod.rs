//! The metrics of this server in the Prometheus format.
//!
//! Every app has its own registry. Every family is bounded, and none contains a call id, a person's
//! name or a secret. Reading the metrics reads atomics and waits neither for the writer nor for the
//! store.

mod clock;
mod http;
mod labels;
mod ledger;
mod process;
mod readers;
mod store_stats;
mod stored_bytes;
mod table;
mod usage;

use std::sync::Arc;

use axum::http::Method;
use bursar_core::{ClockState, Decision, Dimension, ProtectionDecision};
use bursar_store::{
    Cache, DecisionKind, Dequeued, Facts, Observer, Store, StoreError, TransactionTiming, Waiting,
};
use bytes::Bytes;
use prometheus::{Registry, TextEncoder};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::auth::failed_logins::FailedLogin;

pub(crate) use self::http::Counted;
pub(crate) use self::readers::MetricsReader;
pub use self::table::{METRICS, Metric, MetricKind};
use self::{
    clock::ClockMetrics, http::HttpMetrics, ledger::LedgerMetrics, process::ProcessMetrics,
    readers::Readers, store_stats::StoreStatsMetrics, usage::UsageText,
};

/// The texts whose start is rendered at the same time.
const RENDERS_MAX: usize = 2;
/// The bytes of the start that are sent at once.
const PART_BYTES: usize = 64 * 1024;

/// The metrics of an app.
pub struct Metrics {
    registry: Registry,
    clock: ClockMetrics,
    http: HttpMetrics,
    ledger: LedgerMetrics,
    process: ProcessMetrics,
    store_stats: StoreStatsMetrics,
    readers: Readers<MetricsText>,
    renders: Arc<Semaphore>,
}

/// The text of the metrics, part by part.
pub(crate) struct MetricsText {
    head: Bytes,
    usage: UsageText,
}

impl Iterator for MetricsText {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.head.is_empty() {
            return self.usage.next();
        }
        let part = self.head.split_to(self.head.len().min(PART_BYTES));
        // A copy, so that a part in flight does not keep the whole text.
        Some(Bytes::copy_from_slice(&part))
    }
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// If the table of metrics is malformed.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        Ok(Self {
            clock: ClockMetrics::new(&registry)?,
            http: HttpMetrics::new(&registry)?,
            ledger: LedgerMetrics::new(&registry)?,
            process: ProcessMetrics::new(&registry)?,
            store_stats: StoreStatsMetrics::new(&registry)?,
            readers: Readers::default(),
            renders: Arc::new(Semaphore::new(RENDERS_MAX)),
            registry,
        })
    }

    /// Waits for permission to render. Each earlier render takes some milliseconds.
    ///
    /// # Errors
    /// None: the semaphore is never closed.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.renders).acquire_owned().await
    }

    /// Renders the metrics (Prometheus text format 0.0.4), with the current queue and clock.
    ///
    /// The caller must hold a [turn](Self::turn). Usage is rendered while it is read, so a slow
    /// reader holds little memory. If there are too many readers, the one that has read nothing for
    /// longest is cut. The start takes some milliseconds: do not call this on a thread that answers
    /// requests.
    ///
    /// # Errors
    /// If a family cannot be encoded, which does not happen with the text format.
    pub(crate) fn render(
        &self,
        turn: OwnedSemaphorePermit,
        waiting: Waiting,
        clock: &ClockState,
    ) -> prometheus::Result<MetricsReader<MetricsText>> {
        self.clock.refresh(clock);
        self.ledger.refresh(waiting);
        self.process.refresh();
        let usage = self.ledger.usage_text();
        let head = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        let reading = self.readers.begin(MetricsText { head: head.into(), usage });
        drop(turn);
        Ok(reading)
    }

    /// The label sets whose number depends on tenants.
    pub(crate) fn caches(&self) -> [&dyn Cache; 2] {
        self.ledger.caches()
    }

    /// Updates the gauges that come from the store.
    ///
    /// # Errors
    /// [`StoreError`]. The gauges keep their values.
    pub async fn read_store_stats(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.store_stats.read(store).await
    }

    pub(crate) fn decided(&self, kind: DecisionKind, decision: &Decision) {
        self.http.decided(kind, decision);
    }

    /// Counts an action of protection.
    pub(crate) fn protected(&self, dimension: Dimension, decision: &ProtectionDecision) {
        self.http.protected(dimension, decision);
    }

    /// Counts a failed login.
    pub(crate) fn failed_login(&self, kind: FailedLogin) {
        self.http.failed_login(kind);
    }

    /// Starts to count a request. `route` is a template and never a path.
    pub(crate) fn begin<'m>(&'m self, route: &'m str, method: &Method) -> Counted<'m> {
        self.http.begin(route, method)
    }
}

impl Observer for Metrics {
    fn dequeued(&self, dequeued: Dequeued) {
        self.ledger.dequeued(dequeued);
    }

    fn committed(&self, timing: TransactionTiming) {
        self.ledger.committed(timing);
    }

    fn written(&self, facts: &Facts<'_>) {
        self.ledger.written(facts);
    }

    fn failed(&self, error: &StoreError) {
        self.ledger.failed(error);
    }
}
