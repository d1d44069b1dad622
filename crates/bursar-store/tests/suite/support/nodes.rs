//! Nodes on one database.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;

use bursar_core::{Caps, IntegrationId, LimitSettings, TenantId};
use bursar_store::{Ledger, Observer, Store};

use super::accounts::{create_account, create_integration};
use super::test_database::TestDatabase;
use super::{NewDatabase, TestClock};

/// A node: its reads and its writes.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ledger: Ledger,
}

/// Nodes on one database, with one clock.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
    pub(crate) clock: TestClock,
    pub(crate) database: Box<dyn TestDatabase>,
}

impl Nodes {
    pub(crate) fn new(
        database: NewDatabase,
        count: usize,
        observer: &Arc<dyn Observer>,
        caps: Caps,
    ) -> Self {
        let (clock, database) = (TestClock::default(), database());
        clock.set(super::day(2026, 3, 14).plus_seconds(9 * 3_600));
        let mut nodes = Self { nodes: Vec::new(), clock: clock.clone(), database };
        for _ in 0..count {
            nodes.add(&clock, observer, caps);
        }
        nodes
    }

    /// Opens another node, with a clock of its own.
    pub(crate) fn add(&mut self, clock: &TestClock, observer: &Arc<dyn Observer>, caps: Caps) {
        let (store, writers) = self.database.open(clock.clocks());
        let ledger = Ledger::start(writers, Arc::clone(observer), caps).unwrap();
        self.nodes.push(Node { store, ledger });
    }

    /// The node of a task.
    pub(crate) fn node(&self, task: usize) -> Node {
        self.nodes.get(task % self.nodes.len()).unwrap().clone()
    }

    /// A tenant with an enabled integration.
    pub(crate) async fn account(&self) -> (TenantId, IntegrationId) {
        create_account(&self.node(0).ledger, LimitSettings::default()).await
    }

    /// Creates an integration of a tenant, and enables it.
    pub(crate) async fn integration(&self, tenant_id: TenantId, name: &str) -> IntegrationId {
        create_integration(&self.node(0).ledger, tenant_id, name, LimitSettings::default()).await
    }

    pub(crate) async fn close(&self) {
        for node in &self.nodes {
            node.ledger.close().await;
        }
    }
}
