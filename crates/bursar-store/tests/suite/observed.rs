//! What an observer of the writer is told: everything that was stored, once, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bursar_core::{CostSource, IntegrationId, LimitSettings, PolicyResult, TenantId, Usage};
use bursar_store::{Dequeued, Facts, HoldFacts, Observer, StoreError, TransactionTiming};
use rusqlite::Connection;

use crate::support::faulty::{Fault, Faults, FaultyWriter};
use crate::support::group::{Asked, in_one_group};
use crate::support::{SQLITE, World, budget, call_id, cents, request, usage};

/// Writes down what it is told.
#[derive(Default)]
struct Notes(Mutex<Told>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// Calls, errors, blocked, unpriced, tokens and nano-dollars by tenant, provider and model.
    models: BTreeMap<(TenantId, String, String), [i64; 6]>,
    costs: BTreeMap<&'static str, i64>,
    holds: [u64; 5],
    commands: usize,
    commits: usize,
    failures: usize,
}

impl Notes {
    fn read(&self) -> Told {
        self.0.lock().unwrap().clone()
    }

    fn clear(&self) {
        *self.0.lock().unwrap() = Told::default();
    }
}

impl Observer for Notes {
    fn dequeued(&self, dequeued: Dequeued) {
        self.0.lock().unwrap().commands += dequeued.commands;
    }

    fn committed(&self, timing: TransactionTiming) {
        assert!(timing.commit <= timing.transaction, "{timing:?}");
        self.0.lock().unwrap().commits += 1;
    }

    fn written(&self, facts: &Facts<'_>) {
        let mut told = self.0.lock().unwrap();
        for (key, sums) in &facts.models {
            let name = (key.tenant_id, key.provider.to_owned(), key.model.to_owned());
            let tokens = sums.tokens_in + sums.tokens_out;
            let more =
                [sums.calls, sums.errors, sums.blocked, sums.unpriced, tokens, sums.cost_nanos];
            for (sum, more) in told.models.entry(name).or_default().iter_mut().zip(more) {
                *sum += more;
            }
        }
        for (source, nanos) in facts.costs.iter() {
            *told.costs.entry(source.as_str()).or_default() += nanos;
        }
        let HoldFacts { made, extended, settled, released, expired } = facts.holds;
        for (sum, more) in told.holds.iter_mut().zip([made, extended, settled, released, expired]) {
            *sum += more;
        }
    }

    fn failed(&self, _error: &StoreError) {
        self.0.lock().unwrap().failures += 1;
    }
}

struct Watched {
    world: World,
    notes: Arc<Notes>,
    faults: Faults,
    tenant_id: TenantId,
    integration_id: IntegrationId,
}

impl Watched {
    async fn new(limits: LimitSettings) -> Self {
        let (faults, notes) = (Faults::default(), Arc::new(Notes::default()));
        let of_writer = faults.clone();
        let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
        let world = World::observed(SQLITE, Arc::new(wrap), notes.clone());
        let tenant_id = world.tenant("tenant").await;
        let integration_id = world.integration(tenant_id, "integration", limits).await;
        notes.clear();
        Self { world, notes, faults, tenant_id, integration_id }
    }

    fn usage(&self, call: &str) -> Usage {
        usage(self.integration_id, call)
    }

    async fn record(&self, usage: Usage) {
        self.world.ledger.record(self.tenant_id, vec![usage]).await.unwrap();
    }

    fn model(&self, model: &str) -> [i64; 6] {
        let key = (self.tenant_id, "openai".to_owned(), model.to_owned());
        self.notes.read().models.get(&key).copied().unwrap_or_default()
    }
}

const CENT: i64 = 10_000_000;

#[tokio::test]
async fn new_records_are_told_by_model_and_repetitions_are_not() {
    let watched = Watched::new(LimitSettings::default()).await;
    let mini = |call| Usage { model: "mini".into(), ..watched.usage(call) };
    let records = vec![
        watched.usage("a"),
        watched.usage("a"),
        Usage { error_code: Some("timeout".into()), ..watched.usage("b") },
        Usage { policy_result: PolicyResult::Blocked, ..mini("c") },
        Usage { cost: None, ..mini("d") },
        Usage { cost: Some(cents(5)), ..watched.usage("a") },
    ];
    watched.world.ledger.record(watched.tenant_id, records).await.unwrap();
    watched.record(watched.usage("b")).await;
    assert_eq!(watched.model("gpt"), [2, 1, 0, 0, 60, 2 * CENT]);
    assert_eq!(watched.model("mini"), [2, 0, 1, 1, 60, CENT]);
    let told = watched.notes.read();
    assert_eq!(told.costs[CostSource::Reported.as_str()], 3 * CENT);
    assert_eq!(told.costs[CostSource::Unknown.as_str()], 0);
    assert_eq!((told.commands, told.commits, told.failures), (7, 2, 0));
}

#[tokio::test]
async fn the_ways_of_reservations_are_told_apart() {
    let watched = Watched::new(budget(1_000)).await;
    let (ledger, tenant_id) = (&watched.world.ledger, watched.tenant_id);
    for call in ["settled", "released", "expired", "swept", "extended"] {
        ledger.reserve(tenant_id, request(watched.integration_id, call)).await.unwrap();
    }
    watched.record(Usage { cost: None, ..watched.usage("settled") }).await;
    ledger.release(tenant_id, call_id("released"), None).await.unwrap();
    ledger.release(tenant_id, call_id("released"), None).await.unwrap();
    ledger.extend(tenant_id, call_id("extended"), None, Some(3_600)).await.unwrap();
    assert_eq!(watched.notes.read().holds, [5, 1, 1, 1, 0]);
    watched.world.clock.advance(601);
    // The record of one loads its call; the other one is only known as a hold.
    watched.record(watched.usage("expired")).await;
    ledger.sweep().await.unwrap();
    assert_eq!(watched.notes.read().holds, [5, 1, 1, 1, 2]);
    assert_eq!(watched.notes.read().costs[CostSource::Held.as_str()], 10 * CENT);
}

#[tokio::test]
async fn a_transaction_that_is_tried_again_is_told_once() {
    let watched = Watched::new(LimitSettings::default()).await;
    // The first call allots ids; then come begin, load, save and commit.
    for nth in 2..=5 {
        watched.faults.arm(nth, Fault::Again);
        watched.record(watched.usage(&format!("call {nth}"))).await;
        assert!(!watched.faults.disarm(), "call {nth} was not made");
    }
    assert_eq!(watched.model("gpt"), [4, 0, 0, 0, 120, 4 * CENT]);
    let told = watched.notes.read();
    assert_eq!((told.commits, told.failures), (4, 4));
}

#[tokio::test]
async fn a_transaction_whose_fate_is_unknown_is_not_told() {
    let watched = Watched::new(LimitSettings::default()).await;
    for nth in 2..=5 {
        watched.faults.arm(nth, Fault::AnswerLost);
        let sent = vec![watched.usage(&format!("call {nth}"))];
        let answer = watched.world.ledger.record(watched.tenant_id, sent).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let told = watched.notes.read();
    assert_eq!(told.models, BTreeMap::new());
    assert_eq!((told.commits, told.failures), (0, 4));
}

#[tokio::test]
async fn a_group_that_is_halved_is_told_once_and_without_its_bad_command() {
    let watched = Watched::new(LimitSettings::default()).await;
    let poison = "create trigger poison before insert on usage_entries \
         when new.call_id = 'poison' begin select raise(abort, 'poison'); end";
    Connection::open(watched.world.home.path()).unwrap().execute_batch(poison).unwrap();
    let (ledger, tenant_id) = (&watched.world.ledger, watched.tenant_id);
    let mut asked: Vec<Asked<'_, bool>> = Vec::new();
    for number in 0..40 {
        let call = if number == 17 { "poison".to_owned() } else { format!("call {number}") };
        let sent = vec![watched.usage(&call)];
        asked.push(Box::pin(async move { ledger.record(tenant_id, sent).await.is_ok() }));
    }
    let answers = in_one_group(ledger, tenant_id, asked).await;
    assert_eq!(answers.iter().filter(|accepted| **accepted).count(), 39);
    assert_eq!(watched.model("gpt"), [39, 0, 0, 0, 39 * 30, 39 * CENT]);
    assert!(watched.notes.read().failures > 1, "the group was not halved");
}
