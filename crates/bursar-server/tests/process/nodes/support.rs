//! A database of a test and its nodes.

pub(crate) mod fleet;
pub(crate) mod load;
pub(crate) mod skew;

use std::process::Output;

use bursar_store::PostgresStore;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::process::bodies;
use bursar_testing::process::folder::Folder;
use serde_json::Value;

pub(crate) const OPERATOR_TOKEN: &str = "operator token of every node";
pub(crate) const SECRET_KEY: &str = "one secret key of thirty-two bytes or more";

/// The database of a test, with the settings of its nodes.
pub(crate) struct Site {
    pub(crate) database: Database,
}

impl Site {
    /// A database with the schema on the shared cluster.
    pub(crate) fn new() -> Self {
        Self::on(Cluster::shared())
    }

    /// A database with the schema on a cluster that the test may stop.
    pub(crate) fn on(cluster: &Cluster) -> Self {
        Self { database: Database::migrated(cluster, migrate) }
    }

    /// A database without the schema.
    pub(crate) fn empty() -> Self {
        Self { database: Database::new(Cluster::shared()) }
    }

    /// The folder and the settings of a new node.
    pub(crate) fn node(&self) -> Folder {
        self.node_with_url(self.database.app_url())
    }

    /// The folder and the settings of a new node with another URL of the database.
    pub(crate) fn node_with_url(&self, url: &str) -> Folder {
        let mut node = Folder::new();
        std::fs::create_dir(node.data()).expect("a folder");
        // For the clients of the tests; the node itself reads the setting.
        std::fs::write(node.file("operator-token"), OPERATOR_TOKEN).expect("a file");
        node.set("BURSAR_DATABASE", url);
        node.set("BURSAR_SECRET_KEY", SECRET_KEY);
        node.set("BURSAR_OPERATOR_TOKEN", OPERATOR_TOKEN);
        node
    }

    /// The password of both roles.
    pub(crate) fn password(&self) -> String {
        let login = self.database.app_url().split('@').next().expect("a role");
        login.rsplit(':').next().expect("a password").to_owned()
    }
}

fn migrate(owner_url: &str, app_role: &str) {
    PostgresStore::migrate(owner_url, app_role).expect("migrated");
}

/// A reservation that no test outlasts.
pub(crate) fn reservation(integration_id: &str, call_id: &str, cents: u32) -> Value {
    bodies::reservation(integration_id, call_id, cents, 600)
}

/// Asserts that a command exited with 1 and an error with these words.
#[track_caller]
pub(crate) fn check_failed(output: &Output, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert!(!error.contains("panicked"), "{error}");
}
