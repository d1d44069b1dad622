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
        "Usage records that were stored as entries.";
    CALLS_FAILED = Counter "bursar_calls_failed_total" ["tenant_id", "provider", "model"]
        "Stored usage records that have an error code.";
    CALLS_BLOCKED = Counter "bursar_calls_blocked_total" ["tenant_id", "provider", "model"]
        "Stored usage records with the policy_result blocked.";
    CALLS_UNPRICED = Counter "bursar_calls_unpriced_total" ["tenant_id", "provider", "model"]
        "Stored usage records with an unknown cost. They add nothing to the cost.";
    TOKENS_IN = Counter "bursar_tokens_in_total" ["tenant_id", "provider", "model"]
        "Prompt tokens.";
    TOKENS_OUT = Counter "bursar_tokens_out_total" ["tenant_id", "provider", "model"]
        "Response tokens.";
    TOKENS_CACHE_READ = Counter "bursar_tokens_cache_read_total" ["tenant_id", "provider", "model"]
        "Prompt tokens that were read from a cache, a part of bursar_tokens_in_total.";
    TOKENS_CACHE_WRITE = Counter
        "bursar_tokens_cache_write_total" ["tenant_id", "provider", "model"]
        "Prompt tokens that were written to a cache, a part of bursar_tokens_in_total.";
    TOKENS_REASONING = Counter "bursar_tokens_reasoning_total" ["tenant_id", "provider", "model"]
        "Reasoning tokens, a part of bursar_tokens_out_total.";
    COST = Counter "bursar_cost_nanodollars_total" ["tenant_id", "provider", "model"]
        "Cost of the stored entries in nano-dollars (1e-9 USD), without negative corrections.";
    COST_BY_SOURCE = Counter "bursar_cost_by_source_nanodollars_total" ["cost_source"]
        "Cost of the stored entries in nano-dollars by its source: reported, computed or held.";
    STORED_BYTES = Counter "bursar_stored_bytes_total" ["tenant_id"]
        "Stored bytes of usage records, as limits.stored_bytes_per_day counts them. The 1,000 \
         tenants that stored something last have their own series; all others share `other`.";
    RESERVATION_CHANGES = Counter "bursar_reservation_changes_total" ["change"]
        "Changes of reservations: made, extended, settled, released or expired.";
    EXPIRED_WITHOUT_RECORD = Counter "bursar_expired_without_record_total" []
        "Reservations that expired without a usage record. Their budget is free again, although \
         the calls may have cost money: the record was refused, was never sent, or is late.";
    EXPIRED_WITHOUT_RECORD_COST = Counter "bursar_expired_without_record_nanodollars_total" []
        "Amounts held by reservations that expired without a usage record, in nano-dollars.";
    DECISIONS = Counter "bursar_decisions_total" ["kind", "result", "reason"]
        "Decisions of checks and new reservations, by their first reason.";
    PROTECTION = Counter "bursar_protection_decisions_total" ["dimension", "action"]
        "Actions of protection on requests above a threshold: warn, throttle or reject.";
    BUDGET_USED = Gauge "bursar_budget_used_ratio" ["tenant_id", "integration_id"]
        "Money used and held this month divided by the budget, of the 1,000 nearest to a limit.";
    TOKENS_USED = Gauge "bursar_tokens_used_ratio" ["tenant_id", "integration_id"]
        "Tokens used and held this month divided by their limit, of the 1,000 nearest to a limit.";
    RESERVATIONS_OPEN = Gauge "bursar_reservations_open" []
        "Open reservations.";
    TENANTS = Gauge "bursar_tenants" []
        "Tenants in every state.";
    DATABASE_BYTES = Gauge "bursar_database_bytes" ["file"]
        "Size of the store on disk: the data, and the write-ahead log.";
    LOG_KEPT = Gauge "bursar_log_kept" []
        "1 if the write-ahead log is not copied to the data file until a restart, else 0.";
    STORE_READ_AT = Gauge "bursar_stock_read_timestamp_seconds" []
        "When the gauges of the store were last read, in seconds since 1970.";
    CLOCK_REFUSES = Gauge "bursar_clock_refuses" []
        "1 while writes and decisions are refused because the clock jumped forward, else 0.";
    CLOCK_AHEAD = Gauge "bursar_clock_ahead_seconds" []
        "Seconds that the clock is ahead of Bursar's time. Negative if it is behind.";
    GROUP_COMMANDS = Histogram "bursar_group_commands" []
        "Commands in each group that the writer took from the queue.";
    QUEUE_WAIT = Histogram "bursar_queue_wait_seconds" []
        "Time that the oldest command of each group waited in the queue.";
    TRANSACTION = Histogram "bursar_transaction_seconds" []
        "Duration of durable transactions, from their begin to the end of the commit.";
    COMMIT = Histogram "bursar_commit_seconds" []
        "Duration of commits of durable transactions, which is mostly the sync of the disk.";
    WRITE_FAILURES = Counter "bursar_write_failures_total" ["kind"]
        "Failed transactions by cause: unavailable, not_writable, again, statement, exists, \
         overflow, panicked or corrupt.";
    QUEUE_JOBS = Gauge "bursar_queue_jobs" []
        "Requests waiting for the writer. A batch counts once.";
    QUEUE_COMMANDS = Gauge "bursar_queue_commands" []
        "Commands waiting for the writer. Each record of a batch counts.";
    QUEUE_BYTES = Gauge "bursar_queue_bytes" []
        "Approximate memory of the commands waiting for the writer.";
    QUEUE_LIMIT = Gauge "bursar_queue_limit_bytes" []
        "Memory that waiting commands may take. Above it, writes are refused.";
    LABEL_SETS = Gauge "bursar_label_sets" []
        "Label sets of tenants and models in memory.";
    LABEL_SETS_FORGOTTEN = Counter "bursar_label_sets_forgotten_total" ["reason"]
        "Label sets that were dropped: aged, crowded or cleared.";
    SERIES_LEFT_OUT = Gauge "bursar_series_left_out" ["metric"]
        "Series of a metric that are left out because the response would be too large.";
    HTTP_REQUESTS = Counter "bursar_http_requests_total" ["route", "method", "status"]
        "Requests by status. The status is `none` if the client disconnected before the response.";
    HTTP_SECONDS = Histogram "bursar_http_request_seconds" ["route"]
        "Duration of requests, from the request head to the response head.";
    HTTP_IN_FLIGHT = Gauge "bursar_http_requests_in_flight" []
        "Requests in progress.";
    HTTP_ERRORS = Counter "bursar_http_errors_total" ["code"]
        "Error responses by their code in docs/api.md.";
    FAILED_LOGINS = Counter "bursar_failed_logins_total" ["kind"]
        "Requests with a refused credential, by its kind, or that name another tenant.";
    LOG_DROPPED = Counter "bursar_log_lines_dropped_total" []
        "Log lines that were dropped because the output did not accept them.";
    BUILD_INFO = Gauge "bursar_build_info" ["version"]
        "Always 1. The label is the version of the server.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the server started, in seconds since 1970.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "CPU time of the process, user and system.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" []
        "Resident memory of the process.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
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
