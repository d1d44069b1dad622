//! The honest client: one connection, one question after another, and how long each took.

use std::time::{Duration, Instant};

use bursar_testing::process::http::{Answer, Http, NoAnswer};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::{Value, json};

/// A client that asks for decisions.
pub(crate) struct Honest {
    http: Http,
    check: Value,
}

impl Honest {
    pub(crate) fn new(tenant: &Tenant, server: &Server, integration: &str) -> Self {
        let check = json!({ "integration_id": integration, "estimated_cost_cents": 1 });
        Self { http: tenant.client(server), check }
    }

    /// The time below which 99 of 100 answers came, of so many.
    pub(crate) fn p99(&mut self, samples: usize) -> Duration {
        // Its connection may have been idle for too long between two measurements.
        let _ = self.ask();
        let took = |_| {
            let asked = Instant::now();
            let answer = self.ask().expect("an honest client is answered");
            assert_eq!(answer.status, 200);
            asked.elapsed()
        };
        let mut latencies: Vec<Duration> = (0..samples).map(took).collect();
        latencies.sort_unstable();
        latencies[samples * 99 / 100]
    }

    fn ask(&mut self) -> Result<Answer, NoAnswer> {
        self.http.post("/api/v1/enforcement/check", &self.check)
    }
}

/// The one in the middle.
pub(crate) fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}
