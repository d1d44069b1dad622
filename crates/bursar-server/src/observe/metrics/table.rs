//! Every metric with its name, type, labels and meaning. docs/operating.md has the same table.

use prometheus::{
    Counter, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result,
};

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name, with the unit last.
    pub name: &'static str,
    pub kind: MetricKind,
    /// The labels. Each has few values or is bounded.
    pub labels: &'static [&'static str],
    /// The meaning.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// The name of the type in Prometheus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $constant: Metric =
            Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help };)+

        /// Every metric, for the documentation.
        pub const METRICS: &[Metric] = &[$($constant,)+];
    };
}

metrics! {
    CALLS = Counter "bursar_calls_total" ["tenant_id", "provider", "model"]
        "Usage records that became entries since the start.";
    CALLS_FAILED = Counter "bursar_calls_failed_total" ["tenant_id", "provider", "model"]
        "Those of them that have an error code.";
    CALLS_BLOCKED = Counter "bursar_calls_blocked_total" ["tenant_id", "provider", "model"]
        "Those of them that their caller's policy blocked.";
    CALLS_UNPRICED = Counter "bursar_calls_unpriced_total" ["tenant_id", "provider", "model"]
        "Those of them whose cost nobody knows; they count no money.";
    TOKENS_IN = Counter "bursar_tokens_in_total" ["tenant_id", "provider", "model"]
        "Tokens of prompts.";
    TOKENS_OUT = Counter "bursar_tokens_out_total" ["tenant_id", "provider", "model"]
        "Tokens of answers.";
    TOKENS_CACHE_READ = Counter "bursar_tokens_cache_read_total" ["tenant_id", "provider", "model"]
        "Tokens of prompts that were read from a cache, a part of bursar_tokens_in_total.";
    TOKENS_CACHE_WRITE = Counter
        "bursar_tokens_cache_write_total" ["tenant_id", "provider", "model"]
        "Tokens of prompts that were written to a cache, a part of bursar_tokens_in_total.";
    TOKENS_REASONING = Counter "bursar_tokens_reasoning_total" ["tenant_id", "provider", "model"]
        "Tokens of reasoning, a part of bursar_tokens_out_total.";
    COST = Counter "bursar_cost_nanodollars_total" ["tenant_id", "provider", "model"]
        "What the entries count, in nano-dollars (1e-9 USD); corrections below zero are left out.";
    COST_BY_SOURCE = Counter "bursar_cost_by_source_nanodollars_total" ["cost_source"]
        "The same by whose figure counts: reported, computed or held.";
    STORED_BYTES = Counter "bursar_stored_bytes_total" ["tenant_id"]
        "Bytes of usage records that were stored, as limits.stored_bytes_per_day counts them, of the \
         1,000 tenants that stored something last; those of the others are added to `other`.";
    RESERVATION_CHANGES = Counter "bursar_reservation_changes_total" ["change"]
        "Reservations that were made, extended, settled, released or expired.";
    EXPIRED_WITHOUT_RECORD = Counter "bursar_expired_without_record_total" []
        "Reservations that expired without a record. Their budget is free again, although the calls \
         may have cost money: the record was refused, was never sent, or comes late.";
    EXPIRED_WITHOUT_RECORD_COST = Counter "bursar_expired_without_record_nanodollars_total" []
        "What those reservations held, in nano-dollars (1e-9 USD).";
    DECISIONS = Counter "bursar_decisions_total" ["kind", "result", "reason"]
        "Decisions of checks and new reservations, by the first of their reasons.";
    PROTECTION = Counter "bursar_protection_decisions_total" ["dimension", "action"]
        "What protection did to requests that met a threshold: warn, throttle or reject.";
    BUDGET_USED = Gauge "bursar_budget_used_ratio" ["tenant_id", "integration_id"]
        "Money used and held this month over the budget, of the 1,000 nearest to a limit.";
    TOKENS_USED = Gauge "bursar_tokens_used_ratio" ["tenant_id", "integration_id"]
        "Tokens used and held this month over the token limit, of the 1,000 nearest to a limit.";
    RESERVATIONS_OPEN = Gauge "bursar_reservations_open" []
        "Reservations that hold now.";
    TENANTS = Gauge "bursar_tenants" []
        "Tenants, whatever their lifecycle.";
    DATABASE_BYTES = Gauge "bursar_database_bytes" ["file"]
        "What the store takes on disk: the data, and the write-ahead log.";
    LOG_KEPT = Gauge "bursar_log_kept" []
        "1 while the data file does not get what is in its log, until a restart, else 0.";
    STORE_READ_AT = Gauge "bursar_stock_read_timestamp_seconds" []
        "When the gauges that come from the store were last read from it.";
    CLOCK_REFUSES = Gauge "bursar_clock_refuses" []
        "1 while writes and decisions are refused because the clock jumped forward, else 0.";
    CLOCK_AHEAD = Gauge "bursar_clock_ahead_seconds" []
        "How far the clock is ahead of Bursar's time; below zero it is behind.";
    GROUP_COMMANDS = Histogram "bursar_group_commands" []
        "Commands that the writer took from the queue in one go.";
    QUEUE_WAIT = Histogram "bursar_queue_wait_seconds" []
        "How long the oldest command of a group had waited in the queue.";
    TRANSACTION = Histogram "bursar_transaction_seconds" []
        "How long durable transactions took, from begin to the end of the commit.";
    COMMIT = Histogram "bursar_commit_seconds" []
        "How long their commits took, which is mostly the disk's sync.";
    WRITE_FAILURES = Counter "bursar_write_failures_total" ["kind"]
        "Transactions that failed: unavailable, not_writable, again, statement, exists, overflow, \
         panicked or corrupt.";
    QUEUE_JOBS = Gauge "bursar_queue_jobs" []
        "Requests that wait for the writer, a batch being one.";
    QUEUE_COMMANDS = Gauge "bursar_queue_commands" []
        "Commands that wait for the writer, each record of a batch being one.";
    QUEUE_BYTES = Gauge "bursar_queue_bytes" []
        "About how much memory they take.";
    QUEUE_LIMIT = Gauge "bursar_queue_limit_bytes" []
        "How much memory they may take before more is refused.";
    LABEL_SETS = Gauge "bursar_label_sets" []
        "Label sets of tenants and models that are kept.";
    LABEL_SETS_FORGOTTEN = Counter "bursar_label_sets_forgotten_total" ["reason"]
        "Label sets that were given up: aged, crowded or cleared.";
    SERIES_LEFT_OUT = Gauge "bursar_series_left_out" ["metric"]
        "Series of a metric that this answer leaves out, because it would be too large.";
    HTTP_REQUESTS = Counter "bursar_http_requests_total" ["route", "method", "status"]
        "Requests that were answered; status is `none` when the client went away before.";
    HTTP_SECONDS = Histogram "bursar_http_request_seconds" ["route"]
        "How long requests took, from their head to the head of the answer.";
    HTTP_IN_FLIGHT = Gauge "bursar_http_requests_in_flight" []
        "Requests that are being answered.";
    HTTP_ERRORS = Counter "bursar_http_errors_total" ["code"]
        "Failures by their code, as docs/api.md lists them.";
    FAILED_LOGINS = Counter "bursar_failed_logins_total" ["kind"]
        "Requests whose credential proves nobody, by its kind, or that name another tenant.";
    LOG_DROPPED = Counter "bursar_log_lines_dropped_total" []
        "Lines of the log that were dropped because its output did not take them.";
    BUILD_INFO = Gauge "bursar_build_info" ["version"]
        "Always 1, with the version of the server.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the server started, in seconds since 1970.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "Processor time that the process has used.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in use.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "File descriptors that are open.";
}

impl Metric {
    fn options(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    pub(super) fn counters(&self, registry: &Registry) -> Result<IntCounterVec> {
        let metric = IntCounterVec::new(self.options(), self.labels)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&self, registry: &Registry) -> Result<Counter> {
        let metric = Counter::with_opts(self.options())?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn gauge(&self, registry: &Registry) -> Result<IntGauge> {
        let metric = IntGauge::with_opts(self.options())?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn gauges(&self, registry: &Registry) -> Result<IntGaugeVec> {
        let metric = IntGaugeVec::new(self.options(), self.labels)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Gauges of ratios, which are not registered.
    pub(super) fn ratios(&self) -> Result<GaugeVec> {
        GaugeVec::new(self.options(), self.labels)
    }

    pub(super) fn histogram(&self, registry: &Registry, bounds: &[f64]) -> Result<Histogram> {
        let options = HistogramOpts::from(self.options()).buckets(bounds.to_vec());
        let metric = Histogram::with_opts(options)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn histograms(&self, registry: &Registry, bounds: &[f64]) -> Result<HistogramVec> {
        let options = HistogramOpts::from(self.options()).buckets(bounds.to_vec());
        let metric = HistogramVec::new(options, self.labels)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_every_metric_and_no_other() {
        let documents = include_str!("../../../../../docs/operating.md");
        for Metric { name, kind, labels, help } in METRICS {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let row = format!("| `{name}` | {} | {} | {help} |", kind.as_str(), labels.join(", "));
            assert!(documents.contains(&row), "docs/operating.md lacks the row\n{row}");
        }
        let rows = documents
            .lines()
            .filter(|line| line.starts_with("| `bursar_") || line.starts_with("| `process_"));
        assert_eq!(rows.count(), METRICS.len(), "the documents have a metric that is gone");
    }
}
