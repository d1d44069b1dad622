//! A writer of PostgreSQL whose connection is lost in a transaction, or whose disk is full.
//!
//! Deliberately absent: requests meanwhile, which are tested with whole servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use bursar_core::{OnboardingState, TenantId, TenantLifecycle, Timestamp};
use bursar_store::{
    AuditKey, ControlTx, NotWritable, PostgresOptions, PostgresStore, StoreError, TenantRow,
    WriterConnection,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::process::disk::SmallDisk;

/// A database, and a writer that lost its connection after an uncommitted row of a tenant.
struct Interrupted {
    database: Database,
    writer: Box<dyn WriterConnection>,
}

/// A database for one test, and a writer.
fn opened() -> (Database, Box<dyn WriterConnection>) {
    let database = Database::migrated(Cluster::shared(), |owner_url, app_role| {
        PostgresStore::migrate(owner_url, app_role).unwrap();
    });
    let options = PostgresOptions {
        writers: 1,
        readers: 1,
        secret_fingerprint: "fingerprint".to_owned(),
        audit_key: AuditKey::new([7; 32]),
        clock: None,
    };
    let (_store, mut writers) = PostgresStore::open(database.app_url(), &options).unwrap();
    (database, writers.pop().unwrap())
}

impl Interrupted {
    /// Ends the connection, and lets two queries fail: the first is told that the connection ends,
    /// the second finds none.
    fn new() -> Self {
        let (database, mut writer) = opened();
        writer.begin().unwrap();
        tx(&mut writer).put_tenant(&tenant(1)).unwrap();
        database.terminate_backends();
        for _ in 0..2 {
            let noticed = tx(&mut writer).tenant(tenant(1).tenant_id);
            assert!(matches!(noticed, Err(StoreError::Retry(_))), "{noticed:?}");
        }
        Self { database, writer }
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

fn tx(writer: &mut Box<dyn WriterConnection>) -> &mut dyn ControlTx {
    writer.as_mut()
}

#[test]
fn a_transaction_is_never_committed_by_another_connection() {
    let mut interrupted = Interrupted::new();
    let committed = interrupted.writer.commit();
    assert!(matches!(committed, Err(StoreError::Retry(_))), "{committed:?}");
    interrupted.check_stored(&[]);
}

#[test]
fn a_statement_of_a_transaction_never_runs_on_another_connection() {
    let mut interrupted = Interrupted::new();
    let written = tx(&mut interrupted.writer).put_tenant(&tenant(2));
    assert!(matches!(written, Err(StoreError::Retry(_))), "{written:?}");
    interrupted.check_stored(&[]);
}

#[test]
fn the_next_transaction_is_written_by_a_new_connection() {
    let mut interrupted = Interrupted::new();
    interrupted.writer.rollback();
    interrupted.writer.begin().unwrap();
    tx(&mut interrupted.writer).put_tenant(&tenant(3)).unwrap();
    interrupted.writer.commit().unwrap();
    interrupted.check_stored(&["3"]);
}

/// Runs a write probe, as a server does while its database does not accept writes.
fn probe(writer: &mut dyn WriterConnection) -> Result<(), StoreError> {
    writer.begin()?;
    let probed = writer.write_probe().and_then(|()| writer.commit());
    if probed.is_err() {
        writer.rollback();
    }
    probed
}

#[test]
fn each_write_probe_needs_new_disk_space_and_frees_the_last() {
    let (database, mut writer) = opened();
    let file = || database.run("select pg_relation_filenode('write_probe')").concat();
    let bytes = || database.run("select pg_total_relation_size('write_probe')").concat();
    probe(writer.as_mut()).unwrap();
    let (first_file, first_bytes) = (file(), bytes());
    let written: u64 = first_bytes.first().unwrap().as_deref().unwrap().parse().unwrap();
    assert!(written >= 8_000_000, "{written} bytes");
    for _ in 0..3 {
        let before = file();
        probe(writer.as_mut()).unwrap();
        assert_ne!(file(), before);
    }
    assert_ne!(file(), first_file);
    assert_eq!(bytes(), first_bytes);
}

/// Without the right to mount, the test above covers this.
#[test]
fn a_full_disk_fails_write_probes_until_it_has_room() {
    let (database, mut writer) = opened();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let owner = database.run("show data_directory").concat().into_iter().next().flatten().unwrap();
    let at = folder.path().join("disk");
    let Some(disk) = SmallDisk::mount(at.clone(), 20) else {
        return;
    };
    let mut chown = Command::new("chown");
    chown.arg("--reference").arg(&owner).arg(&at);
    assert!(chown.status().unwrap().success());
    let space = format!("small_disk_{}", std::process::id());
    database.run(&format!("create tablespace {space} location '{}'", at.display()));
    // The update fits into existing space; the probe needs new space.
    for table in ["id_numbers", "write_probe"] {
        database.run(&format!("alter table {table} set tablespace {space}"));
    }
    let filler = at.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    for _ in 0..3 {
        database.run("update id_numbers set next_number = next_number");
        let probed = probe(writer.as_mut());
        let is_full =
            matches!(probed, Err(StoreError::NotWritable { reason: NotWritable::DiskFull, .. }));
        assert!(is_full, "{probed:?}");
    }
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    probe(writer.as_mut()).unwrap();
    drop(writer);
    for table in ["id_numbers", "write_probe"] {
        database.run(&format!("alter table {table} set tablespace pg_default"));
    }
    database.run(&format!("drop tablespace {space}"));
    drop(disk);
}
