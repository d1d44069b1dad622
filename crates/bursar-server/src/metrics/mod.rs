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
mod table;
mod usage;

use axum::http::Method;
use bursar_core::{ClockState, Decision, Dimension, ProtectionDecision};
use bursar_store::{DecisionKind, Facts, Observer, Store, StoreError, Taken, Took, Waiting};
use prometheus::{Registry, TextEncoder};

use crate::failed_logins::FailedLogin;

pub use self::http::Counted;
pub use self::table::{Kind, METRICS, Metric};
use self::{
    clock::ClockMetrics, http::HttpMetrics, ledger::LedgerMetrics, process::ProcessMetrics,
    stock::StockMetrics,
};

/// The metrics of an app.
pub struct Metrics {
    registry: Registry,
    clock: ClockMetrics,
    http: HttpMetrics,
    ledger: LedgerMetrics,
    process: ProcessMetrics,
    stock: StockMetrics,
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
            registry,
        })
    }

    /// The metrics as text (Prometheus text format 0.0.4), with what waits for the writer now and
    /// how the clock stands.
    ///
    /// With as many label sets as there can be it takes some milliseconds: not for a thread that
    /// has requests to answer.
    ///
    /// # Errors
    /// When a family cannot be written, which the text format has no reason for.
    pub fn render(&self, waiting: Waiting, clock: &ClockState) -> prometheus::Result<String> {
        self.clock.see(clock);
        self.ledger.see(waiting);
        self.process.see();
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        let written = self.ledger.render_usage(&mut text);
        written.map_err(|error| prometheus::Error::Msg(error.to_string()))?;
        Ok(text)
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
