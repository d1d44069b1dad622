//! The quiet tenant: ten requests a second, each of which must succeed in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::{Value, json};

use crate::overload::support::percentile;

/// How often it asks.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Requests of which the median is taken.
const SAMPLES: usize = 40;

/// A client that does one thing after another: it reserves, records what it reserved, and checks.
pub(crate) struct Quiet {
    http: Http,
    integration: String,
    asked: usize,
}

/// How long its requests took, sorted.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn percent(&self, percent: usize) -> Duration {
        percentile(&self.0, percent)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// A quiet client at work on a thread of its own.
pub(crate) struct AtWork {
    end: Arc<AtomicBool>,
    thread: JoinHandle<(Quiet, Latencies)>,
}

impl Quiet {
    pub(crate) fn new(tenant: &Tenant, server: &Server, integration: &str) -> Self {
        Self { http: tenant.client(server), integration: integration.to_owned(), asked: 0 }
    }

    /// The median of some requests, one after another without a pause.
    pub(crate) fn median(&mut self) -> Duration {
        let mut took: Vec<Duration> = (0..SAMPLES).map(|_| self.ask()).collect();
        took.sort_unstable();
        percentile(&took, 50)
    }

    /// Asks ten times a second until it is told to end.
    pub(crate) fn work(mut self) -> AtWork {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            let mut due = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due += ASK_EVERY;
                took.push(self.ask());
            }
            took.sort_unstable();
            (self, Latencies(took))
        });
        AtWork { end, thread }
    }

    /// The next request, which must succeed at the first try.
    fn ask(&mut self) -> Duration {
        let call_id = format!("quiet-{}", self.asked / 3);
        let (path, body, expected) = match self.asked % 3 {
            0 => ("enforcement/reservations", self.reservation(&call_id), 201),
            1 => ("telemetry/llm-usage", self.record(&call_id), 201),
            _ => ("enforcement/check", json!({ "integration_id": self.integration }), 200),
        };
        let asked = Instant::now();
        let answer = self.http.post(&format!("/api/v1/{path}"), &body);
        let took = asked.elapsed();
        let answer = answer.expect("the quiet tenant is answered");
        assert_eq!(answer.status, expected, "{path} of the quiet tenant: {answer:?}");
        self.asked += 1;
        took
    }

    fn reservation(&self, call_id: &str) -> Value {
        json!({
            "integration_id": self.integration, "call_id": call_id, "estimated_cost_cents": 1,
            "estimated_tokens": 1,
        })
    }

    fn record(&self, call_id: &str) -> Value {
        json!({
            "integration_id": self.integration, "call_id": call_id, "provider": "openai",
            "model": "gpt-4o", "tokens_in": 1, "tokens_out": 1, "cost_cents": 1,
        })
    }
}

impl AtWork {
    /// Ends it, and says how long its requests took.
    #[track_caller]
    pub(crate) fn end(self) -> (Quiet, Latencies) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("the quiet tenant is served")
    }
}
