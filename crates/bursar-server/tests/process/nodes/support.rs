//! A database with nodes over it, and the clients of the tests of the process.

pub(crate) mod fleet;
pub(crate) mod load;
pub(crate) mod skew;

use std::process::Output;

use bursar_store::PostgresStore;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::process::folder::Folder;
use serde_json::{Value, json};

pub(crate) const OPERATOR_TOKEN: &str = "operator token of every node";
pub(crate) const SECRET_KEY: &str = "one secret key of thirty-two bytes or more";

/// A database of a test's own, and what every node over it is given.
pub(crate) struct Site {
    pub(crate) database: Database,
}

impl Site {
    /// A database with the schema.
    pub(crate) fn new() -> Self {
        Self::on(Cluster::shared())
    }

    /// The same on a server that the test may stop.
    pub(crate) fn on(cluster: &Cluster) -> Self {
        Self { database: Database::migrated(cluster, migrate) }
    }

    /// A database with nothing in it.
    pub(crate) fn empty() -> Self {
        Self { database: Database::new(Cluster::shared()) }
    }

    /// What starts a node, which says in a folder where it listens.
    pub(crate) fn node(&self) -> Folder {
        self.node_by(self.database.app_url())
    }

    /// The same by another way to the database, or as another role.
    pub(crate) fn node_by(&self, url: &str) -> Folder {
        let mut node = Folder::new();
        std::fs::create_dir(node.data()).expect("a folder");
        // Where the clients of the tests look for it; the node itself does not.
        std::fs::write(node.file("operator-token"), OPERATOR_TOKEN).expect("a file");
        node.set("BURSAR_DATABASE", url);
        node.set("BURSAR_SECRET_KEY", SECRET_KEY);
        node.set("BURSAR_OPERATOR_TOKEN", OPERATOR_TOKEN);
        node
    }

    /// The password of both roles, which nobody may see.
    pub(crate) fn password(&self) -> String {
        let login = self.database.app_url().split('@').next().expect("a role");
        login.rsplit(':').next().expect("a password").to_owned()
    }
}

fn migrate(owner_url: &str, app_role: &str) {
    PostgresStore::migrate(owner_url, app_role).expect("migrated");
}

/// The body of a record.
pub(crate) fn record(integration_id: &str, call_id: &str, cost_cents: u32) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "provider": "openai",
        "model": "gpt-4o", "tokens_in": 10, "tokens_out": 5, "cost_cents": cost_cents,
    })
}

/// The body of a reservation.
pub(crate) fn reservation(integration_id: &str, call_id: &str, cents: u32) -> Value {
    json!({
        "integration_id": integration_id, "call_id": call_id, "estimated_cost_cents": cents,
        "estimated_tokens": 15, "ttl_seconds": 600,
    })
}

/// Claims that a command failed with 1, and that what it said has these words.
#[track_caller]
pub(crate) fn check_failed(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// What of a process is resident.
///
/// # Panics
/// When the process has ended.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    resident.expect("the memory of a process that lives")
}
