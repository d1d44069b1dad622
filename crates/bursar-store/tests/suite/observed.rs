//! An observer of the writer gets all stored facts exactly once.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bursar_core::{CostSource, IntegrationId, LimitSettings, PolicyResult, TenantId, Usage};
use bursar_store::{Dequeued, Facts, HoldFacts, Observer, StoreError, TransactionTiming};
use rusqlite::Connection;

use crate::support::faulty::{Fault, Faults, FaultyWriter};
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::{SQLITE, World, budget, call_id, cents, request, usage};

/// An observer that adds up what is reported to it.
#[derive(Default)]
struct Recorder(Mutex<Reported>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reported {
    /// Calls, errors, blocked, unpriced, tokens and nano-dollars by tenant, provider and model.
    models: BTreeMap<(TenantId, String, String), [i64; 6]>,
    costs: BTreeMap<&'static str, i64>,
    holds: [u64; 5],
    commands: usize,
    commits: usize,
    failures: usize,
}

impl Recorder {
    fn read(&self) -> Reported {
        self.0.lock().unwrap().clone()
    }

    fn clear(&self) {
        *self.0.lock().unwrap() = Reported::default();
    }
}

impl Observer for Recorder {
    fn dequeued(&self, dequeued: Dequeued) {
        self.0.lock().unwrap().commands += dequeued.commands;
    }

    fn committed(&self, timing: TransactionTiming) {
        assert!(timing.commit <= timing.transaction, "{timing:?}");
        self.0.lock().unwrap().commits += 1;
    }

    fn written(&self, facts: &Facts<'_>) {
        let mut reported = self.0.lock().unwrap();
        for (key, sums) in &facts.models {
            let name = (key.tenant_id, key.provider.to_owned(), key.model.to_owned());
            let tokens = sums.tokens_in + sums.tokens_out;
            let more =
                [sums.calls, sums.errors, sums.blocked, sums.cost_unknown, tokens, sums.cost_nanos];
            for (sum, more) in reported.models.entry(name).or_default().iter_mut().zip(more) {
                *sum += more;
            }
        }
        for (source, nanos) in facts.costs.iter() {
            *reported.costs.entry(source.as_str()).or_default() += nanos;
        }
        let HoldFacts { made, extended, settled, released, expired } = facts.holds;
        let changes = [made, extended, settled, released, expired];
        for (sum, more) in reported.holds.iter_mut().zip(changes) {
            *sum += more;
        }
    }

    fn failed(&self, _error: &StoreError) {
        self.0.lock().unwrap().failures += 1;
    }
}

struct Observed {
    world: World,
    recorder: Arc<Recorder>,
    faults: Faults,
    tenant_id: TenantId,
    integration_id: IntegrationId,
}

impl Observed {
    async fn new(limits: LimitSettings) -> Self {
        let (faults, recorder) = (Faults::default(), Arc::new(Recorder::default()));
        let of_writer = faults.clone();
        let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
        let world = World::observed(SQLITE, Arc::new(wrap), recorder.clone());
        let tenant_id = world.tenant("tenant").await;
        let integration_id = world.integration(tenant_id, "integration", limits).await;
        recorder.clear();
        Self { world, recorder, faults, tenant_id, integration_id }
    }

    fn usage(&self, call: &str) -> Usage {
        usage(self.integration_id, call)
    }

    async fn record(&self, usage: Usage) {
        self.world.ledger.record(self.tenant_id, vec![usage]).await.unwrap();
    }

    fn model(&self, model: &str) -> [i64; 6] {
        let key = (self.tenant_id, "openai".to_owned(), model.to_owned());
        self.recorder.read().models.get(&key).copied().unwrap_or_default()
    }
}

const CENT: i64 = 10_000_000;

#[tokio::test]
async fn new_records_are_reported_by_model_and_duplicates_are_not() {
    let observed = Observed::new(LimitSettings::default()).await;
    let mini = |call| Usage { model: "mini".into(), ..observed.usage(call) };
    let records = vec![
        observed.usage("a"),
        observed.usage("a"),
        Usage { error_code: Some("timeout".into()), ..observed.usage("b") },
        Usage { policy_result: PolicyResult::Blocked, ..mini("c") },
        Usage { cost: None, ..mini("d") },
        Usage { cost: Some(cents(5)), ..observed.usage("a") },
    ];
    observed.world.ledger.record(observed.tenant_id, records).await.unwrap();
    observed.record(observed.usage("b")).await;
    assert_eq!(observed.model("gpt"), [2, 1, 0, 0, 60, 2 * CENT]);
    assert_eq!(observed.model("mini"), [2, 0, 1, 1, 60, CENT]);
    let reported = observed.recorder.read();
    assert_eq!(reported.costs[CostSource::Reported.as_str()], 3 * CENT);
    assert_eq!(reported.costs[CostSource::Unknown.as_str()], 0);
    assert_eq!((reported.commands, reported.commits, reported.failures), (7, 2, 0));
}

#[tokio::test]
async fn changes_of_reservations_are_reported_by_kind() {
    let observed = Observed::new(budget(1_000)).await;
    let (ledger, tenant_id) = (&observed.world.ledger, observed.tenant_id);
    for call in ["settled", "released", "expired", "swept", "extended"] {
        ledger.reserve(tenant_id, request(observed.integration_id, call)).await.unwrap();
    }
    observed.record(Usage { cost: None, ..observed.usage("settled") }).await;
    ledger.release(tenant_id, call_id("released"), None).await.unwrap();
    ledger.release(tenant_id, call_id("released"), None).await.unwrap();
    ledger.extend(tenant_id, call_id("extended"), None, Some(3_600)).await.unwrap();
    assert_eq!(observed.recorder.read().holds, [5, 1, 1, 1, 0]);
    observed.world.clock.advance(601);
    // The record loads its call; the sweep does not load the call of the other hold.
    observed.record(observed.usage("expired")).await;
    ledger.sweep().await.unwrap();
    assert_eq!(observed.recorder.read().holds, [5, 1, 1, 1, 2]);
    assert_eq!(observed.recorder.read().costs[CostSource::Held.as_str()], 10 * CENT);
}

#[tokio::test]
async fn a_retried_transaction_is_reported_once() {
    let observed = Observed::new(LimitSettings::default()).await;
    // The first call allocates ids; then come begin, load, save and commit.
    for nth in 2..=5 {
        observed.faults.arm(nth, Fault::Retry);
        observed.record(observed.usage(&format!("call {nth}"))).await;
        assert!(!observed.faults.disarm(), "call {nth} was not made");
    }
    assert_eq!(observed.model("gpt"), [4, 0, 0, 0, 120, 4 * CENT]);
    let reported = observed.recorder.read();
    assert_eq!((reported.commits, reported.failures), (4, 4));
}

#[tokio::test]
async fn a_transaction_with_an_unknown_outcome_is_not_reported() {
    let observed = Observed::new(LimitSettings::default()).await;
    for nth in 2..=5 {
        observed.faults.arm(nth, Fault::ReplyLost);
        let sent = vec![observed.usage(&format!("call {nth}"))];
        let answer = observed.world.ledger.record(observed.tenant_id, sent).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let reported = observed.recorder.read();
    assert_eq!(reported.models, BTreeMap::new());
    assert_eq!((reported.commits, reported.failures), (0, 4));
}

#[tokio::test]
async fn a_split_group_is_reported_once_without_its_bad_command() {
    let observed = Observed::new(LimitSettings::default()).await;
    let poison = "create trigger poison before insert on usage_entries \
         when new.call_id = 'poison' begin select raise(abort, 'poison'); end";
    Connection::open(observed.world.database.path()).unwrap().execute_batch(poison).unwrap();
    let (ledger, tenant_id) = (&observed.world.ledger, observed.tenant_id);
    let mut commands: Vec<CommandFuture<'_, bool>> = Vec::new();
    for number in 0..40 {
        let call = if number == 17 { "poison".to_owned() } else { format!("call {number}") };
        let sent = vec![observed.usage(&call)];
        commands.push(Box::pin(async move { ledger.record(tenant_id, sent).await.is_ok() }));
    }
    let accepted = in_one_group(ledger, tenant_id, commands).await;
    assert_eq!(accepted.iter().filter(|is_accepted| **is_accepted).count(), 39);
    assert_eq!(observed.model("gpt"), [39, 0, 0, 0, 39 * 30, 39 * CENT]);
    assert!(observed.recorder.read().failures > 1, "the group was not split");
}
