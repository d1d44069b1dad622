//! Backups of an SQLite file, and restores.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::test_database::audit_key;
use bursar_core::Timestamp;
use bursar_store::{BackupInfo, Clock, CopyError, ExistingTarget, OpenError, SqliteStore};
use rusqlite::{Connection, params};
use tempfile::TempDir;

/// Rows of a kilobyte, enough for several steps of a copy.
const MANY: i64 = 12_000;

fn clock() -> Clock {
    Arc::new(|| Timestamp::from_micros(1_780_000_000_000_000).unwrap())
}

/// A folder with a data file in it, closed.
struct World {
    folder: TempDir,
}

impl World {
    fn new(tenants: i64) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.open();
        world.add(tenants);
        world
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn database(&self) -> PathBuf {
        self.file("bursar.db")
    }

    /// Opens and closes the file as a server does, which empties the log.
    fn open(&self) {
        drop(SqliteStore::open(&self.database(), clock(), "fingerprint", audit_key()).unwrap());
    }

    /// Adds rows, which stay in the log until the file is opened by a server.
    fn add(&self, tenants: i64) -> Connection {
        let db = Connection::open(self.database()).unwrap();
        let tx = db.unchecked_transaction().unwrap();
        let next: i64 = count(&tx);
        for tenant_id in next..next + tenants {
            let values = params![tenant_id, "x".repeat(1_000)];
            tx.execute("insert into tenants values (?1, ?2, 0, 0, 0, 0)", values).unwrap();
        }
        tx.commit().unwrap();
        db
    }

    /// The files of the folder, by name.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn backup(&self, name: &str, existing: ExistingTarget) -> Result<BackupInfo, CopyError> {
        SqliteStore::backup(&self.database(), &self.file(name), existing, &mut go_on)
    }

    fn restore(&self, name: &str) -> Result<BackupInfo, CopyError> {
        let from = self.file(name);
        let restore =
            SqliteStore::restore(&from, &self.database(), ExistingTarget::Replace, &mut go_on)?;
        restore.set_aside(&self.file("aside"))?;
        restore.publish()
    }
}

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn count(db: &Connection) -> i64 {
    db.query_row("select count(*) from tenants", [], |row| row.get(0)).unwrap()
}

#[track_caller]
fn check_count(path: &Path, expected: i64) {
    assert_eq!(count(&Connection::open(path).unwrap()), expected, "{}", path.display());
}

#[test]
fn a_backup_is_one_snapshot_despite_later_commits() {
    let world = World::new(MANY);
    let mut steps = Vec::new();
    let mut watch = |done: u64, total: u64| {
        steps.push((done, total));
        // Another connection can commit between any two steps.
        drop(world.add(100));
        ControlFlow::Continue(())
    };
    let to = world.file("copy");

    let made =
        SqliteStore::backup(&world.database(), &to, ExistingTarget::Keep, &mut watch).unwrap();

    assert!(steps.len() >= 3, "{steps:?}");
    assert!(steps.is_sorted(), "the copy restarted: {steps:?}");
    assert!(steps.iter().all(|step| step.1 == made.bytes), "{steps:?}");
    check_count(&to, MANY);
    assert_eq!(to.metadata().unwrap().len(), made.bytes);
    check_count(&world.database(), MANY + 100 * steps.len() as i64);
}

#[test]
fn a_backup_is_a_single_private_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(1);
    // The second row is only in the log.
    let _open = world.add(1);
    let made = world.backup("copy", ExistingTarget::Keep).unwrap();
    assert_eq!(made.secret_fingerprint.as_deref(), Some("fingerprint"));
    assert_eq!(made.entries, 0);
    let copies: Vec<_> =
        world.names().into_iter().filter(|name| name.starts_with("copy")).collect();
    assert_eq!(copies, ["copy"]);
    let mode = world.file("copy").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Reading it creates no further files.
    let reader = Connection::open(world.file("copy")).unwrap();
    assert_eq!(count(&reader), 2);
    assert!(!world.file("copy-wal").exists());
    assert!(
        SqliteStore::verify(&world.file("copy")).unwrap().unwrap().differences.listed.is_empty()
    );
}

#[test]
fn a_stopped_backup_leaves_no_file() {
    let world = World::new(MANY);
    let before = world.names();
    for stop_at in 0..3 {
        let mut steps = 0;
        let mut watch = |_: u64, _: u64| {
            steps += 1;
            if steps > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let to = world.file("copy");
        let stopped = SqliteStore::backup(&world.database(), &to, ExistingTarget::Keep, &mut watch);
        assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
        let left: Vec<_> = world.names().into_iter().filter(|name| name.contains("copy")).collect();
        assert_eq!(left, [""; 0]);
    }
    world.open();
    assert_eq!(world.names(), before);
}

#[test]
fn a_backup_replaces_a_file_only_on_request() {
    let world = World::new(1);
    world.backup("copy", ExistingTarget::Keep).unwrap();
    let taken = world.backup("copy", ExistingTarget::Keep);
    assert!(matches!(taken, Err(CopyError::Exists(_))), "{taken:?}");
    drop(world.add(1));
    world.backup("copy", ExistingTarget::Replace).unwrap();
    check_count(&world.file("copy"), 2);

    for own in ["bursar.db", "bursar.db-wal", "bursar.db-shm", "bursar.db.lock"] {
        let refused = world.backup(own, ExistingTarget::Replace);
        assert!(matches!(refused, Err(CopyError::Own(_))), "{own}: {refused:?}");
    }
    std::fs::create_dir(world.file("folder")).unwrap();
    let refused = world.backup("folder", ExistingTarget::Replace).unwrap_err().to_string();
    assert!(refused.contains("is a directory"), "{refused}");
    std::os::unix::fs::symlink(world.database(), world.file("link")).unwrap();
    let refused = world.backup("link", ExistingTarget::Replace);
    assert!(matches!(refused, Err(CopyError::Own(_))), "{refused:?}");
    // SQLite would replay the log of another file into the copy.
    std::fs::write(world.file("copy-wal"), "the log of another").unwrap();
    let refused = world.backup("copy", ExistingTarget::Replace);
    assert!(matches!(refused, Err(CopyError::LeftOver(_))), "{refused:?}");
    check_count(&world.database(), 2);
}

#[test]
fn a_damaged_file_is_not_backed_up() {
    let world = World::new(MANY);
    world.open();
    let mut bytes = std::fs::read(world.database()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(world.database(), bytes).unwrap();
    let refused = world.backup("copy", ExistingTarget::Keep);
    assert!(matches!(refused, Err(CopyError::Damaged { .. })), "{refused:?}");
    assert!(!world.names().iter().any(|name| name.contains("copy")), "{:?}", world.names());
}

#[test]
fn a_restore_returns_to_the_backup_and_keeps_the_replaced_file_whole() {
    let world = World::new(3);
    world.backup("copy", ExistingTarget::Keep).unwrap();
    // As after a crash, the commits are only in the log.
    let writer = world.add(4);
    let files = ["bursar.db", "bursar.db-wal"].map(|name| std::fs::read(world.file(name)).unwrap());
    drop(writer);
    for (name, bytes) in ["bursar.db", "bursar.db-wal"].iter().zip(files) {
        std::fs::write(world.file(name), bytes).unwrap();
    }
    world.restore("copy").unwrap();
    assert_eq!(world.names(), ["aside", "bursar.db", "bursar.db.lock", "copy"]);
    check_count(&world.file("aside"), 7);
    world.open();
    check_count(&world.database(), 3);
}

#[test]
fn an_abandoned_restore_keeps_the_old_file() {
    let world = World::new(3);
    world.backup("copy", ExistingTarget::Keep).unwrap();
    drop(world.add(4));
    let from = world.file("copy");
    let prepare = || {
        SqliteStore::restore(&from, &world.database(), ExistingTarget::Replace, &mut go_on).unwrap()
    };

    drop(prepare());
    check_count(&world.database(), 7);
    let prepared = prepare();
    prepared.set_aside(&world.file("aside")).unwrap();
    drop(prepared);
    check_count(&world.database(), 7);
    world.open();
    check_count(&world.database(), 7);
    check_count(&world.file("aside"), 7);
    assert_eq!(world.names(), ["aside", "bursar.db", "bursar.db.lock", "copy"]);
}

#[test]
fn a_restore_is_refused_while_the_file_is_in_use() {
    let world = World::new(3);
    world.backup("copy", ExistingTarget::Keep).unwrap();
    let running =
        SqliteStore::open(&world.database(), clock(), "fingerprint", audit_key()).unwrap();
    let refused = world.restore("copy");
    assert!(matches!(refused, Err(CopyError::Open(OpenError::InUse(_)))), "{refused:?}");
    drop(running);
    // A reader holds no lock, but the log that it reads must not be removed.
    let reader = world.add(1);
    let snapshot = reader.unchecked_transaction().unwrap();
    assert_eq!(count(&snapshot), 4);
    let refused = world.restore("copy");
    assert!(matches!(refused, Err(CopyError::NotWhole { .. })), "{refused:?}");
    assert_eq!(count(&snapshot), 4);
    drop(snapshot);
    drop(reader);
    check_count(&world.database(), 4);
}

#[test]
fn only_a_complete_bursar_database_is_restored() {
    let world = World::new(1);
    std::fs::write(world.file("text"), "no database".repeat(1_000)).unwrap();
    drop(Connection::open(world.file("empty")).unwrap());
    let foreign = Connection::open(world.file("foreign")).unwrap();
    foreign.execute_batch("create table t (a)").unwrap();
    world.backup("newer", ExistingTarget::Keep).unwrap();
    let newer = Connection::open(world.file("newer")).unwrap();
    newer.execute_batch("update server set value = '99' where name = 'oldest_known'").unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop((foreign, newer));
    let before = world.names();
    for (name, words) in [
        ("text", "file is not a database"),
        ("foreign", "is not a database of bursar"),
        ("newer", "needs a newer bursar"),
        ("missing", "No such file"),
        ("bursar.db", "is a file of the database itself"),
    ] {
        let refused = world.restore(name).unwrap_err().to_string();
        assert!(refused.contains(words), "{name}: {refused}");
        assert_eq!(world.names(), before, "{name}");
    }
    check_count(&world.database(), 1);
}

#[test]
fn a_log_without_its_file_is_not_mixed_with_a_backup() {
    let world = World::new(1);
    world.backup("copy", ExistingTarget::Keep).unwrap();
    std::fs::remove_file(world.database()).unwrap();
    std::fs::write(world.file("bursar.db-wal"), "the log of another file").unwrap();
    let refused = world.restore("copy");
    assert!(matches!(refused, Err(CopyError::LeftOver(_))), "{refused:?}");
    assert!(!world.database().exists());
    std::fs::remove_file(world.file("bursar.db-wal")).unwrap();
    world.restore("copy").unwrap();
    check_count(&world.database(), 1);
}
