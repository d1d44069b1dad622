//! If the n-th call of storage fails under limits, for n = 1, 2, 3, ..., the accounts end up the same,
//! and what is in memory equals what is stored.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a missing row fails the test")]

use std::sync::Arc;

use bursar_core::{
    CalendarUnit, ExtendOutcome, IntegrationId, KeyId, Label, LimitSettings, RecordOutcome,
    ReleaseOutcome, ReserveOutcome, ReserveRequest, Scope, TenantId, Timestamp, Usage, Window,
};
use bursar_store::{ControlTx, StoreError};
use bursar_testing::waiting::scale;

use crate::support::faulty::{Fault, Faults, FaultyWriter, with_repeats};
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::limits::{
    LimitSums, calendar, calls, concurrent, cost, daily, each, limit, limit_id, limit_sums, only,
    subject_of, tokens,
};
use crate::support::postgres_database::POSTGRES;
use crate::support::{NewDatabase, SQLITE, World, call_id, cents, request, usage};

/// A tenant that repeats each command until it gets an outcome.
struct Client<'w> {
    world: &'w World,
    tenant_id: TenantId,
    integration_id: IntegrationId,
}

impl Client<'_> {
    fn request(&self, agent: &str, call: &str) -> ReserveRequest {
        ReserveRequest {
            model: Some("gpt".into()),
            agent_id: Some(agent.into()),
            account_key_id: KeyId::from_number(7),
            ..request(self.integration_id, call)
        }
    }

    fn usage(&self, agent: &str, call: &str) -> Usage {
        Usage {
            agent_id: Some(agent.into()),
            account_key_id: KeyId::from_number(7),
            ..usage(self.integration_id, call)
        }
    }

    async fn change(
        &self,
        change: impl Fn(&mut dyn ControlTx) -> Result<(), StoreError> + Clone + Send + 'static,
    ) {
        let (ledger, tenant_id) = (&self.world.ledger, self.tenant_id);
        let changed = async || {
            let change = change.clone();
            let locked = move |tx: &mut dyn ControlTx| {
                tx.lock_limits(tenant_id)?;
                change(tx)
            };
            ledger.change(tenant_id, locked).await
        };
        with_repeats(changed).await;
    }

    async fn put(&self, number: i64, scope: Scope, bound: bursar_core::Bound) {
        let row = limit(self.tenant_id, number, scope, bound);
        self.change(move |tx| tx.put_limit(&row)).await;
    }

    async fn delete(&self, number: i64) {
        let tenant_id = self.tenant_id;
        self.change(move |tx| tx.delete_limit(tenant_id, limit_id(number))).await;
    }

    async fn hold(&self, request: ReserveRequest) {
        let ledger = &self.world.ledger;
        let outcome =
            with_repeats(async || ledger.reserve(self.tenant_id, request.clone()).await).await;
        let held = matches!(outcome, ReserveOutcome::Held(_) | ReserveOutcome::Replayed(_));
        assert!(held, "{outcome:?}");
    }

    async fn exceed(&self, call: &str) {
        let mut request = self.request("agent", call);
        request.estimate.cost = cents(100_000);
        let ledger = &self.world.ledger;
        let outcome =
            with_repeats(async || ledger.reserve(self.tenant_id, request.clone()).await).await;
        assert!(matches!(outcome, ReserveOutcome::Refused(_)), "{outcome:?}");
    }

    async fn record(&self, usage: Usage) {
        let (ledger, records) = (&self.world.ledger, vec![usage]);
        let outcomes = with_repeats(async || ledger.record(self.tenant_id, records.clone()).await);
        let outcomes = outcomes.await;
        let is_stored = |one: &RecordOutcome| {
            matches!(one, RecordOutcome::Accepted(_) | RecordOutcome::Duplicate(_))
        };
        assert!(outcomes.iter().all(is_stored), "{outcomes:?}");
    }

    /// New values, an ended hold and a new one, in one group; then each on its own.
    async fn many_at_once(&self) {
        let ledger = &self.world.ledger;
        let hold = self.request("held by a group", "group hold");
        let records: Vec<Usage> = (0..4)
            .map(|agent| self.usage(&format!("new {agent}"), &format!("group {agent}")))
            .collect();
        let mut commands: Vec<CommandFuture<'_, Result<(), StoreError>>> = Vec::new();
        for record in &records {
            commands.push(Box::pin(async {
                ledger.record(self.tenant_id, vec![record.clone()]).await.map(|_| ())
            }));
        }
        let again = hold.clone();
        commands.push(Box::pin(async { ledger.reserve(self.tenant_id, again).await.map(|_| ()) }));
        drop(in_one_group(ledger, self.tenant_id, commands).await);
        for record in records {
            self.record(record).await;
        }
        self.hold(hold).await;
    }

    /// What readers see of the accounts of some calls.
    async fn sums(&self) -> Vec<Vec<LimitSums>> {
        let mut sums = Vec::new();
        for agent in ["agent", "another", "new 1", "held by a group"] {
            let of = subject_of(&self.request(agent, "any"));
            sums.push(limit_sums(self.world.store.as_ref(), self.tenant_id, &of).await);
        }
        sums
    }
}

/// Every kind of step that touches a limit.
async fn run_commands(client: &Client<'_>) {
    let (world, tenant_id) = (client.world, client.tenant_id);
    let total = Window::Total { starts_at: Timestamp::MIN };
    client.put(1, Scope::Tenant, cost(daily(), 500)).await;
    client.put(2, each(Label::Agent), tokens(Window::Minute, 1_000)).await;
    client.put(3, each(Label::Key), concurrent(10)).await;
    client.put(4, only(Label::Agent, "agent"), calls(total, 100)).await;
    for call in ["settled", "released", "extended", "open"] {
        client.hold(client.request("agent", call)).await;
    }
    let short = ReserveRequest { ttl_seconds: 60, ..client.request("agent", "expired") };
    client.hold(short).await;
    client.exceed("too much").await;
    client.record(client.usage("another", "settled")).await;
    client.record(client.usage("another", "not reserved")).await;
    let ledger = &world.ledger;
    let release = async || ledger.release(tenant_id, call_id("released"), None).await;
    let released = with_repeats(release).await;
    assert!(matches!(released, ReleaseOutcome::Released(_)), "{released:?}");
    client.delete(3).await;
    let extend = async || ledger.extend(tenant_id, call_id("extended"), None, Some(900)).await;
    let extended = with_repeats(extend).await;
    assert!(matches!(extended, ExtendOutcome::Extended(_)), "{extended:?}");
    client.put(1, Scope::Tenant, cost(daily(), 800)).await;
    client.put(5, each(Label::Model), cost(calendar(CalendarUnit::Day, "Europe/Berlin"), 90)).await;
    client.many_at_once().await;
    let tenant_wide = move |tx: &mut dyn ControlTx| {
        let mut row = tx.limit(tenant_id, limit_id(1))?.unwrap();
        row.limit.enabled = false;
        tx.put_limit(&row)
    };
    client.change(tenant_wide).await;
    client.hold(client.request("agent", "under the new")).await;
    world.clock.advance(120);
    with_repeats(async || ledger.sweep().await).await;
    client.record(client.usage("agent", "expired")).await;
    client.delete(4).await;
}

/// The stored rows of a tenant's limits, without what differs between runs.
fn stored(world: &World, tenant_id: TenantId) -> Vec<String> {
    let statements = [
        "select tenant_id, limit_id, name, amount, enabled from limits",
        "select tenant_id, limit_id, value, period_start, used_cost_nanos, used_tokens, \
         used_calls, held_cost_nanos, held_tokens, held_calls, last_at from limit_accounts",
        "select tenant_id, limit_id, value, slot, second, used_cost_nanos, used_tokens, \
         used_calls, held_cost_nanos, held_tokens, held_calls from limit_seconds",
        "select tenant_id, limit_id, period_start, accounts from limit_values",
        "select tenant_id, limit_id, value, expires_at, period_start, cost_nanos, tokens \
         from postings",
    ];
    let own = Some(tenant_id.number().to_string());
    let mut lines = Vec::new();
    for (sql, rows) in statements.iter().zip(world.database.rows(&statements)) {
        let table = sql.rsplit(' ').next().unwrap();
        let rows = rows.into_iter().filter(|row| row[0] == own);
        lines.extend(rows.map(|row| format!("{table} {:?}", &row[1..])));
    }
    lines.sort();
    lines
}

/// What a run leaves: the rows, and what readers see.
type Left = (Vec<String>, Vec<Vec<LimitSums>>);

/// Runs all commands with a fault, and returns whether it occurred, and what is left.
async fn run_with(database: NewDatabase, fault: Option<(usize, Fault)>) -> (bool, Left) {
    let faults = Faults::default();
    let of_writer = faults.clone();
    let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
    let world = World::wrapped(database, Arc::new(wrap));
    let tenant_id = world.tenant("tenant").await;
    let integration_id =
        world.integration(tenant_id, "integration", LimitSettings::default()).await;
    if let Some((nth, fault)) = fault {
        faults.arm(nth, fault);
    }
    run_commands(&Client { world: &world, tenant_id, integration_id }).await;
    let occurred = !faults.disarm();
    let left = async |world: &World| {
        let sums = Client { world, tenant_id, integration_id }.sums().await;
        (stored(world, tenant_id), sums)
    };
    let before = left(&world).await;
    let world = world.reopened().await;
    assert_eq!(before, left(&world).await, "in memory (left) and after a restart: {fault:?}");
    (occurred, before)
}

/// Checks that a run in which the n-th call fails ends like a run without a fault, for each n from
/// `first` on, or in an ordinary run for some of them.
async fn leaves_no_trace(database: NewDatabase, fault: Fault, (first, step): (usize, usize)) {
    let (_, undisturbed) = run_with(database, None).await;
    let calls = scale((first..).step_by(step), (1..).step_by(1));
    for nth in calls {
        let (occurred, left) = run_with(database, Some((nth, fault))).await;
        assert_eq!(left, undisturbed, "after {fault:?} of call {nth}");
        if !occurred {
            // A run makes more calls than this; fewer would mean that nothing was tested.
            assert!(nth > 80, "only {nth} calls");
            return;
        }
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::Unavailable, (1, 4)).await;
}

#[tokio::test]
async fn a_refused_statement_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::Refused, (2, 4)).await;
}

#[tokio::test]
async fn a_lost_reply_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::ReplyLost, (1, 3)).await;
}

#[tokio::test]
async fn a_late_refusal_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::RefusedLate, (2, 3)).await;
}

#[tokio::test]
async fn a_panic_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::Panics, (3, 4)).await;
}

#[tokio::test]
async fn a_panic_after_a_call_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::PanicsLate, (3, 3)).await;
}

#[tokio::test]
async fn a_retried_transaction_leaves_no_trace_in_limits() {
    leaves_no_trace(SQLITE, Fault::Retry, (4, 4)).await;
}

#[tokio::test]
async fn a_fault_on_postgresql_leaves_no_trace_in_limits() {
    let faults = [Fault::ReplyLost, Fault::Retry, Fault::PanicsLate, Fault::Unavailable];
    for (place, fault) in faults.into_iter().enumerate() {
        leaves_no_trace(POSTGRES, fault, (4 + place, 31)).await;
    }
}
