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
mod stock;
mod stored_bytes;
mod table;
mod usage;

use std::sync::Arc;

use axum::http::Method;
use bursar_core::{ClockState, Decision, Dimension, ProtectionDecision};
use bursar_store::{Cache, DecisionKind, Facts, Observer, Store, StoreError, Taken, Took, Waiting};
use bytes::Bytes;
use prometheus::{Registry, TextEncoder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failed_logins::FailedLogin;

pub use self::http::Counted;
pub use self::table::{Kind, METRICS, Metric};
use self::{
    clock::ClockMetrics, http::HttpMetrics, ledger::LedgerMetrics, process::ProcessMetrics,
    stock::StockMetrics, usage::UsageText,
};

/// Answers that are read at once: each holds its beginning, of less than a megabyte.
const READERS_MAX: usize = 16;

/// The metrics of an app.
pub struct Metrics {
    registry: Registry,
    clock: ClockMetrics,
    http: HttpMetrics,
    ledger: LedgerMetrics,
    process: ProcessMetrics,
    stock: StockMetrics,
    readers: Arc<Semaphore>,
}

/// The text of the metrics, part by part.
pub struct MetricsText {
    head: Option<Bytes>,
    usage: UsageText,
    _place: OwnedSemaphorePermit,
}

impl Iterator for MetricsText {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.head.take().or_else(|| self.usage.next())
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
            stock: StockMetrics::new(&registry)?,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            registry,
        })
    }

    /// The metrics as text (Prometheus text format 0.0.4), with what waits for the writer now and
    /// how the clock stands; nothing when too many others are reading it.
    ///
    /// The text is made as it is taken: whoever takes it slowly holds little memory. Its beginning
    /// takes some milliseconds: not for a thread that has requests to answer.
    ///
    /// # Errors
    /// When a family cannot be written, which the text format has no reason for.
    pub fn render(
        &self,
        waiting: Waiting,
        clock: &ClockState,
    ) -> prometheus::Result<Option<MetricsText>> {
        let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() else { return Ok(None) };
        self.clock.see(clock);
        self.ledger.see(waiting);
        self.process.see();
        let usage = self.ledger.usage_text();
        let head = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        Ok(Some(MetricsText { head: Some(head.into()), usage, _place: place }))
    }

    /// The label sets of tenants and models.
    pub fn label_sets(&self) -> &dyn Cache {
        self.ledger.label_sets()
    }

    /// Reads the gauges that come from the store.
    ///
    /// # Errors
    /// [`StoreError`]; the gauges keep what they said.
    pub async fn read_stock(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.stock.read(store).await
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
    fn taken(&self, taken: Taken) {
        self.ledger.taken(taken);
    }

    fn committed(&self, took: Took) {
        self.ledger.committed(took);
    }

    fn written(&self, facts: &Facts<'_>) {
        self.ledger.written(facts);
    }

    fn failed(&self, error: &StoreError) {
        self.ledger.failed(error);
    }
}
