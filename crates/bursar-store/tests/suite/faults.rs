//! If the n-th call of storage fails, for n = 1, 2, 3, ..., nothing is lost, doubled or half
//! written.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeMap;
use std::path::Path;

use bursar_core::{
    EntryId, Estimate, ExtendOutcome, IntegrationId, LimitSettings, RecordOutcome, RecordRefusal,
    ReleaseOutcome, ReserveOutcome, ReserveRequest, TenantId, TokenBuckets, Usage,
};
use bursar_store::{
    ControlRefusal, HistoryFilter, HistoryPart, IntegrationEdit, IntegrationFilter, NotWritable,
    Page, StoreError,
};
use rusqlite::Connection;

use crate::support::faulty::{Fault, Faults, FaultyWriter, with_repeats};
use crate::support::group::{CommandFuture, in_one_group};
use crate::support::{SQLITE, World, budget, call_id, cents, day, draft, request, usage};

const ALL: Page = Page { offset: 0, limit: 10_000 };

/// A client that repeats each command with the same call id until it gets an outcome.
struct Client {
    world: World,
    tenant_id: TenantId,
    /// The acknowledged entries, by call id.
    entries: BTreeMap<String, EntryId>,
}

impl Client {
    async fn record(&mut self, records: Vec<Usage>) {
        let ledger = &self.world.ledger;
        let outcomes = with_repeats(async || ledger.record(self.tenant_id, records.clone()).await);
        for (usage, outcome) in records.iter().zip(outcomes.await) {
            let (RecordOutcome::Accepted(id) | RecordOutcome::Duplicate(id)) = outcome else {
                unreachable!("{usage:?}: {outcome:?}")
            };
            let before = self.entries.insert(usage.call_id.as_str().to_owned(), id);
            assert!(before.is_none_or(|before| before == id), "two entries of {usage:?}");
        }
    }

    async fn hold(&self, request: ReserveRequest) {
        let ledger = &self.world.ledger;
        let outcome = with_repeats(async || ledger.reserve(self.tenant_id, request.clone()).await);
        let outcome = outcome.await;
        let held = matches!(outcome, ReserveOutcome::Held(_) | ReserveOutcome::Replayed(_));
        assert!(held, "{outcome:?}");
    }

    /// Requests more than is left.
    async fn exceed_budget(&self, integration_id: IntegrationId) {
        let estimate = Estimate { cost: cents(60), tokens: 1 };
        let request = ReserveRequest { estimate, ..request(integration_id, "too much") };
        let ledger = &self.world.ledger;
        let outcome = with_repeats(async || ledger.reserve(self.tenant_id, request.clone()).await);
        let outcome = outcome.await;
        assert!(matches!(outcome, ReserveOutcome::Refused(_)), "{outcome:?}");
    }

    async fn release(&self, call: &str) {
        let ledger = &self.world.ledger;
        let release = async || ledger.release(self.tenant_id, call_id(call), None).await;
        let outcome = with_repeats(release).await;
        assert!(matches!(outcome, ReleaseOutcome::Released(_)), "{outcome:?}");
    }

    async fn extend(&self, call: &str, ttl_seconds: u32) {
        let ledger = &self.world.ledger;
        let ttl = Some(ttl_seconds);
        let extend = async || ledger.extend(self.tenant_id, call_id(call), None, ttl).await;
        let outcome = with_repeats(extend).await;
        assert!(matches!(outcome, ExtendOutcome::Extended(_)), "{outcome:?}");
    }

    /// Creates an integration. If the reply was lost, it is found by its name.
    async fn create(&self, name: &'static str) -> IntegrationId {
        let create = async || {
            self.world
                .control(self.tenant_id, move |control| {
                    control.create_integration(draft(name, LimitSettings::default()))
                })
                .await
        };
        match with_repeats(create).await {
            Ok(row) => row.integration_id,
            Err(refusal) => {
                assert_eq!(refusal, ControlRefusal::NameTaken);
                let store = &self.world.store;
                let filter = IntegrationFilter::default();
                let listed = store.integrations(self.tenant_id, filter, ALL).await.unwrap();
                let mut named = listed.rows.iter().filter(|row| row.name == name);
                named.next().unwrap().integration_id
            }
        }
    }

    async fn update(&self, integration_id: IntegrationId, edit: IntegrationEdit) {
        let update = async || {
            let edit = edit.clone();
            self.world
                .control(self.tenant_id, move |control| {
                    control.update_integration(integration_id, edit.clone())
                })
                .await
        };
        with_repeats(update).await.unwrap();
    }

    /// Submits many commands in one group, and then repeats each on its own.
    async fn many_at_once(&mut self, integration_id: IntegrationId) {
        let (ledger, tenant_id) = (self.world.ledger.clone(), self.tenant_id);
        let records: Vec<Usage> =
            (0..6).map(|number| usage(integration_id, &format!("group {number}"))).collect();
        let mut commands: Vec<CommandFuture<'_, Result<(), StoreError>>> = Vec::new();
        for record in &records {
            let ledger = &ledger;
            commands.push(Box::pin(async move {
                ledger.record(tenant_id, vec![record.clone()]).await.map(|_| ())
            }));
        }
        let hold = request(integration_id, "group hold");
        let again = hold.clone();
        commands.push(Box::pin(async { ledger.reserve(tenant_id, again).await.map(|_| ()) }));
        commands.push(Box::pin(ledger.load_account(tenant_id, integration_id)));
        // Acknowledged or not, each repetition must find the same entry.
        drop(in_one_group(&ledger, tenant_id, commands).await);
        for record in records {
            self.record(vec![record]).await;
        }
        self.hold(hold).await;
    }
}

/// A record of a month long ago, with an agent and an error.
fn late(integration_id: IntegrationId, call: &str) -> Usage {
    Usage {
        agent_id: Some("agent".into()),
        model: "old".into(),
        error_code: Some("failed".into()),
        latency_ms: Some(700),
        tokens: TokenBuckets::new(100, 50, 30, 20, 10).unwrap(),
        occurred_at: Some(day(2025, 11, 30)),
        ..usage(integration_id, call)
    }
}

/// Runs every kind of command, on an existing integration.
async fn run_commands(client: &mut Client, limited: IntegrationId) {
    let free = client.create("free").await;
    client.record(vec![usage(limited, "single")]).await;
    let batch = vec![
        usage(limited, "batch 1"),
        late(limited, "batch 2"),
        late(free, "batch 3"),
        usage(free, "batch 4"),
        usage(limited, "single"),
    ];
    client.record(batch).await;
    for call in ["settled", "released", "extended"] {
        client.hold(request(limited, call)).await;
    }
    client.hold(ReserveRequest { ttl_seconds: 60, ..request(limited, "expired") }).await;
    client.exceed_budget(limited).await;
    client.record(vec![Usage { cost: None, ..usage(limited, "settled") }]).await;
    client.release("released").await;
    client.extend("extended", 900).await;
    client.many_at_once(limited).await;
    let edit = IntegrationEdit {
        name: Some("renamed".to_owned()),
        token_limit_month: Some(100_000),
        ..IntegrationEdit::default()
    };
    client.update(limited, edit).await;
    client.world.clock.advance(120);
    client.world.ledger.load_account(client.tenant_id, limited).await.ok();
    let ledger = client.world.ledger.clone();
    with_repeats(async || ledger.sweep().await).await;
    client.record(vec![usage(limited, "expired")]).await;
    client.hold(request(limited, "last")).await;
    client.exceed_budget(limited).await;
}

/// Runs all commands with a fault, and returns whether it occurred, and the stored rows.
async fn run_with(fault: Option<(usize, Fault)>) -> (bool, Vec<String>) {
    let faults = Faults::default();
    let of_writer = faults.clone();
    let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
    let world = World::wrapped(SQLITE, std::sync::Arc::new(wrap));
    let tenant_id = world.tenant("tenant").await;
    let limited = world.integration(tenant_id, "limited", budget(100)).await;
    let mut client = Client { world, tenant_id, entries: BTreeMap::new() };
    if let Some((nth, fault)) = fault {
        faults.arm(nth, fault);
    }
    run_commands(&mut client, limited).await;
    let occurred = !faults.disarm();

    let Client { world, entries, .. } = client;
    world.verify().await;
    let state = stored(&world.database.path());
    let world = world.reopened().await;
    world.verify().await;
    assert_eq!(stored(&world.database.path()), state, "after a restart");
    let counter = world.store.counter(tenant_id, limited, world.clock.now().month()).await.unwrap();
    let counted = counter.used.cost.checked_add(counter.held.cost).unwrap();
    assert!(counted <= cents(100), "{counted:?} of a dollar");
    let rows = world
        .store
        .usage_history(tenant_id, HistoryFilter::default(), HistoryPart::Whole(ALL))
        .await
        .unwrap()
        .rows;
    let found = rows.into_iter().map(|row| (row.call_id, row.entry_id)).collect();
    assert_eq!(entries, found, "acknowledged (left) and stored (right)");
    (occurred, state)
}

/// The stored rows, without ids and the audit log, which differ between runs.
fn stored(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut lines = Vec::new();
    for (columns, source) in [
        ("name || '|' || status || '|' || budget_limit_cents || '|' || token_limit_month", ""),
        (
            "name || '|' || e.call_id || '|' || cost_nanos || '|' || cost_source || '|' || \
             occurred_at || '|' || e.created_at || '|' || tokens_in",
            "join usage_entries e using (tenant_id, integration_id)",
        ),
        (
            "name || '|' || r.call_id || '|' || state || '|' || reserved_at || '|' || \
             expires_at || '|' || coalesce(ended_at, '-') || '|' || (entry_id is null)",
            "join reservations r using (tenant_id, integration_id) \
             join calls c using (tenant_id, call_key)",
        ),
        (
            "name || '|' || month || '|' || used_cost_nanos || '|' || used_calls || '|' || \
             held_cost_nanos || '|' || held_calls || '|' || last_at",
            "join counters c on c.tenant_id = i.tenant_id and c.scope_id = i.integration_id",
        ),
        (
            "name || '|' || slot || '|' || second || '|' || calls",
            "join rate_slots r on r.tenant_id = i.tenant_id and r.scope_id = i.integration_id",
        ),
        (
            "name || '|' || grain || '|' || start || '|' || label || '|' || calls || '|' || \
             cost_nanos",
            "join rollups r using (tenant_id, integration_id)",
        ),
    ] {
        let sql = format!("select {columns} from integrations i {source} order by 1");
        let mut statement = db.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        lines.extend(rows.map(|row| row.unwrap()));
    }
    lines
}

/// Checks that a run in which the n-th call fails ends like a run without a fault, for every n.
async fn leaves_no_trace(fault: Fault) {
    let (_, undisturbed) = run_with(None).await;
    for nth in 1.. {
        let (occurred, state) = run_with(Some((nth, fault))).await;
        assert_eq!(state, undisturbed, "after {fault:?} of call {nth}");
        if !occurred {
            // A run makes more calls than this; fewer would mean that nothing was tested.
            assert!(nth > 80, "only {nth} calls");
            return;
        }
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_leaves_no_trace() {
    leaves_no_trace(Fault::Unavailable).await;
}

#[tokio::test]
async fn a_refused_statement_leaves_no_trace() {
    leaves_no_trace(Fault::Refused).await;
}

#[tokio::test]
async fn a_lost_reply_leaves_no_trace() {
    leaves_no_trace(Fault::ReplyLost).await;
}

#[tokio::test]
async fn a_late_refusal_leaves_no_trace() {
    leaves_no_trace(Fault::RefusedLate).await;
}

#[tokio::test]
async fn a_panic_leaves_no_trace() {
    leaves_no_trace(Fault::Panics).await;
}

#[tokio::test]
async fn a_panic_after_a_call_leaves_no_trace() {
    leaves_no_trace(Fault::PanicsLate).await;
}

#[tokio::test]
async fn a_retried_transaction_leaves_no_trace() {
    leaves_no_trace(Fault::Retry).await;
}

#[tokio::test]
async fn a_retry_is_invisible_to_the_caller() {
    let faults = Faults::default();
    let of_writer = faults.clone();
    let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
    let world = World::wrapped(SQLITE, std::sync::Arc::new(wrap));
    let tenant_id = world.tenant("tenant").await;
    let limits = LimitSettings::default();
    let integration_id = world.integration(tenant_id, "integration", limits).await;
    // The first call allocates ids; then come begin, load, save and commit.
    for nth in 2..=5 {
        faults.arm(nth, Fault::Retry);
        let sent = usage(integration_id, &format!("call {nth}"));
        let outcome = world.ledger.record(tenant_id, vec![sent]).await;
        assert!(!faults.disarm(), "call {nth} was not made");
        let accepted = matches!(outcome.as_deref(), Ok([RecordOutcome::Accepted(_)]));
        assert!(accepted, "call {nth}: {outcome:?}");
    }
    world.verify().await;
}

/// Makes SQLite refuse the entries of some call ids.
const POISON: &str = "create trigger poison before insert on usage_entries \
     when new.call_id like 'poison%' begin select raise(abort, 'poison'); end";
/// Makes the commit of some entries fail, by a deferred constraint.
const DOUBT: &str = "create table doubts (doubt integer references empty_table \
     deferrable initially deferred); \
     create table empty_table (n integer primary key); \
     create trigger doubt after insert on usage_entries \
     when new.call_id like 'doubt%' begin insert into doubts values (1); end";

fn execute(world: &World, sql: &str) {
    Connection::open(world.database.path()).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn one_bad_command_does_not_affect_the_rest_of_its_group() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(1_000)).await;
    execute(&world, POISON);
    let ledger = &world.ledger;
    let mut commands: Vec<CommandFuture<'_, bool>> = Vec::new();
    for number in 0..60 {
        let call = if number % 13 == 5 { format!("poison {number}") } else { format!("{number}") };
        commands.push(Box::pin(async move {
            let outcome = ledger.record(tenant_id, vec![usage(integration_id, &call)]).await;
            match outcome.as_deref() {
                Ok([RecordOutcome::Accepted(_)]) => !call.starts_with("poison"),
                Err(error) => error.is_definite() && call.starts_with("poison"),
                Ok(_) => false,
            }
        }));
        let hold = request(integration_id, &format!("hold {number}"));
        commands.push(Box::pin(async move {
            matches!(ledger.reserve(tenant_id, hold).await, Ok(ReserveOutcome::Held(_)))
        }));
    }
    let expected = in_one_group(ledger, tenant_id, commands).await;
    assert_eq!(expected.len(), 120);
    assert!(expected.iter().all(|is_expected| *is_expected), "{expected:?}");
    world.verify().await;

    execute(&world, "drop trigger poison");
    let again = usage(integration_id, "poison 5");
    let outcome = world.ledger.record(tenant_id, vec![again]).await.unwrap();
    assert!(matches!(outcome.as_slice(), [RecordOutcome::Accepted(_)]), "{outcome:?}");
    world.verify().await;
}

#[tokio::test]
async fn a_batch_with_a_bad_record_stores_the_good_ones() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id =
        world.integration(tenant_id, "integration", LimitSettings::default()).await;
    execute(&world, POISON);
    let good: Vec<Usage> =
        (0..20).map(|number| usage(integration_id, &format!("call {number}"))).collect();
    let mut batch = good.clone();
    batch.insert(7, usage(integration_id, "poison"));
    let outcomes = world.ledger.record(tenant_id, batch).await.unwrap();
    let refused =
        |outcome: &RecordOutcome| *outcome == RecordOutcome::Refused(RecordRefusal::NotStorable);
    assert_eq!(outcomes.iter().position(refused), Some(7));
    assert_eq!(outcomes.iter().filter(|outcome| refused(outcome)).count(), 1);
    let outcomes = world.ledger.record(tenant_id, good).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, RecordOutcome::Duplicate(_))));
    world.verify().await;
}

#[tokio::test]
async fn a_failed_commit_drops_its_group_only() {
    let world = World::new(SQLITE);
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(100)).await;
    let record = usage(integration_id, "before");
    world.ledger.record(tenant_id, vec![record]).await.unwrap();
    for call in ["kept", "settled"] {
        world.ledger.reserve(tenant_id, request(integration_id, call)).await.unwrap();
    }
    let before = stored(&world.database.path());
    execute(&world, DOUBT);

    let ledger = &world.ledger;
    let calls = ["a", "settled", "doubt", "b"];
    let record = |call: &'static str| -> CommandFuture<'_, Result<Vec<RecordOutcome>, StoreError>> {
        Box::pin(ledger.record(tenant_id, vec![usage(integration_id, call)]))
    };
    let outcomes = in_one_group(ledger, tenant_id, calls.map(record).into()).await;
    assert_eq!(outcomes.len(), calls.len());
    for outcome in outcomes {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(stored(&world.database.path()), before);
    world.verify().await;

    // What was in memory is read again: the limit counts what was held and used before.
    execute(&world, "drop trigger doubt; drop table doubts; drop table empty_table");
    let fits = |call: &str, cost| ReserveRequest {
        estimate: Estimate { cost: cents(cost), tokens: 1 },
        ..request(integration_id, call)
    };
    let refused = ledger.reserve(tenant_id, fits("too much", 80)).await.unwrap();
    assert!(matches!(refused, ReserveOutcome::Refused(_)), "{refused:?}");
    for call in calls {
        let again = ledger.record(tenant_id, vec![usage(integration_id, call)]).await.unwrap();
        assert!(matches!(again.as_slice(), [RecordOutcome::Accepted(_)]), "{call}: {again:?}");
    }
    let held = ledger.reserve(tenant_id, fits("rest", 85)).await.unwrap();
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
    world.verify().await;
    world.reopened().await.verify().await;
}

#[tokio::test]
async fn a_full_disk_is_reported_until_a_write_probe_succeeds() {
    let faults = Faults::default();
    let of_writer = faults.clone();
    let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
    let world = World::wrapped(SQLITE, std::sync::Arc::new(wrap));
    let tenant_id = world.tenant("tenant").await;
    let integration_id = world.integration(tenant_id, "integration", budget(100)).await;
    let ledger = &world.ledger;
    let is_full = |result: &Result<(), StoreError>| {
        matches!(result, Err(StoreError::NotWritable { reason: NotWritable::DiskFull, .. }))
    };
    assert!(ledger.check_writable().is_ok());
    // The calls of a group: ids, begin, load, save and commit.
    faults.arm(5, Fault::DiskFull);
    let refused = ledger.record(tenant_id, vec![usage(integration_id, "call")]).await;
    assert!(is_full(&refused.map(|_| ())));
    // A group that writes nothing does not end the doubt.
    ledger.load_account(tenant_id, integration_id).await.unwrap();
    assert!(is_full(&ledger.check_writable()));
    // Neither does one that fits into space that the file already has.
    ledger.record(tenant_id, vec![usage(integration_id, "in old room")]).await.unwrap();
    assert!(is_full(&ledger.check_writable()));
    // A probe calls begin, write and commit.
    for nth in 1..=3 {
        faults.arm(nth, Fault::DiskFull);
        assert!(is_full(&ledger.probe_writes().await), "call {nth}");
        assert!(is_full(&ledger.check_writable()), "call {nth}");
    }
    ledger.probe_writes().await.unwrap();
    assert!(ledger.check_writable().is_ok());
    let again = ledger.record(tenant_id, vec![usage(integration_id, "call")]).await.unwrap();
    assert!(matches!(again.as_slice(), [RecordOutcome::Accepted(_)]), "{again:?}");
    world.verify().await;
}

#[tokio::test]
async fn a_failed_write_outside_a_group_also_reports_a_full_disk() {
    let faults = Faults::default();
    let of_writer = faults.clone();
    let wrap = move |writer| Box::new(FaultyWriter::new(writer, of_writer.clone())) as Box<_>;
    let world = World::wrapped(SQLITE, std::sync::Arc::new(wrap));
    let ledger = &world.ledger;
    faults.arm(1, Fault::DiskFull);
    assert!(ledger.confirm_clock().await.is_err());
    assert!(ledger.check_writable().is_err());
    ledger.probe_writes().await.unwrap();
    assert!(ledger.check_writable().is_ok());
    // The first call of a sweep saves the clock and finds due holds.
    faults.arm(1, Fault::DiskFull);
    ledger.sweep().await.unwrap();
    assert!(ledger.check_writable().is_err());
}

#[tokio::test]
async fn write_probes_do_not_grow_the_data() {
    let world = World::new(SQLITE);
    let pages = || {
        let db = Connection::open(world.database.path()).unwrap();
        db.query_row("pragma page_count", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    world.ledger.probe_writes().await.unwrap();
    let once = pages();
    for _ in 0..50 {
        world.ledger.probe_writes().await.unwrap();
    }
    assert_eq!(pages(), once);
    let log = world.database.path().with_extension("db-wal").metadata().unwrap().len();
    assert!(log < 256 * 1024, "a log of {log} bytes");
}
