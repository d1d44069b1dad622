//! The audit log of a database that several nodes share is one chain.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bursar_core::{Caps, KeyId, TenantId};
use bursar_store::{
    AuditReport, Control, KeyDraft, Ledger, Observer, PostgresOptions, PostgresStore, StoreError,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;

use crate::support::actor;
use crate::support::test_database::audit_key;

const KEYS: usize = 30;

/// Counts failed attempts of transactions.
#[derive(Default)]
struct Failures(AtomicUsize);

impl Observer for Failures {
    fn failed(&self, _: &StoreError) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Two nodes on a database with a tenant.
struct World {
    database: Database,
    nodes: [Ledger; 2],
    failures: Arc<Failures>,
    tenant_id: TenantId,
}

impl World {
    async fn new() -> Self {
        let database = Database::migrated(Cluster::shared(), |owner_url, app_role| {
            PostgresStore::migrate(owner_url, app_role).unwrap();
        });
        let failures = Arc::new(Failures::default());
        let nodes = [0, 1].map(|_| {
            let options = PostgresOptions {
                writers: 2,
                readers: 2,
                secret_fingerprint: "fingerprint".to_owned(),
                audit_key: audit_key(),
                clock: None,
            };
            let (_store, writers) = PostgresStore::open(database.app_url(), &options).unwrap();
            Ledger::start(writers, Arc::clone(&failures) as Arc<dyn Observer>, Caps::DEFAULT)
                .unwrap()
        });
        let made = nodes[0].change(None, |tx| Control::create_tenant(tx, &actor(), "tenant")).await;
        let tenant_id = made.unwrap().tenant_id;
        Self { database, nodes, failures, tenant_id }
    }

    /// Creates keys one after the other.
    async fn keys(&self) -> Vec<KeyId> {
        let mut keys = Vec::new();
        let tenant_id = self.tenant_id;
        for _ in 0..KEYS {
            let made = self.nodes[0].change(tenant_id, move |tx| {
                Control::new(tx, &actor(), tenant_id)
                    .create_key(KeyDraft::api("k", "*", None), |_| [1; 32])
            });
            keys.push(made.await.unwrap().unwrap().key_id);
        }
        keys
    }

    /// Revokes keys, two at a time on two nodes.
    async fn revoke(&self, keys: &[KeyId]) {
        for pair in keys.chunks(2) {
            let [first, second] = pair else { unreachable!("an even number of keys") };
            tokio::join!(self.revoke_on(0, *first), self.revoke_on(1, *second));
        }
    }

    async fn revoke_on(&self, node: usize, key_id: KeyId) {
        let tenant_id = self.tenant_id;
        let revoked = self.nodes.get(node).unwrap().change(tenant_id, move |tx| {
            Control::new(tx, &actor(), tenant_id).revoke_key(None, key_id)
        });
        revoked.await.unwrap().unwrap();
    }

    fn verify(&self) -> AuditReport {
        let (url, key) = (self.database.app_url(), audit_key());
        PostgresStore::verify_audit(url, "fingerprint", &key, None).unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_on_two_nodes_make_one_chain() {
    let world = World::new().await;
    let keys = world.keys().await;
    world.revoke(&keys).await;
    let verified = world.verify();
    // The tenant, its onboarding step, and two rows for each key.
    assert_eq!(verified.rows as usize, 2 + 2 * KEYS);
    assert_eq!(verified.differences.count, 0, "{:?}", verified.differences.listed);
    assert_eq!(world.failures.0.load(Ordering::SeqCst), 0, "attempts that failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_of_a_chain_on_two_nodes_make_one_chain() {
    let world = World::new().await;
    let keys = world.keys().await;
    for pair in keys.chunks(2) {
        world.database.run("delete from audit");
        world.database.run("delete from audit_heads");
        world.revoke(pair).await;
        let verified = world.verify();
        assert_eq!(verified.rows, 2);
        // The only difference is that the log does not begin with the tenant's creation.
        assert_eq!(verified.differences.count, 1, "{:?}", verified.differences.listed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_outside_the_chain_are_found() {
    let world = World::new().await;
    world.keys().await;
    world.database.run("alter table audit alter column sequence drop not null");
    world.database.run(
        "insert into audit select tenant_id, audit_id + 1000000, at, actor_type, actor_id, address, \
         action, target_type, target_id, request_id, detail, null, prev_hash, hash from audit \
         where sequence in (2, 3)",
    );
    let verified = world.verify();
    let listed = &verified.differences.listed;
    assert!(listed.iter().any(|sentence| sentence.contains("in no chain: 2")), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_continues_after_its_audit_row_blocks_no_other_change() {
    let world = World::new().await;
    let keys = world.keys().await;
    let tenant_id = world.tenant_id;
    for pair in keys.chunks(2) {
        let [first, second] = pair else { unreachable!("an even number of keys") };
        let (first, second) = (*first, *second);
        // One change locks the tenant after it has added its audit row, the other before that.
        let after = world.nodes[0].change(tenant_id, move |tx| {
            let changed = Control::new(tx, &actor(), tenant_id).revoke_key(None, first)?;
            tx.tenant(tenant_id)?;
            Ok(changed)
        });
        let before = world.nodes[1].change(tenant_id, move |tx| {
            tx.tenant(tenant_id)?;
            Control::new(tx, &actor(), tenant_id).revoke_key(None, second)
        });
        let (after, before) = tokio::join!(after, before);
        after.unwrap().unwrap();
        before.unwrap().unwrap();
    }
    assert_eq!(world.verify().differences.count, 0);
    assert_eq!(world.failures.0.load(Ordering::SeqCst), 0, "transactions waited for each other");
}
