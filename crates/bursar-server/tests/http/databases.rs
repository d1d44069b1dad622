//! The server over each of its databases.

use bursar_store::PostgresStore;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;

use crate::support::TestApp;

/// A server, and the database that goes after it, with whoever is still connected.
pub(crate) struct OnDatabase {
    pub(crate) app: TestApp,
    _postgres: Option<Database>,
}

/// A server over a file, and one over a PostgreSQL of its own.
pub(crate) fn each() -> [OnDatabase; 2] {
    let postgres = Database::migrated(Cluster::shared(), |owner_url, app_role| {
        PostgresStore::migrate(owner_url, app_role).unwrap();
    });
    let on_postgres = TestApp::with_settings(&[("BURSAR_DATABASE", postgres.app_url())]);
    [
        OnDatabase { app: TestApp::new(), _postgres: None },
        OnDatabase { app: on_postgres, _postgres: Some(postgres) },
    ]
}
