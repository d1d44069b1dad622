//! Writers of several nodes on one PostgreSQL database.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeSet;
use std::sync::Arc;

use bursar_core::{
    Caps, RecordOutcome, ReleaseOutcome, ReservationCap, ReserveOutcome, ReserveRefusal,
    TenantLifecycle,
};
use bursar_store::{
    AuditKey, Control, KeyDraft, Ledger, NoopObserver, PostgresOptions, PostgresStore,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use tokio::task::JoinSet;

use crate::support::accounts::{create_account, create_integration};
use crate::support::{actor, budget, call_id, request, usage};

fn migrate(owner_url: &str, app_role: &str) {
    PostgresStore::migrate(owner_url, app_role).unwrap();
}

/// A node on a database.
fn node(database: &Database) -> Ledger {
    capped_node(database, Caps::DEFAULT)
}

/// A node on a database, with other caps.
fn capped_node(database: &Database, caps: Caps) -> Ledger {
    let options = PostgresOptions {
        writers: 2,
        readers: 2,
        secret_fingerprint: "fingerprint".to_owned(),
        audit_key: AuditKey::new([7; 32]),
        clock: None,
    };
    let (_store, writers) = PostgresStore::open(database.app_url(), &options).unwrap();
    Ledger::start(writers, Arc::new(NoopObserver), caps).unwrap()
}

/// The single value that a statement returns.
fn text_of(database: &Database, sql: &str) -> String {
    database.run(sql).into_iter().flatten().flatten().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_reserved_recorded_and_repeated_on_any_node() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let (one, other) = (node(&database), node(&database));
    let (tenant_id, integration_id) = create_account(&one, budget(100)).await;

    let held = one.reserve(tenant_id, request(integration_id, "call")).await.unwrap();
    assert!(matches!(held, ReserveOutcome::Held(_)), "{held:?}");
    let again = other.reserve(tenant_id, request(integration_id, "call")).await.unwrap();
    assert!(matches!(again, ReserveOutcome::Replayed(_)), "{again:?}");

    let records = vec![usage(integration_id, "call"), usage(integration_id, "other")];
    let accepted = other.record(tenant_id, records.clone()).await.unwrap();
    let ids: Vec<_> = accepted
        .iter()
        .map(|outcome| match outcome {
            RecordOutcome::Accepted(id) => *id,
            RecordOutcome::Duplicate(_) | RecordOutcome::Conflict | RecordOutcome::Refused(_) => {
                unreachable!("{outcome:?}")
            }
        })
        .collect();
    let repeated = one.record(tenant_id, records).await.unwrap();
    let duplicates: Vec<_> = ids.into_iter().map(RecordOutcome::Duplicate).collect();
    assert_eq!(repeated, duplicates);
    let released = one.release(tenant_id, call_id("call"), None).await.unwrap();
    assert_eq!(released, ReleaseOutcome::Settled);
    let sums = "select used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_calls \
         from counters";
    let sums: Vec<String> = database.run(sums).iter().map(|row| format!("{row:?}")).collect();
    assert_eq!(sums.len(), 1, "{sums:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_for_ten_admits_ten_on_any_writer() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let nodes = [node(&database), node(&database), node(&database)];
    let (tenant_id, integration_id) = create_account(&nodes[0], budget(100)).await;
    let mut tasks = JoinSet::new();
    for task in 0..64_usize {
        let node = nodes.get(task % 3).unwrap().clone();
        tasks.spawn(async move {
            let mut admitted = BTreeSet::new();
            for number in 0..16 {
                let call = format!("{task} {number}");
                let outcome = node.reserve(tenant_id, request(integration_id, &call)).await;
                if let ReserveOutcome::Held(_) = outcome.unwrap() {
                    admitted.insert(call);
                }
            }
            admitted
        });
    }
    let admitted: BTreeSet<String> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(admitted.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_never_exceeds_its_open_reservations_on_any_writer() {
    const MAX: usize = 50;
    let database = Database::migrated(Cluster::shared(), migrate);
    let caps = Caps { reservations_per_tenant: MAX as i64, ..Caps::DEFAULT };
    let nodes = [(); 3].map(|()| capped_node(&database, caps));
    let (tenant_id, first) = create_account(&nodes[0], budget(0)).await;
    let mut integrations = vec![first];
    for name in ["b", "c", "d", "e", "f"] {
        integrations.push(create_integration(&nodes[0], tenant_id, name, budget(0)).await);
    }
    let mut tasks = JoinSet::new();
    // Each integration has its own node, so that their writers share only the cap's row.
    for task in 0..48_usize {
        let node = nodes.get(task % 3).unwrap().clone();
        let integration_id = *integrations.get(task % 6).unwrap();
        tasks.spawn(async move {
            let mut open = 0_usize;
            for number in 0..12 {
                let call = format!("{task} {number}");
                let outcome = node.reserve(tenant_id, request(integration_id, &call)).await;
                match outcome.unwrap() {
                    ReserveOutcome::Held(_) => open += 1,
                    ReserveOutcome::Rejected(ReserveRefusal::TooManyOpen(bound)) => {
                        assert_eq!(bound, ReservationCap::Tenant(MAX as i64));
                        continue;
                    }
                    outcome @ (ReserveOutcome::Replayed(_)
                    | ReserveOutcome::Refused(_)
                    | ReserveOutcome::Rejected(_)) => unreachable!("{outcome:?}"),
                }
                if number % 3 == 0 {
                    node.release(tenant_id, call_id(&call), None).await.unwrap();
                    open -= 1;
                }
            }
            open
        });
    }
    let watch = async {
        let mut most = 0_i64;
        loop {
            let open = "select coalesce(sum(reservations), 0)::text from open_reservations";
            let open = text_of(&database, open).parse::<i64>().unwrap();
            most = most.max(open);
            tokio::task::yield_now().await;
            if tasks.is_empty() {
                return most;
            }
            while let Some(ended) = tasks.try_join_next() {
                ended.unwrap();
            }
        }
    };
    let most = watch.await;
    assert!(most <= MAX as i64, "{most} were open");
    let count = "select count(*)::text from reservations where state = 1";
    let open: usize = text_of(&database, count).parse().unwrap();
    assert_eq!(open, MAX, "the cap is used up in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sent_to_all_nodes_at_once_is_recorded_once() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let nodes = [node(&database), node(&database)];
    let (tenant_id, integration_id) = create_account(&nodes[0], budget(0)).await;
    let mut sends = JoinSet::new();
    for task in 0..20_usize {
        let node = nodes.get(task % 2).unwrap().clone();
        sends.spawn(async move {
            let records = (0..50).map(|call| usage(integration_id, &format!("call {call}")));
            node.record(tenant_id, records.collect()).await.unwrap()
        });
    }
    let mut accepted = 0;
    for outcomes in sends.join_all().await {
        for outcome in outcomes {
            match outcome {
                RecordOutcome::Accepted(_) => accepted += 1,
                RecordOutcome::Duplicate(_) => {}
                RecordOutcome::Conflict | RecordOutcome::Refused(_) => {
                    unreachable!("{outcome:?}")
                }
            }
        }
    }
    assert_eq!(accepted, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_on_two_nodes_are_all_kept() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let (one, other) = (node(&database), node(&database));
    let (tenant_id, _) = create_account(&one, budget(100)).await;
    for round in 0..20 {
        let name = format!("name {round}");
        let expected = name.clone();
        let renamed = one.change(tenant_id, move |tx| {
            Control::new(tx, &actor(), tenant_id).rename_tenant(&name)
        });
        let to = match round % 2 {
            0 => TenantLifecycle::Suspended,
            _ => TenantLifecycle::Active,
        };
        let moved = other.change(tenant_id, move |tx| {
            Control::new(tx, &actor(), tenant_id).set_tenant_lifecycle(to)
        });
        let (renamed, moved) = tokio::join!(renamed, moved);
        renamed.unwrap().unwrap();
        moved.unwrap().unwrap();
        let stored =
            one.change(tenant_id, move |tx| Ok(tx.tenant(tenant_id)?.unwrap())).await.unwrap();
        assert_eq!((stored.name, stored.lifecycle), (expected, to));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_of_a_locked_key_is_skipped_without_waiting() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let (one, other) = (node(&database), node(&database));
    let (tenant_id, _) = create_account(&one, budget(100)).await;
    let mut keys = Vec::new();
    for name in ["locked", "other"] {
        let made = one.change(tenant_id, move |tx| {
            Control::new(tx, &actor(), tenant_id)
                .create_key(KeyDraft::api(name, "*", None), |_| [1; 32])
        });
        keys.push(made.await.unwrap().unwrap().key_id);
    }
    let (locked_key, other_key) = (keys[0], keys[1]);
    let (locked_sender, locked) = std::sync::mpsc::channel();
    let (saved_sender, saved) = std::sync::mpsc::channel();
    let changing = tokio::spawn(async move {
        let change = one.change(tenant_id, move |tx| {
            let key = tx.key(tenant_id, locked_key)?;
            locked_sender.send(()).unwrap();
            saved.recv().unwrap();
            Ok(key)
        });
        change.await.unwrap();
        one
    });
    tokio::task::spawn_blocking(move || locked.recv().unwrap()).await.unwrap();
    let at = bursar_core::Timestamp::MIN.plus_seconds(1_000);
    let uses = [(locked_key, at), (other_key, at)];
    // This runs while the transaction that locks the key is open.
    other.change(tenant_id, move |tx| tx.set_last_used(tenant_id, &uses)).await.unwrap();
    let last_used = database.run("select last_used_at from keys order by name");
    let at = at.micros().to_string();
    assert_eq!(last_used, [[None], [Some(at)]]);
    saved_sender.send(()).unwrap();
    changing.await.unwrap();
}
