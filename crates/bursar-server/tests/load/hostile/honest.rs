//! The honest callers: a tenant that sends checks and records and reads its history, and an
//! operator that reads `/metrics` and `/health`, each at a fixed rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bursar_testing::process::http::{Answer, Http, NoAnswer};
use bursar_testing::waiting::scale;
use serde_json::json;

use crate::hostile::request;
use crate::hostile::scene::Scene;
use crate::percentile::percentile;

/// The number of the next record, unique over all honest callers.
static NEXT_CALL: AtomicU64 = AtomicU64::new(0);

/// A kind of request of the honest callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Probe {
    Check,
    Record,
    History,
    Metrics,
    Health,
}

impl Probe {
    pub(crate) const ALL: [Self; 5] =
        [Self::Check, Self::Record, Self::History, Self::Metrics, Self::Health];

    /// The interval between two requests.
    fn interval(self) -> Duration {
        Duration::from_millis(match self {
            Self::Check | Self::Record | Self::Health => 40,
            Self::History => 100,
            Self::Metrics => 200,
        })
    }

    /// The maximal p99. An ordinary run has a debug build on a busy machine, so its limit is a
    /// multiple of that of a long run.
    pub(crate) fn p99_max(self) -> Duration {
        Duration::from_millis(match self {
            Self::Check | Self::Record | Self::Health => scale(400, 50),
            Self::History | Self::Metrics => scale(800, 500),
        })
    }
}

/// An honest caller.
pub(crate) struct Caller {
    probe: Probe,
    address: String,
    bearer: String,
    integration: String,
    sent: u64,
    http: Http,
}

/// The latencies and failures of an honest caller.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sorted latencies, also of requests that would have been sent meanwhile.
    pub(crate) took: Vec<Duration>,
    /// Failures with their counts.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Seen {
    /// Counts a request, and the requests that would have been sent at this interval while it
    /// waited, with their remaining waits. Otherwise a slow response would hide them.
    fn count(&mut self, took: Duration, interval: Duration) {
        let mut waits = Some(took).filter(|took| !took.is_zero());
        while let Some(wait) = waits {
            self.took.push(wait);
            waits = wait.checked_sub(interval).filter(|left| !left.is_zero());
        }
    }

    /// A percentile of the latencies.
    pub(crate) fn percent(&self, percent: usize) -> Duration {
        percentile(&self.took, percent)
    }
}

impl Caller {
    pub(crate) fn new(scene: &Scene, probe: Probe) -> Self {
        let bearer = match probe {
            Probe::Metrics => scene.operator_bearer(),
            Probe::Check | Probe::Record | Probe::History | Probe::Health => {
                scene.honest.bearer.clone()
            }
        };
        let address = scene.address().to_string();
        let http = Http::new(&address, &[("Authorization", &bearer)]);
        let integration = scene.honest.integrations.first().expect("an integration").clone();
        Self { probe, address, bearer, integration, sent: 0, http }
    }

    pub(crate) fn kind(&self) -> Probe {
        self.probe
    }

    /// Sends one request, every other time on a new connection.
    pub(crate) fn send(&mut self) -> Result<(), String> {
        self.sent += 1;
        if self.sent.is_multiple_of(2) {
            self.reconnect();
        }
        let mut answer = self.send_once();
        if matches!(answer, Err(NoAnswer::Unanswered)) {
            // The server may close an idle connection at any time; clients retry on a new one.
            self.reconnect();
            answer = self.send_once();
        }
        match answer {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.code())),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    fn reconnect(&mut self) {
        self.http = Http::new(&self.address, &[("Authorization", &self.bearer)]);
    }

    fn send_once(&mut self) -> Result<Answer, NoAnswer> {
        match self.probe {
            Probe::Check => {
                let check = json!({ "integration_id": self.integration, "estimated_tokens": 1 });
                self.http.post("/api/v1/enforcement/check", &check)
            }
            Probe::Record => {
                let call_id = format!("honest-{}", NEXT_CALL.fetch_add(1, Ordering::Relaxed));
                let record = request::record(&self.integration, &call_id, "gpt-4o", "");
                self.http.post_text("/api/v1/telemetry/llm-usage", &record)
            }
            Probe::History => self.http.get("/api/v1/telemetry/usage-history?limit=50"),
            Probe::Metrics => self.http.get("/metrics"),
            Probe::Health if self.sent % 4 < 2 => self.http.get("/health/live"),
            Probe::Health => self.http.get("/health"),
        }
    }

    /// Sends requests at the interval until it is ended.
    fn run(mut self, ended: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let mut due = Instant::now();
        while !ended.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            let answer = self.send();
            let took = sent.elapsed();
            seen.count(took, self.probe.interval());
            due = Instant::now().max(due + self.probe.interval());
            if let Err(failure) = answer {
                *seen.failures.entry(failure).or_default() += 1;
            }
        }
        seen.took.sort_unstable();
        seen
    }
}

/// All honest callers, each on its own thread.
pub(crate) struct HonestCallers {
    end: Arc<AtomicBool>,
    threads: Vec<(Probe, JoinHandle<Seen>)>,
}

impl HonestCallers {
    pub(crate) fn start(scene: &Scene) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let start = |probe| {
            let (caller, ended) = (Caller::new(scene, probe), Arc::clone(&end));
            (probe, std::thread::spawn(move || caller.run(&ended)))
        };
        Self { threads: Probe::ALL.into_iter().map(start).collect(), end }
    }

    /// Ends the callers and returns what each saw; `None` for a caller that panicked.
    pub(crate) fn end(self) -> Vec<(Probe, Option<Seen>)> {
        self.end.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|(probe, thread)| (probe, thread.join().ok())).collect()
    }
}
