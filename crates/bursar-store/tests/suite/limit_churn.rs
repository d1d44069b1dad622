//! Limits are made, changed, disabled and deleted at random while calls go on: no command fails, no
//! change is lost, and every account adds up afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bursar_core::{
    Action, Allowance, Bound, CalendarUnit, Caps, IntegrationId, KeyId, Label, NANOS_PER_CENT,
    Override, Quantity, ReserveOutcome, ReserveRequest, Scope, TenantId, Timestamp, Usage, Window,
};
use bursar_store::{ControlTx, Ledger, LimitRow, Observer, StoreError, SweepOutcome, Value};
use bursar_testing::chance::Chance;
use bursar_testing::waiting::scale;
use tokio::task::JoinSet;

use crate::support::limit_recount::{KnownLimit, check_limits};
use crate::support::limits::{
    calendar, calls, concurrent, cost, daily, each, limit, limit_sums, only, subject_of, tokens,
};
use crate::support::nodes::{Node, Nodes};
use crate::support::postgres_database::POSTGRES;
use crate::support::{NewDatabase, SQLITE, call_id, day, request, usage};

const CLIENTS: usize = 24;
/// The limits that a changer keeps.
const LIMITS_MAX: usize = 6;
/// The limit on the time of a change of a limit, which waits for groups of commands. A database
/// gives up after five seconds.
const CHANGE_MAX: Duration = Duration::from_secs(4);

/// Counts failed transactions, except those that the writer retries.
#[derive(Default)]
struct Failures(AtomicUsize);

impl Observer for Failures {
    fn failed(&self, error: &StoreError) {
        if !matches!(error, StoreError::Retry(_)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What all tasks of a run share.
struct Run {
    nodes: Nodes,
    tenant_id: TenantId,
    integrations: [IntegrationId; 2],
    is_over: AtomicBool,
    next_limit: AtomicI64,
    done: AtomicUsize,
    changes: AtomicUsize,
}

impl Run {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// A limit of any kind. None takes the place of another, because the recount knows only the limits
/// of the end.
fn any_limit(run: &Run, chance: &mut Chance) -> LimitRow {
    let scope = chance.one_of(&[
        Scope::Tenant,
        Scope::Integration(run.integrations[0]),
        each(Label::Agent),
        each(Label::Key),
        only(Label::Model, "gpt"),
        each(Label::Session),
    ]);
    let number = run.next_limit.fetch_add(1, Ordering::SeqCst);
    limit(run.tenant_id, number, scope, any_bound(chance))
}

fn any_bound(chance: &mut Chance) -> Bound {
    let zones = ["UTC", "Europe/Berlin"].map(|zone| calendar(CalendarUnit::Day, zone));
    let total = Window::Total { starts_at: Timestamp::MIN };
    let window = chance.one_of(&[Window::Minute, daily(), zones[1].clone(), total]);
    match chance.between(1, 4) {
        1 => cost(window, chance.between(50, 5_000)),
        2 => tokens(window, chance.between(500, 50_000).into()),
        3 => calls(window, chance.between(5, 500).into()),
        _ => concurrent(chance.between(5, 50).into()),
    }
}

/// Changes what a limit allows and does.
fn change(row: &mut LimitRow, chance: &mut Chance, now: Timestamp) {
    row.limit.enabled = chance.percent(70);
    row.limit.rule.action = chance.one_of(&[Action::Block, Action::Throttle, Action::Warn]);
    if let Bound::Cost(window, _) = row.limit.rule.bound.clone() {
        let until = now.plus_seconds(chance.between(1, 30) as u32);
        let amount = Quantity::new((chance.between(1, 9) * NANOS_PER_CENT).into());
        let overridden = chance.percent(50).then_some(Override { amount, until });
        let allowance = Allowance { overridden, ..Allowance::new((100 * NANOS_PER_CENT).into()) };
        row.limit.rule.bound = Bound::Cost(window, allowance);
    }
}

/// One change in a transaction of its own; returns the version of the limits after it.
async fn run_change(
    ledger: &Ledger,
    tenant_id: TenantId,
    write: impl Fn(&mut dyn ControlTx) -> Result<(), StoreError> + Send + 'static,
) -> i64 {
    let started = Instant::now();
    let version = "select version from limit_sets where tenant_id = $1";
    let changed = ledger.change(tenant_id, move |tx| {
        tx.lock_limits(tenant_id)?;
        write(tx)?;
        let (mut found, key) = (0, [Value::Int(Some(tenant_id.number()))]);
        tx.select(tenant_id, version.into(), &key, &mut |row| {
            found = row.opt_number(0)?.unwrap();
            Ok(())
        })?;
        Ok(found)
    });
    let version = changed.await.unwrap();
    let taken = started.elapsed();
    assert!(taken < CHANGE_MAX, "a change of a limit took {taken:?}");
    version
}

/// Makes, changes and deletes limits of its own; returns those that are left.
async fn change_limits(run: Arc<Run>, node: Node, seed: u64) -> Vec<KnownLimit> {
    let (mut chance, tenant_id) = (Chance::new(seed), run.tenant_id);
    let mut own: Vec<KnownLimit> = Vec::new();
    while !run.is_over() {
        let ledger = &node.ledger;
        let at = chance.below(own.len().max(1) as u64) as usize;
        if own.len() < LIMITS_MAX && chance.percent(50) || own.is_empty() {
            let row = any_limit(&run, &mut chance);
            let put = row.clone();
            let since = run_change(ledger, tenant_id, move |tx| tx.put_limit(&put)).await;
            own.push(KnownLimit { row, since });
        } else if chance.percent(25) {
            let id = own.swap_remove(at).row.limit.id;
            run_change(ledger, tenant_id, move |tx| tx.delete_limit(tenant_id, id)).await;
        } else if let Some(known) = own.get_mut(at) {
            let before = known.row.clone();
            change(&mut known.row, &mut chance, run.nodes.clock.now());
            let row = known.row.clone();
            let changed = move |tx: &mut dyn ControlTx| {
                assert_eq!(tx.limit(tenant_id, before.limit.id)?.as_ref(), Some(&before));
                tx.put_limit(&row)
            };
            run_change(ledger, tenant_id, changed).await;
        }
        run.changes.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    own
}

fn any_request(run: &Run, chance: &mut Chance, call: &str) -> ReserveRequest {
    ReserveRequest {
        model: chance.percent(70).then(|| "gpt".into()),
        agent_id: chance.percent(80).then(|| format!("agent {}", chance.between(1, 6)).into()),
        session_id: chance.percent(50).then(|| format!("session {}", chance.between(1, 40)).into()),
        account_key_id: KeyId::from_number(chance.between(1, 3)),
        ttl_seconds: chance.between(1, 40) as u32,
        ..request(chance.one_of(&run.integrations), call)
    }
}

/// Reserves calls, and records, releases, extends or abandons them.
async fn make_calls(run: Arc<Run>, ledger: Ledger, seed: u64) {
    let (mut chance, tenant_id) = (Chance::new(seed), run.tenant_id);
    for number in 0.. {
        if run.is_over() {
            return;
        }
        let call = format!("{seed} {number}");
        let asked = any_request(&run, &mut chance, &call);
        let record = Usage {
            agent_id: if chance.percent(10) { None } else { asked.agent_id.clone() },
            session_id: asked.session_id.clone(),
            account_key_id: asked.account_key_id,
            ..usage(asked.integration_id, &call)
        };
        let is_reserved = chance.percent(80);
        if is_reserved {
            let held = ledger.reserve(tenant_id, asked).await.unwrap();
            if !matches!(held, ReserveOutcome::Held(_)) {
                continue;
            }
        }
        match chance.between(1, 10) {
            1..=5 => drop(ledger.record(tenant_id, vec![record]).await.unwrap()),
            6 | 7 => drop(ledger.release(tenant_id, call_id(&call), None).await.unwrap()),
            8 => drop(ledger.extend(tenant_id, call_id(&call), None, Some(50)).await.unwrap()),
            _ => {}
        }
        run.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Reads the accounts of calls, sweeps, and lets time pass.
async fn read_and_sweep(run: Arc<Run>, node: Node, seed: u64) {
    let mut chance = Chance::new(seed);
    while !run.is_over() {
        let of = subject_of(&any_request(&run, &mut chance, "any"));
        limit_sums(node.store.as_ref(), run.tenant_id, &of).await;
        if chance.percent(20) {
            node.ledger.sweep().await.unwrap();
        }
        if chance.percent(10) {
            run.nodes.clock.advance(1);
        }
    }
}

async fn limits_that_change_under_load_add_up(database: NewDatabase, count: usize) {
    let failures = Arc::new(Failures::default());
    let observer = Arc::clone(&failures) as Arc<dyn Observer>;
    let nodes = Nodes::new(database, count, &observer, Caps::DEFAULT);
    nodes.clock.set(day(2026, 3, 14).plus_seconds(86_400 - 60));
    let (tenant_id, one) = nodes.account().await;
    let integrations = [one, nodes.integration(tenant_id, "other").await];
    let run = Arc::new(Run {
        nodes,
        tenant_id,
        integrations,
        is_over: AtomicBool::new(false),
        next_limit: AtomicI64::new(1),
        done: AtomicUsize::new(0),
        changes: AtomicUsize::new(0),
    });
    let (mut tasks, mut changers) = (JoinSet::new(), JoinSet::new());
    for client in 0..CLIENTS {
        let ledger = run.nodes.node(client).ledger;
        tasks.spawn(make_calls(Arc::clone(&run), ledger, 100 + client as u64));
    }
    for task in 0..2 {
        let (changing, reading) = (run.nodes.node(task), run.nodes.node(task + 1));
        changers.spawn(change_limits(Arc::clone(&run), changing, task as u64));
        tasks.spawn(read_and_sweep(Arc::clone(&run), reading, 50 + task as u64));
    }
    let length = scale(Duration::from_secs(10), Duration::from_secs(180));
    let ended = tokio::time::timeout(length, async {
        // A task that panics ends the run at once.
        tokio::select! {
            ended = tasks.join_next() => ended.unwrap().unwrap(),
            ended = changers.join_next() => drop(ended.unwrap().unwrap()),
        }
    });
    assert!(ended.await.is_err(), "a task ended early");
    run.is_over.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    let left: Vec<KnownLimit> = changers.join_all().await.into_iter().flatten().collect();

    let (done, changes) = (run.done.load(Ordering::SeqCst), run.changes.load(Ordering::SeqCst));
    println!("{done} calls and {changes} changes");
    assert!(done >= 500 && changes >= 50, "{done} calls and {changes} changes");
    assert_eq!(failures.0.load(Ordering::SeqCst), 0, "transactions failed");
    let Nodes { nodes, database, clock } = &run.nodes;
    let mut expected: Vec<LimitRow> = left.iter().map(|known| known.row.clone()).collect();
    expected.sort_by_key(|row| row.limit.id);
    let stored = nodes.first().unwrap().store.limits(tenant_id).await.unwrap();
    assert_eq!(stored, expected, "a change was lost");
    check_limits(database.as_ref(), &left, clock.now());
    clock.advance(100);
    let first = &nodes.first().unwrap().ledger;
    while first.sweep().await.unwrap() == SweepOutcome::Partial {}
    check_limits(database.as_ref(), &left, clock.now());
    assert!(database.rows(&["select limit_id from postings"]).concat().is_empty());
    assert_eq!(database.verify().differences.count, 0);
    run.nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_that_change_under_load_add_up_on_three_nodes() {
    limits_that_change_under_load_add_up(POSTGRES, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_that_change_under_load_add_up_on_a_file() {
    limits_that_change_under_load_add_up(SQLITE, 1).await;
}
