//! Writers of a database that several processes share: exact whoever writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "support/postgres/mod.rs"]
mod postgres;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use bursar_core::{
    IntegrationId, LimitSettings, RecordOutcome, ReleaseOutcome, ReserveOutcome, TenantId,
    TenantLifecycle,
};
use bursar_store::{Control, Ledger, PostgresOptions, PostgresStore, Unobserved};
use postgres::cluster::Cluster;
use postgres::database::Database;
use support::{actor, budget, call_id, draft, request, usage};
use tokio::task::JoinSet;

fn migrate(owner_url: &str, app_role: &str) {
    PostgresStore::migrate(owner_url, app_role).unwrap();
}

/// A node on a database.
fn node(database: &Database) -> Ledger {
    let options = PostgresOptions {
        lanes: 2,
        readers: 2,
        secret_fingerprint: "fingerprint".to_owned(),
        clock: None,
    };
    let (_store, lanes) = PostgresStore::open(database.app_url(), &options).unwrap();
    Ledger::start(lanes, Arc::new(Unobserved)).unwrap()
}

async fn account(node: &Ledger, limits: LimitSettings) -> (TenantId, IntegrationId) {
    let made = node.change(None, |tx| Control::create_tenant(tx, &actor(), "tenant")).await;
    let tenant_id = made.unwrap().tenant_id;
    let draft = draft("integration", limits);
    let made = node.change(tenant_id, move |tx| {
        let actor = actor();
        let mut control = Control::new(tx, &actor, tenant_id);
        let integration = control.create_integration(draft.clone())?;
        let Ok(row) = integration else { return Ok(integration) };
        control.enable_integration(row.integration_id)
    });
    (tenant_id, made.await.unwrap().unwrap().integration_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_reserved_recorded_and_repeated_on_any_node() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let (one, other) = (node(&database), node(&database));
    let (tenant_id, integration_id) = account(&one, budget(100)).await;

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
async fn a_budget_for_ten_admits_ten_whoever_asks_where() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let nodes = [node(&database), node(&database), node(&database)];
    let (tenant_id, integration_id) = account(&nodes[0], budget(100)).await;
    let mut asks = JoinSet::new();
    for task in 0..64_usize {
        let node = nodes.get(task % 3).unwrap().clone();
        asks.spawn(async move {
            let mut admitted = BTreeSet::new();
            for ask in 0..16 {
                let call = format!("{task} {ask}");
                let outcome = node.reserve(tenant_id, request(integration_id, &call)).await;
                if let ReserveOutcome::Held(_) = outcome.unwrap() {
                    admitted.insert(call);
                }
            }
            admitted
        });
    }
    let admitted: BTreeSet<String> = asks.join_all().await.into_iter().flatten().collect();
    assert_eq!(admitted.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_sent_at_once_everywhere_is_recorded_once() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let nodes = [node(&database), node(&database)];
    let (tenant_id, integration_id) = account(&nodes[0], budget(0)).await;
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
async fn changes_of_a_tenant_on_two_nodes_lose_none_of_each_other() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let (one, other) = (node(&database), node(&database));
    let (tenant_id, _) = account(&one, budget(100)).await;
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
        let led = other
            .change(tenant_id, move |tx| Control::new(tx, &actor(), tenant_id).lead_tenant(to));
        let (renamed, led) = tokio::join!(renamed, led);
        renamed.unwrap().unwrap();
        led.unwrap().unwrap();
        let stored =
            one.change(tenant_id, move |tx| Ok(tx.tenant(tenant_id)?.unwrap())).await.unwrap();
        assert_eq!((stored.name, stored.lifecycle), (expected, to));
    }
}
