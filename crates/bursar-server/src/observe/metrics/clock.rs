//! Metrics of Bursar's time and the clock, updated when metrics are read.

use bursar_core::ClockState;
use prometheus::{IntGauge, Registry, Result};

use super::table;

/// The gauges of the clock.
pub(super) struct ClockMetrics {
    refuses: IntGauge,
    ahead: IntGauge,
}

impl ClockMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            refuses: table::CLOCK_REFUSES.gauge(registry)?,
            ahead: table::CLOCK_AHEAD.gauge(registry)?,
        })
    }

    pub(super) fn refresh(&self, state: &ClockState) {
        self.refuses.set(i64::from(state.adopted_in_seconds.is_some()));
        self.ahead.set(state.ahead_seconds());
    }
}
