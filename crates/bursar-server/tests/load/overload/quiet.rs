//! The quiet tenant: ten requests a second, each of which must succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::{Value, json};

use crate::percentile::percentile;

/// The interval between two requests.
const INTERVAL: Duration = Duration::from_millis(100);
/// Requests for a median.
const SAMPLES: usize = 40;

/// A client that reserves a call, records it, and sends a check, in turn.
pub(crate) struct Quiet {
    http: Http,
    integration: String,
    sent: usize,
}

/// Sorted latencies.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn percent(&self, percent: usize) -> Duration {
        percentile(&self.0, percent)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// A quiet client that runs on its own thread.
pub(crate) struct RunningQuiet {
    end: Arc<AtomicBool>,
    thread: JoinHandle<(Quiet, Latencies)>,
}

impl Quiet {
    pub(crate) fn new(tenant: &Tenant, server: &Server, integration: &str) -> Self {
        Self { http: tenant.client(server), integration: integration.to_owned(), sent: 0 }
    }

    /// The median latency of some requests without a pause.
    pub(crate) fn median(&mut self) -> Duration {
        let mut took: Vec<Duration> = (0..SAMPLES).map(|_| self.send()).collect();
        took.sort_unstable();
        percentile(&took, 50)
    }

    /// Starts sending ten requests a second.
    pub(crate) fn start(mut self) -> RunningQuiet {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            let mut due = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due += INTERVAL;
                took.push(self.send());
            }
            took.sort_unstable();
            (self, Latencies(took))
        });
        RunningQuiet { end, thread }
    }

    /// Sends the next request, which must succeed at the first attempt; returns its latency.
    fn send(&mut self) -> Duration {
        let call_id = format!("quiet-{}", self.sent / 3);
        let (path, body, expected) = match self.sent % 3 {
            0 => ("enforcement/reservations", self.reservation(&call_id), 201),
            1 => ("telemetry/llm-usage", self.record(&call_id), 201),
            _ => ("enforcement/check", json!({ "integration_id": self.integration }), 200),
        };
        let sent = Instant::now();
        let answer = self.http.post(&format!("/api/v1/{path}"), &body);
        let took = sent.elapsed();
        let answer = answer.expect("the quiet tenant is answered");
        assert_eq!(answer.status, expected, "{path} of the quiet tenant: {answer:?}");
        self.sent += 1;
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

impl RunningQuiet {
    /// Ends the client and returns its latencies.
    #[track_caller]
    pub(crate) fn end(self) -> (Quiet, Latencies) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("the quiet tenant is served")
    }
}
