//! A client that writes, one step after another, and remembers what it was told.
//!
//! A step whose answer is missing stays the next one, with the same call ids and content, as
//! docs/guarantees.md asks of clients.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::books::{Books, Entry, Hold};
use super::http::{Answer, Http, NoAnswer};
use super::tenant::Tenant;
use crate::chance::Chance;

/// Records of a batch, when nothing else is said.
const BATCH: usize = 50;
/// What a reservation holds: five cents, and more tokens than any call of a writer takes.
const HELD_CENTS: i128 = 5;
const HELD_TOKENS: i64 = 4_000;
const NANOS_PER_CENT: i128 = 10_000_000;
/// Longer than any test.
const TTL_SECONDS: u32 = 86_400;

/// A client and its memory.
#[derive(Debug)]
pub struct Writer {
    name: String,
    integrations: Vec<String>,
    chance: Chance,
    /// Records of a batch.
    batch: usize,
    calls: u64,
    steps: VecDeque<Step>,
    /// Whether the first step may have reached a server.
    in_doubt: bool,
    /// Acknowledged records.
    recorded: HashMap<String, Entry>,
    /// Acknowledged reservations that were not told to have ended.
    held: HashMap<String, Hold>,
    /// Acknowledged releases.
    released: HashSet<String>,
    /// Steps that were repeated because their answer was missing.
    pub repeated: usize,
}

/// One request.
#[derive(Clone, Debug)]
enum Step {
    Record(Draft),
    Batch(Vec<Draft>),
    /// Records what is recorded already.
    RecordAgain(Draft),
    Reserve(Draft),
    Release(Draft),
}

/// A call as the writer means it.
#[derive(Clone, Debug)]
struct Draft {
    call_id: String,
    entry: Entry,
}

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    Acknowledged,
    /// The same for a step that changes nothing, because it repeats what was acknowledged before.
    Confirmed,
    /// Storage could not answer; the step is to be repeated.
    Unavailable,
    /// There is no answer; the step is to be repeated.
    Lost(NoAnswer),
}

impl Writer {
    /// One of a tenant's writers; its number makes its call ids its own.
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

    /// Acknowledged records.
    pub fn acknowledged(&self) -> usize {
        self.recorded.len()
    }

    /// Acknowledged records, by call id.
    pub fn records(&self) -> &HashMap<String, Entry> {
        &self.recorded
    }

    /// Writes until an answer is missing, or until it has done enough.
    pub fn write(&mut self, http: &mut Http, steps_max: usize) -> Option<NoAnswer> {
        for _ in 0..steps_max {
            match self.step(http) {
                Outcome::Acknowledged | Outcome::Confirmed => {}
                Outcome::Unavailable => panic!("{} was told 503 by a healthy disk", self.name),
                Outcome::Lost(how) => return Some(how),
            }
        }
        None
    }

    /// Sends the next step, or again the one in doubt.
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
                // Nothing was promised, but it may be stored.
                self.in_doubt = true;
                Outcome::Unavailable
            }
            Ok(answer) => panic!("{} sent {step:?} and was answered {answer:?}", self.name),
            Err(NoAnswer::NotConnected) => Outcome::Lost(NoAnswer::NotConnected),
            Err(how) => {
                self.in_doubt = true;
                Outcome::Lost(how)
            }
        }
    }

    /// Chooses what to do next.
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

    /// Takes note of an acknowledgement.
    fn note(&mut self, step: Step, answer: &Answer) {
        match step {
            Step::Record(draft) => {
                let expected: &[&str] =
                    if self.in_doubt { &["accepted", "duplicate"] } else { &["accepted"] };
                let status = answer.data("status").as_str().unwrap_or_default();
                assert!(expected.contains(&status), "{draft:?} was answered {answer:?}");
                self.note_recorded(draft);
            }
            Step::RecordAgain(draft) => {
                assert_eq!(answer.data("status"), "duplicate", "{draft:?}: {answer:?}");
            }
            Step::Batch(drafts) => {
                let taken = ["accepted", "duplicates"]
                    .map(|field| answer.data(field).as_u64().unwrap_or_default());
                let of_all = (taken.iter().sum::<u64>(), taken.last() == Some(&0));
                assert_eq!(of_all.0, drafts.len() as u64, "{answer:?}");
                assert!(of_all.1 || self.in_doubt, "new records are duplicates: {answer:?}");
                drafts.into_iter().for_each(|draft| self.note_recorded(draft));
            }
            Step::Reserve(draft) => {
                assert_eq!(answer.status, 201, "{draft:?} was answered {answer:?}");
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

    /// Checks that a request without an answer was turned away before anything was done.
    #[track_caller]
    pub fn check_nothing_unanswered_was_done(&self, books: &Books) {
        for call_id in self.perhaps_recorded().keys() {
            assert!(!books.entries.contains_key(*call_id), "{call_id} was stored, unanswered");
        }
        if let Some(draft) = self.perhaps_held() {
            assert!(!books.holds.contains_key(&draft.call_id), "{draft:?} was held, unanswered");
        }
    }

    /// The step that may have been done without this writer being told.
    fn doubt(&self) -> Option<&Step> {
        self.steps.front().filter(|_| self.in_doubt)
    }

    /// What may be stored besides what was acknowledged.
    fn perhaps_recorded(&self) -> HashMap<&str, &Entry> {
        let drafts = match self.doubt() {
            Some(Step::Record(draft)) => std::slice::from_ref(draft),
            Some(Step::Batch(drafts)) => drafts.as_slice(),
            Some(Step::RecordAgain(_) | Step::Reserve(_) | Step::Release(_)) | None => &[],
        };
        drafts.iter().map(|draft| (draft.call_id.as_str(), &draft.entry)).collect()
    }

    /// A reservation that may have ended without this writer being told.
    fn perhaps_ended(&self) -> Option<&str> {
        match self.doubt() {
            Some(Step::Record(draft) | Step::Release(draft)) => Some(&draft.call_id),
            Some(Step::Batch(_) | Step::RecordAgain(_) | Step::Reserve(_)) | None => None,
        }
    }

    /// A reservation that may be open without this writer being told.
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
        // By hand, because a cost is a decimal and not a float.
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

/// Checks that the books have what the writers were promised, once, and nothing that none of them
/// asked for. Answers how many records were acknowledged.
#[track_caller]
pub fn check_promises(writers: &[Writer], books: &Books) -> usize {
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
    assert_eq!(books.entries.len(), entries, "a record that nobody sent");
    assert_eq!(books.holds.len(), holds, "a reservation that nobody made");
    writers.iter().map(Writer::acknowledged).sum()
}
