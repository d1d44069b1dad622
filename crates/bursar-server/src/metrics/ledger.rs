//! What the writer tells: usage once it is durable, and what writing took.

use bursar_store::{Facts, HoldFacts, Observer, Rollup, StoreError, Taken, Took, Waiting};
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounterVec, IntGauge, Registry, Result};

use super::labels::LabelSets;
use super::table;

/// From half a millisecond, a fast disk's sync, to where callers have given up.
const WRITE_BOUNDS_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// Up to a full group and beyond it, for a last batch fills more than its part.
const GROUP_BOUNDS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];

/// The metrics of the write path.
pub(super) struct LedgerMetrics {
    sets: Mutex<LabelSets>,
    calls: IntCounterVec,
    calls_failed: IntCounterVec,
    calls_blocked: IntCounterVec,
    calls_unpriced: IntCounterVec,
    tokens_in: IntCounterVec,
    tokens_out: IntCounterVec,
    tokens_cache_read: IntCounterVec,
    tokens_cache_write: IntCounterVec,
    tokens_reasoning: IntCounterVec,
    cost: IntCounterVec,
    cost_by_source: IntCounterVec,
    reservation_changes: IntCounterVec,
    group_commands: Histogram,
    queue_wait: Histogram,
    transaction: Histogram,
    commit: Histogram,
    write_failures: IntCounterVec,
    queue_jobs: IntGauge,
    queue_commands: IntGauge,
    queue_bytes: IntGauge,
    queue_limit: IntGauge,
}

impl LedgerMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            sets: Mutex::default(),
            calls: table::CALLS.counters(registry)?,
            calls_failed: table::CALLS_FAILED.counters(registry)?,
            calls_blocked: table::CALLS_BLOCKED.counters(registry)?,
            calls_unpriced: table::CALLS_UNPRICED.counters(registry)?,
            tokens_in: table::TOKENS_IN.counters(registry)?,
            tokens_out: table::TOKENS_OUT.counters(registry)?,
            tokens_cache_read: table::TOKENS_CACHE_READ.counters(registry)?,
            tokens_cache_write: table::TOKENS_CACHE_WRITE.counters(registry)?,
            tokens_reasoning: table::TOKENS_REASONING.counters(registry)?,
            cost: table::COST.counters(registry)?,
            cost_by_source: table::COST_BY_SOURCE.counters(registry)?,
            reservation_changes: table::RESERVATION_CHANGES.counters(registry)?,
            group_commands: table::GROUP_COMMANDS.histogram(registry, GROUP_BOUNDS)?,
            queue_wait: table::QUEUE_WAIT.histogram(registry, WRITE_BOUNDS_SECONDS)?,
            transaction: table::TRANSACTION.histogram(registry, WRITE_BOUNDS_SECONDS)?,
            commit: table::COMMIT.histogram(registry, WRITE_BOUNDS_SECONDS)?,
            write_failures: table::WRITE_FAILURES.counters(registry)?,
            queue_jobs: table::QUEUE_JOBS.gauge(registry)?,
            queue_commands: table::QUEUE_COMMANDS.gauge(registry)?,
            queue_bytes: table::QUEUE_BYTES.gauge(registry)?,
            queue_limit: table::QUEUE_LIMIT.gauge(registry)?,
        })
    }

    /// Takes over what waits, which is looked at when the metrics are.
    pub(super) fn see(&self, waiting: Waiting) {
        let Waiting { jobs, commands, bytes, bytes_max } = waiting;
        let figure = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        self.queue_jobs.set(figure(jobs));
        self.queue_commands.set(figure(commands));
        self.queue_bytes.set(figure(bytes));
        self.queue_limit.set(figure(bytes_max));
    }

    fn count(&self, labels: [&str; 3], sums: &Rollup) {
        // The first three are there for every model, so that rates can be divided by each other;
        // the others only where there is something to count.
        for (family, more) in [
            (&self.calls, sums.calls),
            (&self.calls_failed, sums.errors),
            (&self.cost, sums.cost_nanos),
        ] {
            add(family, &labels, more);
        }
        for (family, more) in [
            (&self.calls_blocked, sums.blocked),
            (&self.calls_unpriced, sums.unpriced),
            (&self.tokens_in, sums.tokens_in),
            (&self.tokens_out, sums.tokens_out),
            (&self.tokens_cache_read, sums.tokens_cache_read),
            (&self.tokens_cache_write, sums.tokens_cache_write),
            (&self.tokens_reasoning, sums.tokens_reasoning),
        ] {
            if more > 0 {
                add(family, &labels, more);
            }
        }
    }
}

impl Observer for LedgerMetrics {
    fn taken(&self, Taken { commands, waited }: Taken) {
        self.group_commands.observe(commands as f64);
        self.queue_wait.observe(waited.as_secs_f64());
    }

    fn committed(&self, Took { transaction, commit }: Took) {
        self.transaction.observe(transaction.as_secs_f64());
        self.commit.observe(commit.as_secs_f64());
    }

    fn written(&self, facts: &Facts<'_>) {
        let mut sets = self.sets.lock();
        for (key, sums) in &facts.models {
            self.count(sets.place(*key), sums);
        }
        for (source, nanos) in facts.costs.iter().filter(|(_, nanos)| *nanos > 0) {
            add(&self.cost_by_source, &[source.as_str()], nanos);
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
    }

    fn failed(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Again(_) => "again",
            StoreError::Statement(_) => "statement",
            StoreError::Exists(_) => "exists",
            StoreError::Corrupt(_) => "corrupt",
            // A transaction never says these; they are about the queue.
            StoreError::Overloaded | StoreError::Closed => "queue",
        };
        self.write_failures.with_label_values(&[kind]).inc();
    }
}

fn add(family: &IntCounterVec, labels: &[&str], more: i64) {
    // What is below zero was left out before.
    family.with_label_values(labels).inc_by(u64::try_from(more).unwrap_or(0));
}
