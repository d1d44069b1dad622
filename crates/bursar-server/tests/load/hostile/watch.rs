//! The honest callers: a tenant that checks, records and reads its history, and an operator who
//! reads `/metrics` and `/health`, each at a fixed pace.

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

/// Numbers the records of all honest callers, so that none comes twice.
static NEXT_CALL: AtomicU64 = AtomicU64::new(0);

/// What an honest caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ask {
    Check,
    Record,
    History,
    Metrics,
    Health,
}

impl Ask {
    pub(crate) const ALL: [Self; 5] =
        [Self::Check, Self::Record, Self::History, Self::Metrics, Self::Health];

    /// How often it is asked.
    fn pace(self) -> Duration {
        Duration::from_millis(match self {
            Self::Check | Self::Record | Self::Health => 40,
            Self::History => 100,
            Self::Metrics => 200,
        })
    }

    /// The time below which 99 of 100 answers come. The ordinary run has a build for tests and a
    /// machine that does other work, and so a few times the bound of the long proof.
    pub(crate) fn p99_max(self) -> Duration {
        Duration::from_millis(match self {
            Self::Check | Self::Record | Self::Health => scale(400, 50),
            Self::History | Self::Metrics => scale(800, 500),
        })
    }
}

/// One honest caller.
pub(crate) struct Caller {
    ask: Ask,
    address: String,
    bearer: String,
    integration: String,
    asked: u64,
    kept: Http,
}

/// What an honest caller saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long requests took, sorted, and those that would have been sent meanwhile.
    pub(crate) took: Vec<Duration>,
    /// What was not a success, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Seen {
    /// Counts a request, and those of other callers that would have come at this pace while it
    /// waited: each of them would have waited for what was left.
    fn count(&mut self, took: Duration, pace: Duration) {
        let mut waits = Some(took).filter(|took| !took.is_zero());
        while let Some(wait) = waits {
            self.took.push(wait);
            waits = wait.checked_sub(pace).filter(|left| !left.is_zero());
        }
    }

    /// The time below which so many percent of the answers came.
    pub(crate) fn percent(&self, percent: usize) -> Duration {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).copied().unwrap_or_default()
    }
}

impl Caller {
    pub(crate) fn new(scene: &Scene, ask: Ask) -> Self {
        let bearer = match ask {
            Ask::Metrics => scene.operator_bearer(),
            Ask::Check | Ask::Record | Ask::History | Ask::Health => scene.honest.bearer.clone(),
        };
        let address = scene.address().to_string();
        let kept = Http::new(&address, &[("Authorization", &bearer)]);
        let integration = scene.honest.integrations.first().expect("an integration").clone();
        Self { ask, address, bearer, integration, asked: 0, kept }
    }

    pub(crate) fn kind(&self) -> Ask {
        self.ask
    }

    /// Asks once, every other time on a new connection, as a process that starts does.
    pub(crate) fn ask(&mut self) -> Result<(), String> {
        self.asked += 1;
        if self.asked.is_multiple_of(2) {
            self.renew();
        }
        let mut answer = self.send();
        if matches!(answer, Err(NoAnswer::Unanswered)) {
            // The server may end an idle connection at any moment; clients ask again on a new one.
            self.renew();
            answer = self.send();
        }
        match answer {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.code())),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    fn renew(&mut self) {
        self.kept = Http::new(&self.address, &[("Authorization", &self.bearer)]);
    }

    fn send(&mut self) -> Result<Answer, NoAnswer> {
        match self.ask {
            Ask::Check => {
                let check = json!({ "integration_id": self.integration, "estimated_tokens": 1 });
                self.kept.post("/api/v1/enforcement/check", &check)
            }
            Ask::Record => {
                let call_id = format!("honest-{}", NEXT_CALL.fetch_add(1, Ordering::Relaxed));
                let record = request::record(&self.integration, &call_id, "gpt-4o", "");
                self.kept.post_text("/api/v1/telemetry/llm-usage", &record)
            }
            Ask::History => self.kept.get("/api/v1/telemetry/usage-history?limit=50"),
            Ask::Metrics => self.kept.get("/metrics"),
            Ask::Health if self.asked % 4 < 2 => self.kept.get("/health/live"),
            Ask::Health => self.kept.get("/health"),
        }
    }

    /// Asks at its pace until it is told to end.
    fn work(mut self, ended: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let mut due = Instant::now();
        while !ended.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let asked = Instant::now();
            let answer = self.ask();
            let took = asked.elapsed();
            seen.count(took, self.ask.pace());
            due = Instant::now().max(due + self.ask.pace());
            if let Err(failure) = answer {
                *seen.failures.entry(failure).or_default() += 1;
            }
        }
        seen.took.sort_unstable();
        seen
    }
}

/// All honest callers at work, each on a thread of its own.
pub(crate) struct Watch {
    end: Arc<AtomicBool>,
    threads: Vec<(Ask, JoinHandle<Seen>)>,
}

impl Watch {
    pub(crate) fn start(scene: &Scene) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let start = |ask| {
            let (caller, ended) = (Caller::new(scene, ask), Arc::clone(&end));
            (ask, std::thread::spawn(move || caller.work(&ended)))
        };
        Self { threads: Ask::ALL.into_iter().map(start).collect(), end }
    }

    /// Ends it, and says what each kind of request came to. A caller that gave up saw nothing.
    pub(crate) fn end(self) -> Vec<(Ask, Option<Seen>)> {
        self.end.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|(ask, thread)| (ask, thread.join().ok())).collect()
    }
}
