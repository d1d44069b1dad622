//! The store of several nodes as the home of a test's store.

use std::path::PathBuf;
use std::sync::Arc;

use bursar_store::{
    AuditVerified, Clocks, PostgresOptions, PostgresStore, Store, Verified, WriterConnection,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::session::{ask, block_on, connect, rows};

use super::home::{Cells, Home, audit_key, digits};

pub(crate) const POSTGRES: super::Database = || Box::new(Server::new());

/// A PostgreSQL database of its own.
struct Server(Database);

impl Server {
    fn new() -> Self {
        Self(Database::migrated(Cluster::shared(), |owner_url, app_role| {
            PostgresStore::migrate(owner_url, app_role).unwrap();
        }))
    }
}

impl Home for Server {
    fn open(&self, clocks: Clocks) -> (Arc<dyn Store>, Vec<Box<dyn WriterConnection>>) {
        let options = PostgresOptions {
            // Ids of one writer are in the order in which they were made.
            writers: 1,
            readers: 4,
            secret_fingerprint: "fingerprint".to_owned(),
            audit_key: audit_key(),
            clock: Some(clocks),
        };
        let (store, writers) = PostgresStore::open(self.0.app_url(), &options).unwrap();
        (store, writers)
    }

    /// As the application's role, which sees the rows of one tenant at a time.
    fn rows(&self, statements: &[&str]) -> Vec<Vec<Cells>> {
        block_on(async {
            let db = connect(self.0.app_url()).await.unwrap();
            db.batch_execute("begin isolation level repeatable read").await.unwrap();
            let tenants = rows(&db, "select tenant_id from tenants").await.unwrap();
            let mut found = vec![Vec::new(); statements.len()];
            for tenant in tenants.iter().flatten().flatten() {
                let name = format!("set local bursar.tenant_id = '{tenant}'");
                db.batch_execute(&name).await.unwrap();
                for (sql, found) in statements.iter().zip(&mut found) {
                    found.extend(rows(&db, sql).await.unwrap());
                }
            }
            found
        })
    }

    fn verify(&self) -> Verified {
        PostgresStore::verify(self.0.app_url()).unwrap().unwrap()
    }

    fn verify_audit(&self) -> AuditVerified {
        let (url, key) = (self.0.app_url(), audit_key());
        PostgresStore::verify_audit(url, "fingerprint", &key, None).unwrap().unwrap()
    }

    /// As the owner, which may do what the application's role may not.
    fn tamper(&self, sql: &str) {
        for tenant in ask(self.0.owner_url(), "select tenant_id from tenants").unwrap() {
            let tenant = tenant.into_iter().next().unwrap().unwrap();
            let sql = format!("set bursar.tenant_id = '{tenant}'; {sql}");
            ask(self.0.owner_url(), &sql).unwrap();
        }
    }

    fn literal(&self, bytes: &[u8]) -> String {
        format!("'\\x{}'::bytea", digits(bytes))
    }

    fn path(&self) -> PathBuf {
        unreachable!("a server is no file")
    }
}
