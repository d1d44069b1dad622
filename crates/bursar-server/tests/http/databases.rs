//! A server over each kind of database.

use bursar_store::PostgresStore;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;

use crate::support::TestApp;

/// A server and its database, which is dropped after it.
pub(crate) struct OnDatabase {
    pub(crate) app: TestApp,
    _postgres: Option<Database>,
}

/// A server over SQLite and one over its own PostgreSQL.
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
