//! An honest client, which measures the latency of checks on one connection.

use std::time::{Duration, Instant};

use bursar_testing::process::http::{Answer, Http, NoAnswer};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::{Value, json};

use crate::percentile::percentile;

/// A client that sends checks.
pub(crate) struct Honest {
    http: Http,
    body: Value,
}

impl Honest {
    pub(crate) fn new(tenant: &Tenant, server: &Server, integration: &str) -> Self {
        let body = json!({ "integration_id": integration, "estimated_cost_cents": 1 });
        Self { http: tenant.client(server), body }
    }

    /// The 99th percentile of this many latencies.
    pub(crate) fn p99(&mut self, samples: usize) -> Duration {
        // Reconnects if the connection was idle for too long.
        let _ = self.check();
        let took = |_| {
            let sent = Instant::now();
            let answer = self.check().expect("an answer to the honest client");
            assert_eq!(answer.status, 200);
            sent.elapsed()
        };
        let mut latencies: Vec<Duration> = (0..samples).map(took).collect();
        latencies.sort_unstable();
        percentile(&latencies, 99)
    }

    fn check(&mut self) -> Result<Answer, NoAnswer> {
        self.http.post("/api/v1/enforcement/check", &self.body)
    }
}

pub(crate) fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    percentile(durations, 50)
}
