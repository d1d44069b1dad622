//! Metrics of the writer: usage once it is durable, and the duration of writes.

use std::collections::BTreeMap;

use bursar_core::{IntegrationId, TenantId};
use bursar_store::{
    Cache, Dequeued, ExpiredHolds, Facts, HoldFacts, Observer, StoreError, TransactionTiming,
    Waiting,
};
use prometheus::{Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry, Result};

use super::labels::Forgotten;
use super::stored_bytes::StoredBytes;
use super::table;
use super::usage::{UsageMetrics, UsageText};
use crate::wire::format::usd;

/// From half a millisecond, the sync of a fast disk, to the point where callers have given up.
const WRITE_BOUNDS_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// Up to a full group and beyond it, because the last batch may exceed it.
const GROUP_BOUNDS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];

/// The kinds of failed transactions.
const FAILURES: &[&str] = &[
    "unavailable",
    "again",
    "statement",
    "exists",
    "overflow",
    "panicked",
    "not_writable",
    "corrupt",
];

/// The metrics of the write path.
pub(super) struct LedgerMetrics {
    usage: UsageMetrics,
    cost_by_source: IntCounterVec,
    stored_bytes: StoredBytes,
    reservation_changes: IntCounterVec,
    expired_without_record: IntCounterVec,
    expired_without_record_cost: IntCounterVec,
    group_commands: Histogram,
    queue_wait: Histogram,
    transaction: Histogram,
    commit: Histogram,
    write_failures: IntCounterVec,
    queue_jobs: IntGauge,
    queue_commands: IntGauge,
    queue_bytes: IntGauge,
    queue_limit: IntGauge,
    label_sets: IntGauge,
    label_sets_forgotten: IntCounterVec,
    series_left_out: IntGaugeVec,
}

impl LedgerMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let write_failures = table::WRITE_FAILURES.counters(registry)?;
        for kind in FAILURES {
            // Shown from the start, so that the first failure is an increase.
            write_failures.with_label_values(&[kind]);
        }
        let expired_without_record = table::EXPIRED_WITHOUT_RECORD.counters(registry)?;
        let expired_without_record_cost = table::EXPIRED_WITHOUT_RECORD_COST.counters(registry)?;
        for counter in [&expired_without_record, &expired_without_record_cost] {
            counter.with_label_values::<&str>(&[]);
        }
        Ok(Self {
            usage: UsageMetrics::default(),
            cost_by_source: table::COST_BY_SOURCE.counters(registry)?,
            stored_bytes: StoredBytes::new(registry)?,
            reservation_changes: table::RESERVATION_CHANGES.counters(registry)?,
            expired_without_record,
            expired_without_record_cost,
            group_commands: table::GROUP_COMMANDS.histogram(registry, GROUP_BOUNDS)?,
            queue_wait: table::QUEUE_WAIT.histogram(registry, WRITE_BOUNDS_SECONDS)?,
            transaction: table::TRANSACTION.histogram(registry, WRITE_BOUNDS_SECONDS)?,
            commit: table::COMMIT.histogram(registry, WRITE_BOUNDS_SECONDS)?,
            write_failures,
            queue_jobs: table::QUEUE_JOBS.gauge(registry)?,
            queue_commands: table::QUEUE_COMMANDS.gauge(registry)?,
            queue_bytes: table::QUEUE_BYTES.gauge(registry)?,
            queue_limit: table::QUEUE_LIMIT.gauge(registry)?,
            label_sets: table::LABEL_SETS.gauge(registry)?,
            label_sets_forgotten: table::LABEL_SETS_FORGOTTEN.counters(registry)?,
            series_left_out: table::SERIES_LEFT_OUT.gauges(registry)?,
        })
    }

    /// Updates the gauges of the queue, and drops old label sets. Called when metrics are read.
    pub(super) fn refresh(&self, waiting: Waiting) {
        self.stored_bytes.scrape();
        let Waiting { jobs, commands, bytes, bytes_max } = waiting;
        self.queue_jobs.set(gauge_value(jobs));
        self.queue_commands.set(gauge_value(commands));
        self.queue_bytes.set(gauge_value(bytes));
        self.queue_limit.set(gauge_value(bytes_max));
    }

    /// The text of the usage families, which are not in the registry.
    pub(super) fn usage_text(&self) -> UsageText {
        let (text, forgotten) = self.usage.text();
        let Forgotten { aged, crowded, cleared } = forgotten;
        for (reason, more) in [("aged", aged), ("crowded", crowded), ("cleared", cleared)] {
            self.label_sets_forgotten.with_label_values(&[reason]).inc_by(more);
        }
        self.label_sets.set(gauge_value(text.sets()));
        for (metric, series) in text.left_out() {
            self.series_left_out.with_label_values(&[metric]).set(gauge_value(series));
        }
        text
    }

    /// Counts holds that expired without a record, and logs them.
    fn expired(&self, expired: &BTreeMap<(TenantId, IntegrationId), ExpiredHolds>) {
        for ((tenant_id, integration_id), holds) in expired {
            let ExpiredHolds { holds, cost_nanos, tokens } = *holds;
            self.expired_without_record.with_label_values::<&str>(&[]).inc_by(holds);
            let cost = u64::try_from(cost_nanos).unwrap_or(0);
            self.expired_without_record_cost.with_label_values::<&str>(&[]).inc_by(cost);
            tracing::warn!(
                %tenant_id,
                %integration_id,
                holds,
                held_usd = usd(cost_nanos.into()),
                held_tokens = tokens,
                "reservations expired without a usage record: their held budget is free again"
            );
        }
    }

    /// The label sets of usage and of stored bytes.
    pub(super) fn caches(&self) -> [&dyn Cache; 2] {
        [&self.usage, &self.stored_bytes]
    }
}

fn gauge_value(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Observer for LedgerMetrics {
    fn dequeued(&self, Dequeued { commands, waited }: Dequeued) {
        self.group_commands.observe(commands as f64);
        self.queue_wait.observe(waited.as_secs_f64());
    }

    fn committed(&self, TransactionTiming { transaction, commit }: TransactionTiming) {
        self.transaction.observe(transaction.as_secs_f64());
        self.commit.observe(commit.as_secs_f64());
    }

    fn written(&self, facts: &Facts<'_>) {
        self.usage.count(facts);
        self.stored_bytes.count(&facts.bytes);
        for (source, nanos) in facts.costs.iter().filter(|(_, nanos)| *nanos > 0) {
            let nanos = u64::try_from(nanos).unwrap_or(0);
            self.cost_by_source.with_label_values(&[source.as_str()]).inc_by(nanos);
        }
        let HoldFacts { made, extended, settled, released, expired } = facts.holds;
        for (change, more) in [
            ("made", made),
            ("extended", extended),
            ("settled", settled),
            ("released", released),
            ("expired", expired),
        ] {
            self.reservation_changes.with_label_values(&[change]).inc_by(more);
        }
        self.expired(&facts.expired);
    }

    fn failed(&self, error: &StoreError) {
        // No transaction was tried.
        if matches!(error, StoreError::ClockJumped { .. }) {
            return;
        }
        let kind = match error {
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Retry(_) => "again",
            StoreError::Statement(_) => "statement",
            StoreError::Exists(_) => "exists",
            StoreError::TotalsOverflow(_) => "overflow",
            StoreError::Panicked => "panicked",
            StoreError::NotWritable { .. } => "not_writable",
            StoreError::Corrupt(_) => "corrupt",
            // A transaction never returns these; they concern the queue.
            StoreError::Overloaded
            | StoreError::ReadTooLarge
            | StoreError::Closed
            | StoreError::ClockJumped { .. } => "queue",
        };
        self.write_failures.with_label_values(&[kind]).inc();
    }
}
