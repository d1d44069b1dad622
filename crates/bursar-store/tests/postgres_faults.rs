//! A writer of PostgreSQL whose connection is lost in the middle of a transaction.
//!
//! Deliberately absent: what becomes of requests meanwhile, which is proved with whole servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "support/postgres/mod.rs"]
mod postgres;

use bursar_core::{OnboardingState, TenantId, TenantLifecycle, Timestamp};
use bursar_store::{AuditKey, Lane, PostgresOptions, PostgresStore, StoreError, TenantRow};
use postgres::cluster::Cluster;
use postgres::database::Database;

/// A database, and a writer that has written the row of a tenant and not yet committed it.
struct Interrupted {
    database: Database,
    lane: Box<dyn Lane>,
}

impl Interrupted {
    /// Ends the connection, and lets the writer notice by questions that fail: the first is told
    /// that the connection ends, the next finds none.
    fn new() -> Self {
        let database = Database::migrated(Cluster::shared(), |owner_url, app_role| {
            PostgresStore::migrate(owner_url, app_role).unwrap();
        });
        let options = PostgresOptions {
            lanes: 1,
            readers: 1,
            secret_fingerprint: "fingerprint".to_owned(),
            audit_key: AuditKey::new([7; 32]),
            clock: None,
        };
        let (_store, mut lanes) = PostgresStore::open(database.app_url(), &options).unwrap();
        let mut lane = lanes.pop().unwrap();
        lane.begin().unwrap();
        lane.put_tenant(&tenant(1)).unwrap();
        database.terminate_backends();
        for _ in 0..2 {
            let noticed = lane.tenant(tenant(1).tenant_id);
            assert!(matches!(noticed, Err(StoreError::Again(_))), "{noticed:?}");
        }
        Self { database, lane }
    }

    #[track_caller]
    fn check_stored(&self, tenants: &[&str]) {
        let rows = self.database.run("select tenant_id from tenants order by tenant_id");
        let rows: Vec<String> = rows.into_iter().flatten().flatten().collect();
        assert_eq!(rows, tenants);
    }
}

fn tenant(number: i64) -> TenantRow {
    TenantRow {
        tenant_id: TenantId::from_number(number).unwrap(),
        name: "a tenant".to_owned(),
        lifecycle: TenantLifecycle::Active,
        onboarding: OnboardingState::Created,
        created_at: Timestamp::MIN,
        updated_at: Timestamp::MIN,
    }
}

#[test]
fn a_transaction_is_never_committed_by_another_connection() {
    let mut interrupted = Interrupted::new();
    let committed = interrupted.lane.commit();
    assert!(matches!(committed, Err(StoreError::Again(_))), "{committed:?}");
    interrupted.check_stored(&[]);
}

#[test]
fn what_belongs_to_a_transaction_is_never_written_by_another_connection() {
    let mut interrupted = Interrupted::new();
    let written = interrupted.lane.put_tenant(&tenant(2));
    assert!(matches!(written, Err(StoreError::Again(_))), "{written:?}");
    interrupted.check_stored(&[]);
}

#[test]
fn the_next_transaction_is_written_by_a_new_connection() {
    let mut interrupted = Interrupted::new();
    interrupted.lane.rollback();
    interrupted.lane.begin().unwrap();
    interrupted.lane.put_tenant(&tenant(3)).unwrap();
    interrupted.lane.commit().unwrap();
    interrupted.check_stored(&["3"]);
}
