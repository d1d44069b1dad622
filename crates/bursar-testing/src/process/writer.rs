//! A client that writes step by step, and records what the server acknowledged.
//!
//! A step without a response is repeated with the same call ids and content, as docs/guarantees.md
//! requires of clients.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::books::{Books, Entry, Hold};
use super::http::{Answer, Http, NoAnswer};
use super::tenant::Tenant;
use crate::chance::Chance;

/// The default number of records of a batch.
const BATCH: usize = 50;
/// The estimate of a reservation: five cents, and more tokens than any call of a writer uses.
const HELD_CENTS: i128 = 5;
const HELD_TOKENS: i64 = 4_000;
const NANOS_PER_CENT: i128 = 10_000_000;
/// Longer than any test runs.
const TTL_SECONDS: u32 = 86_400;

/// A client, and what the server acknowledged to it.
#[derive(Debug)]
pub struct Writer {
    name: String,
    integrations: Vec<String>,
    chance: Chance,
    /// Records of a batch.
    batch: usize,
    calls: u64,
    steps: VecDeque<Step>,
    /// Whether the first step may have been carried out.
    in_doubt: bool,
    /// Acknowledged records.
    recorded: HashMap<String, Entry>,
    /// Acknowledged reservations that have not ended as far as the writer knows.
    held: HashMap<String, Hold>,
    /// Acknowledged releases.
    released: HashSet<String>,
    /// The number of steps that were repeated because they had no response.
    pub repeated: usize,
}

/// One request.
#[derive(Clone, Debug)]
enum Step {
    Record(Draft),
    Batch(Vec<Draft>),
    /// Repeats an acknowledged record.
    RecordAgain(Draft),
    Reserve(Draft),
    Release(Draft),
}

/// A call to record or reserve.
#[derive(Clone, Debug)]
struct Draft {
    call_id: String,
    entry: Entry,
}

/// The outcome of a step.
#[derive(Debug)]
pub enum Outcome {
    Acknowledged,
    /// Acknowledged, for a step that repeats an acknowledged one and changes nothing.
    Confirmed,
    /// 503: the step must be repeated.
    Unavailable,
    /// No response: the step must be repeated.
    Lost(NoAnswer),
}

impl Writer {
    /// A writer of a tenant. Its number makes its call ids unique.
    pub fn new(tenant: &Tenant, number: usize, seed: u64) -> Self {
        Self {
            name: format!("writer-{number}"),
            integrations: tenant.integrations.clone(),
            chance: Chance::new(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            batch: BATCH,
            calls: 0,
            steps: VecDeque::new(),
            in_doubt: false,
            recorded: HashMap::new(),
            held: HashMap::new(),
            released: HashSet::new(),
            repeated: 0,
        }
    }

    /// The same writer with batches of another size.
    pub fn with_batches(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Several writers of a tenant.
    pub fn several(tenant: &Tenant, count: usize, seed: u64) -> Vec<Self> {
        (0..count).map(|number| Self::new(tenant, number, seed)).collect()
    }

    /// The number of acknowledged records.
    pub fn acknowledged(&self) -> usize {
        self.recorded.len()
    }

    /// Acknowledged records, by call id.
    pub fn records(&self) -> &HashMap<String, Entry> {
        &self.recorded
    }

    /// Writes until a response is missing, for at most `steps_max` steps.
    pub fn write(&mut self, http: &mut Http, steps_max: usize) -> Option<NoAnswer> {
        for _ in 0..steps_max {
            match self.step(http) {
                Outcome::Acknowledged | Outcome::Confirmed => {}
                Outcome::Unavailable => panic!("{} got 503 from a healthy server", self.name),
                Outcome::Lost(how) => return Some(how),
            }
        }
        None
    }

    /// Sends the next step, or repeats the one in doubt.
    pub fn step(&mut self, http: &mut Http) -> Outcome {
        if self.steps.is_empty() {
            self.plan();
        }
        self.repeated += usize::from(self.in_doubt);
        let step = self.steps.front().expect("planned");
        let sent = match step {
            Step::Record(draft) | Step::RecordAgain(draft) => {
                http.post_text("/api/v1/telemetry/llm-usage", &draft.record())
            }
            Step::Batch(drafts) => {
                let records: Vec<String> = drafts.iter().map(Draft::record).collect();
                let body = format!("{{\"records\":[{}]}}", records.join(","));
                http.post_text("/api/v1/telemetry/llm-usage/batch", &body)
            }
            Step::Reserve(draft) => {
                http.post("/api/v1/enforcement/reservations", &draft.reservation())
            }
            Step::Release(draft) => {
                http.delete(&format!("/api/v1/enforcement/reservations/{}", draft.call_id))
            }
        };
        match sent {
            Ok(answer) if answer.is_success() => {
                let step = self.steps.pop_front().expect("planned");
                let outcome = match &step {
                    Step::RecordAgain(_) => Outcome::Confirmed,
                    Step::Release(draft) if self.released.contains(&draft.call_id) => {
                        Outcome::Confirmed
                    }
                    Step::Record(_) | Step::Batch(_) | Step::Reserve(_) | Step::Release(_) => {
                        Outcome::Acknowledged
                    }
                };
                self.note(step, &answer);
                self.in_doubt = false;
                outcome
            }
            Ok(answer) if answer.status == 503 => {
                // It may be stored nevertheless.
                self.in_doubt = true;
                Outcome::Unavailable
            }
            Ok(answer) => panic!("{} sent {step:?} and got {answer:?}", self.name),
            Err(NoAnswer::NotConnected) => Outcome::Lost(NoAnswer::NotConnected),
            Err(how) => {
                self.in_doubt = true;
                Outcome::Lost(how)
            }
        }
    }

    /// Chooses the next steps.
    fn plan(&mut self) {
        let draft = self.draft();
        let steps = match self.chance.below(16) {
            0..=5 => vec![Step::Record(draft)],
            6 => vec![Step::Record(draft.clone()), Step::RecordAgain(draft)],
            7 | 8 => {
                let drafts = (0..self.batch).map(|_| self.draft()).collect();
                vec![Step::Batch(drafts)]
            }
            9..=12 => vec![Step::Reserve(draft.clone()), Step::Record(draft)],
            13 => vec![Step::Reserve(draft.clone()), Step::Release(draft)],
            14 => vec![
                Step::Reserve(draft.clone()),
                Step::Release(draft.clone()),
                Step::Release(draft),
            ],
            _ => vec![Step::Reserve(draft)],
        };
        self.steps.extend(steps);
    }

    fn draft(&mut self) -> Draft {
        self.calls += 1;
        let which = self.chance.below(self.integrations.len() as u64) as usize;
        let integration = self.integrations.get(which).expect("below the length").clone();
        Draft {
            call_id: format!("{}-{}", self.name, self.calls),
            entry: Entry {
                integration,
                tokens_in: self.chance.below(2_000) as i64,
                tokens_out: self.chance.below(2_000) as i64,
                cost_nanos: i128::from(self.chance.below(60_000_000)),
            },
        }
    }

    /// Records an acknowledgement.
    fn note(&mut self, step: Step, answer: &Answer) {
        match step {
            Step::Record(draft) => {
                let expected: &[&str] =
                    if self.in_doubt { &["accepted", "duplicate"] } else { &["accepted"] };
                let status = answer.data("status").as_str().unwrap_or_default();
                assert!(expected.contains(&status), "{draft:?} got {answer:?}");
                self.note_recorded(draft);
            }
            Step::RecordAgain(draft) => {
                assert_eq!(answer.data("status"), "duplicate", "{draft:?}: {answer:?}");
            }
            Step::Batch(drafts) => {
                let counts = ["accepted", "duplicates"]
                    .map(|field| answer.data(field).as_u64().unwrap_or_default());
                assert_eq!(counts.iter().sum::<u64>(), drafts.len() as u64, "{answer:?}");
                assert!(
                    counts.last() == Some(&0) || self.in_doubt,
                    "new records are duplicates: {answer:?}"
                );
                drafts.into_iter().for_each(|draft| self.note_recorded(draft));
            }
            Step::Reserve(draft) => {
                assert_eq!(answer.status, 201, "{draft:?} got {answer:?}");
                self.held.insert(draft.call_id.clone(), draft.hold());
            }
            Step::Release(draft) => {
                self.held.remove(&draft.call_id);
                self.released.insert(draft.call_id);
            }
        }
    }

    fn note_recorded(&mut self, draft: Draft) {
        self.held.remove(&draft.call_id);
        self.recorded.insert(draft.call_id, draft.entry);
    }

    /// Checks that requests without a response changed nothing.
    #[track_caller]
    pub fn check_nothing_unanswered_was_done(&self, books: &Books) {
        for call_id in self.perhaps_recorded().keys() {
            assert!(
                !books.entries.contains_key(*call_id),
                "{call_id} was stored without a response"
            );
        }
        if let Some(draft) = self.perhaps_held() {
            assert!(
                !books.holds.contains_key(&draft.call_id),
                "{draft:?} was held without a response"
            );
        }
    }

    /// The step that may have been carried out without a response.
    fn doubt(&self) -> Option<&Step> {
        self.steps.front().filter(|_| self.in_doubt)
    }

    /// Records that may be stored besides the acknowledged ones.
    fn perhaps_recorded(&self) -> HashMap<&str, &Entry> {
        let drafts = match self.doubt() {
            Some(Step::Record(draft)) => std::slice::from_ref(draft),
            Some(Step::Batch(drafts)) => drafts.as_slice(),
            Some(Step::RecordAgain(_) | Step::Reserve(_) | Step::Release(_)) | None => &[],
        };
        drafts.iter().map(|draft| (draft.call_id.as_str(), &draft.entry)).collect()
    }

    /// A reservation that may have ended without a response.
    fn perhaps_ended(&self) -> Option<&str> {
        match self.doubt() {
            Some(Step::Record(draft) | Step::Release(draft)) => Some(&draft.call_id),
            Some(Step::Batch(_) | Step::RecordAgain(_) | Step::Reserve(_)) | None => None,
        }
    }

    /// A reservation that may be open without a response.
    fn perhaps_held(&self) -> Option<Draft> {
        match self.doubt() {
            Some(Step::Reserve(draft)) => Some(draft.clone()),
            Some(Step::Record(_) | Step::Batch(_) | Step::RecordAgain(_) | Step::Release(_))
            | None => None,
        }
    }
}

impl Draft {
    fn record(&self) -> String {
        let Entry { integration, tokens_in, tokens_out, cost_nanos } = &self.entry;
        let (cents, rest) = (cost_nanos / NANOS_PER_CENT, cost_nanos % NANOS_PER_CENT);
        let mut body = String::new();
        // Formatted by hand, because `serde_json` would write the cost as a float.
        write!(
            body,
            "{{\"integration_id\":\"{integration}\",\"call_id\":\"{}\",\"provider\":\"openai\",\
             \"model\":\"gpt-4o\",\"tokens_in\":{tokens_in},\"tokens_out\":{tokens_out},\
             \"cost_cents\":{cents}.{rest:07}}}",
            self.call_id
        )
        .expect("written to a text");
        body
    }

    fn reservation(&self) -> Value {
        json!({
            "integration_id": self.entry.integration,
            "call_id": self.call_id,
            "estimated_cost_cents": HELD_CENTS as i64,
            "estimated_tokens": HELD_TOKENS,
            "ttl_seconds": TTL_SECONDS,
        })
    }

    fn hold(&self) -> Hold {
        Hold {
            integration: self.entry.integration.clone(),
            cost_nanos: HELD_CENTS * NANOS_PER_CENT,
            tokens: HELD_TOKENS,
        }
    }
}

/// Checks that every acknowledged record and reservation is stored once, and that nothing else is
/// but the steps in doubt. Returns the number of acknowledged records.
#[track_caller]
pub fn check_acknowledged(writers: &[Writer], books: &Books) -> usize {
    let (mut entries, mut holds) = (0, 0);
    for writer in writers {
        for (call_id, entry) in &writer.recorded {
            let stored = books.entries.get(call_id);
            assert_eq!(stored, Some(entry), "{call_id} was acknowledged");
        }
        entries += writer.recorded.len();
        for (call_id, entry) in writer.perhaps_recorded() {
            let stored = books.entries.get(call_id);
            assert!(stored.is_none_or(|stored| stored == entry), "{call_id} has other content");
            entries += usize::from(stored.is_some());
        }
        for (call_id, hold) in &writer.held {
            let open = books.holds.get(call_id);
            let ended = open.is_none() && writer.perhaps_ended() == Some(call_id);
            assert!(ended || open == Some(hold), "{call_id} was held and is {open:?}");
            holds += usize::from(!ended);
        }
        if let Some(draft) = writer.perhaps_held() {
            let open = books.holds.get(&draft.call_id);
            assert!(open.is_none_or(|open| *open == draft.hold()), "{draft:?} is {open:?}");
            holds += usize::from(open.is_some());
        }
        for call_id in &writer.released {
            assert!(!books.holds.contains_key(call_id), "{call_id} was released");
            assert!(!books.entries.contains_key(call_id), "{call_id} was only reserved");
        }
    }
    assert_eq!(books.entries.len(), entries, "records that no writer sent");
    assert_eq!(books.holds.len(), holds, "reservations that no writer made");
    writers.iter().map(Writer::acknowledged).sum()
}
