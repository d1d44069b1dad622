//! What can be measured of this server, in the form of Prometheus.
//!
//! A registry of its own for every app; every family is bounded, and none has a call id, a name of
//! a person or a secret in it. Looking at the metrics reads atomics: it waits neither for the
//! writer nor for the store.

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

pub use self::http::Counted;
pub use self::readers::{MetricsReader, ReaderEvicted};
pub use self::table::{METRICS, Metric, MetricKind};
use self::{
    clock::ClockMetrics, http::HttpMetrics, ledger::LedgerMetrics, process::ProcessMetrics,
    readers::Readers, store_stats::StoreStatsMetrics, usage::UsageText,
};

/// Texts whose beginning is made at once.
const RENDERS_MAX: usize = 2;
/// How much of the beginning is handed over at once.
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
pub struct MetricsText {
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
        // A copy, so that a part which is on its way does not keep the whole.
        Some(Bytes::copy_from_slice(&part))
    }
}

impl Metrics {
    /// All metrics, at nothing.
    ///
    /// # Errors
    /// When the table of metrics is not well formed.
    pub fn new() -> prometheus::Result<Self> {
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

    /// Waits until a further text may be made, which takes some milliseconds for each of those that
    /// came before.
    ///
    /// # Errors
    /// None: the turns are never closed.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.renders).acquire_owned().await
    }

    /// The metrics as text (Prometheus text format 0.0.4), with what waits for the writer now and
    /// how the clock stands, for whoever has a [turn](Self::turn).
    ///
    /// The text is made as it is taken: whoever takes it slowly holds little memory. When many read
    /// it, the one that has taken nothing for the longest is cut. Its beginning takes some
    /// milliseconds: not for a thread that has requests to answer.
    ///
    /// # Errors
    /// When a family cannot be written, which the text format has no reason for.
    pub fn render(
        &self,
        turn: OwnedSemaphorePermit,
        waiting: Waiting,
        clock: &ClockState,
    ) -> prometheus::Result<MetricsReader<MetricsText>> {
        self.clock.see(clock);
        self.ledger.see(waiting);
        self.process.see();
        let usage = self.ledger.usage_text();
        let head = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        let reading = self.readers.begin(MetricsText { head: head.into(), usage });
        drop(turn);
        Ok(reading)
    }

    /// The label sets that tenants make grow.
    pub fn caches(&self) -> [&dyn Cache; 2] {
        self.ledger.caches()
    }

    /// Reads the gauges that come from the store.
    ///
    /// # Errors
    /// [`StoreError`]; the gauges keep what they said.
    pub async fn read_store_stats(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.store_stats.read(store).await
    }

    /// Counts a decision.
    pub fn decided(&self, kind: DecisionKind, decision: &Decision) {
        self.http.decided(kind, decision);
    }

    /// Counts what protection did to a request.
    pub fn protected(&self, dimension: Dimension, decision: &ProtectionDecision) {
        self.http.protected(dimension, decision);
    }

    /// Counts a request whose credential proves nobody.
    pub fn failed_login(&self, kind: FailedLogin) {
        self.http.failed_login(kind);
    }

    /// Begins to count a request of a route, which is a template and never a path.
    pub fn begin<'m>(&'m self, route: &'m str, method: &Method) -> Counted<'m> {
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
