//! PostgreSQL as the database of a test's store.

use std::path::PathBuf;
use std::sync::Arc;

use bursar_store::{
    AuditReport, Clocks, PostgresOptions, PostgresStore, Store, VerifyReport, WriterConnection,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::session::{ask, block_on, connect, rows};

use super::test_database::{Cells, TestDatabase, audit_key, digits};

pub(crate) const POSTGRES: super::NewDatabase = || Box::new(PostgresDatabase::new());

/// A PostgreSQL database of its own.
struct PostgresDatabase(Database);

impl PostgresDatabase {
    fn new() -> Self {
        Self(Database::migrated(Cluster::shared(), |owner_url, app_role| {
            PostgresStore::migrate(owner_url, app_role).unwrap();
        }))
    }
}

impl TestDatabase for PostgresDatabase {
    fn open(&self, clocks: Clocks) -> (Arc<dyn Store>, Vec<Box<dyn WriterConnection>>) {
        let options = PostgresOptions {
            // The ids of one writer are in the order of their creation.
            writers: 1,
            readers: 4,
            secret_fingerprint: "fingerprint".to_owned(),
            audit_key: audit_key(),
            clock: Some(clocks),
        };
        let (store, writers) = PostgresStore::open(self.0.app_url(), &options).unwrap();
        (store, writers)
    }

    /// Reads as the application's role, which sees the rows of one tenant at a time.
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

    fn verify(&self) -> VerifyReport {
        PostgresStore::verify(self.0.app_url()).unwrap().unwrap()
    }

    fn verify_audit(&self) -> AuditReport {
        let (url, key) = (self.0.app_url(), audit_key());
        PostgresStore::verify_audit(url, "fingerprint", &key, None).unwrap().unwrap()
    }

    /// Runs as the owner, which has rights that the application's role lacks.
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
        unreachable!("PostgreSQL has no single file")
    }
}

/// The rows of a table that were read so far, by index or sequentially.
pub(crate) fn rows_read(database: &Database, table: &str) -> i64 {
    let sql = format!(
        "select coalesce(sum(idx_tup_read), 0)::bigint
             + (select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_user_tables
                where relname = '{table}')
         from pg_stat_user_indexes where relname = '{table}'"
    );
    let count = database.run(&sql).into_iter().flatten().flatten().next();
    count.unwrap().parse().unwrap()
}
