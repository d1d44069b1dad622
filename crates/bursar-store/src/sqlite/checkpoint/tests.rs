use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::sqlite::connect::open_reader;
use crate::sqlite::files::{beside, open_private};
use crate::sqlite::log_copier::keep_log;
use crate::sqlite::writer_connection::open_writer;

/// Short thresholds, so that the log goes through its phases often.
const LENGTHS: Lengths = Lengths { pass: 64, full: 256, overfull: 1_024 };
/// The rows of one transaction, spread over the table, so that it writes about as many pages.
const ROWS: i64 = 8;
/// The limit on the log of a writer without long readers: what it adds during a pass and a wait.
const PAGES_MAX: i64 = 2 * 1_024;

fn is_long() -> bool {
    std::env::var_os("BURSAR_PROVE").is_some()
}

/// A writer that overwrites the same rows, and its checkpointer.
struct TestWriter {
    _folder: TempDir,
    path: PathBuf,
    writer: Connection,
    checkpointer: Checkpointer,
    snapshots: Arc<Snapshots>,
    rows: i64,
    written: i64,
    longest: i64,
}

impl TestWriter {
    fn new() -> Self {
        Self::syncing(|path| open_private(path).expect("the data file"))
    }

    /// Opens a writer whose checkpointer syncs another file than the data file.
    fn syncing(synced: impl FnOnce(&Path) -> File) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test.db");
        let writer = open_writer(&path).expect("a writer");
        writer
            .execute_batch("create table t (k integer primary key, n integer, b blob)")
            .expect("a table");
        let snapshots = Arc::new(Snapshots::default());
        let synced = Arc::new(synced(&path));
        let checkpointer =
            Checkpointer::start(&path, (synced, Arc::clone(&snapshots)), Arc::default(), LENGTHS);
        let (rows, written, longest) = (ROWS, 0, 0);
        Self { _folder: folder, path, writer, checkpointer, snapshots, rows, written, longest }
    }

    /// Runs one transaction, with the checkpointer's work before it; returns the log's pages.
    fn write(&mut self) -> i64 {
        self.checkpointer.between_transactions(&self.writer);
        let tx = self.writer.transaction().expect("a transaction");
        for row in 0..self.rows {
            self.written += 1;
            let key = self.written * 7_919 % 2_000 * self.rows + row;
            tx.execute(
                "insert or replace into t values (?1, ?2, randomblob(3000))",
                [key, self.written],
            )
            .expect("a row");
        }
        tx.commit().expect("a commit");
        let pages = checkpoint(&self.writer, MEASURE).expect("the log").pages;
        self.longest = self.longest.max(pages);
        pages
    }

    /// Writes until the log has restarted `count` times.
    fn write_through(&mut self, count: usize) {
        let (mut before, mut begun, mut writes) = (0, 0, 0);
        while begun < count {
            let pages = self.write();
            begun += usize::from(pages < before);
            before = pages;
            writes += 1;
            assert!(pages < 100 * LENGTHS.overfull, "the log grows: {pages} pages");
            assert!(writes < 20_000, "the log restarted only {begun} times");
        }
    }

    fn log_bytes(&self) -> u64 {
        beside(&self.path, "-wal").metadata().map_or(0, |file| file.len())
    }

    /// Checks that a file is intact and has the newest row.
    #[track_caller]
    fn check_newest(&self, path: &Path) {
        let reader = open_reader(path).expect("a reader");
        let found: String =
            reader.query_row("pragma integrity_check", [], |row| row.get(0)).expect("a check");
        let newest: i64 =
            reader.query_row("select max(n) from t", [], |row| row.get(0)).expect("a row");
        assert_eq!((found.as_str(), newest), ("ok", self.written));
    }
}

#[test]
fn the_log_of_a_writer_that_never_pauses_is_bounded() {
    let mut test = TestWriter::new();
    let end = Instant::now() + Duration::from_secs(if is_long() { 120 } else { 0 });
    test.write_through(20);
    while Instant::now() < end {
        test.write_through(20);
    }
    println!("{} rows, a log of up to {} pages", test.written, test.longest);
    assert!(test.longest <= PAGES_MAX, "{}", test.longest);
    test.check_newest(&test.path);
    assert!(test.checkpointer.stop());
    empty_log(&test.writer).expect("an empty log");
    let copy = test.path.with_extension("copy");
    std::fs::copy(&test.path, &copy).expect("a copy of the file alone");
    test.check_newest(&copy);
}

#[test]
fn overlapping_reads_do_not_grow_the_log_without_bound() {
    let mut test = TestWriter::new();
    test.write();
    let ended = AtomicBool::new(false);
    let (path, snapshots) = (test.path.clone(), Arc::clone(&test.snapshots));
    let read = || {
        let reader = open_reader(&path).expect("a reader");
        while !ended.load(Ordering::Relaxed) {
            let _open = snapshots.open(|| false);
            let rows = "with recursive c (i) as (select 1 union all select i + 1 from c \
                 where i < 40) select count(*) from c, t";
            reader.query_row(rows, [], |_| Ok(())).expect("a long read");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(read);
        }
        let writing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            test.write_through(2);
        }));
        ended.store(true, Ordering::Relaxed);
        test.snapshots.release();
        writing.expect("a log that restarts");
    });
    println!("a log of up to {} pages", test.longest);
    test.check_newest(&test.path);
}

#[test]
fn a_lasting_reader_does_not_stop_the_writer_and_the_log_is_truncated_after_it() {
    let mut test = TestWriter::new();
    test.write_through(1);
    let reader = open_reader(&test.path).expect("a reader");
    reader.execute_batch("begin; select count(*) from t").expect("a snapshot");
    let mut slowest = Duration::ZERO;
    while test.longest < 3 * LENGTHS.overfull {
        let began = Instant::now();
        test.write();
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let kept = u64::try_from(LENGTHS.kept_bytes()).expect("a length");
    test.writer.pragma_update(None, "journal_size_limit", LENGTHS.kept_bytes()).expect("a limit");
    assert!(test.log_bytes() > 2 * kept, "{}", test.log_bytes());
    reader.execute_batch("rollback").expect("the end of the snapshot");
    test.write_through(1);
    assert!(test.log_bytes() <= kept, "{}", test.log_bytes());
    test.check_newest(&test.path);
}

#[test]
fn the_log_is_bounded_when_each_transaction_writes_more_than_a_pass() {
    let mut test = TestWriter::new();
    test.rows = 6 * LENGTHS.pass;
    test.write_through(5);
    println!("a log of up to {} pages", test.longest);
    test.check_newest(&test.path);
}

#[test]
fn a_log_that_grew_under_a_reader_is_truncated_when_the_writer_is_idle() {
    let mut test = TestWriter::new();
    let reader = open_reader(&test.path).expect("a reader");
    reader.execute_batch("begin; select count(*) from t").expect("a snapshot");
    while test.write() < 2 * LENGTHS.overfull {}
    reader.execute_batch("rollback").expect("the end of the snapshot");
    for _ in 0..3 {
        test.checkpointer.idle(&test.writer);
        test.checkpointer.wait_for_pass();
        test.checkpointer.shared.state.lock().rests_until = Instant::now();
    }
    assert_eq!(test.log_bytes(), 0);
    test.check_newest(&test.path);
}

#[test]
fn reads_are_held_back_only_if_that_can_help() {
    let snapshots = Arc::new(Snapshots::default());
    let mut reads = HeldReads { snapshots: Arc::clone(&snapshots), until: None, rests_until: None };
    reads.update(true);
    assert!(!reads.are_held(), "no read of this process is running");
    let open = snapshots.open(|| false);
    reads.update(true);
    let long = reads.until.expect("a pause");
    drop(open);
    reads.update(true);
    assert!(reads.until.expect("a shorter pause") < long);
    reads.update(false);
    assert!(!reads.are_held());
    assert!(snapshots.open(|| false).is_some());
}

/// A writer whose checkpointer's sync always fails.
fn unsyncable() -> TestWriter {
    // A device that is no file on a disk cannot be synced.
    TestWriter::syncing(|_| File::open("/dev/null").expect("nothing"))
}

#[test]
fn a_writer_without_a_thread_keeps_the_log_after_a_failed_sync() {
    let mut test = unsyncable();
    assert!(test.checkpointer.stop());
    let before: Vec<i64> = (0..200).map(|_| test.write()).collect();
    assert!(before.is_sorted(), "the log restarted");
    test.checkpointer.empty(&test.writer);
    assert!(test.log_bytes() > 0, "the log was truncated");
}

#[test]
fn a_failed_sync_keeps_the_log_until_the_next_start() {
    let mut test = unsyncable();
    let mut write = || {
        // The pass ends before the next transaction, so it reaches the end of the log.
        test.checkpointer.between_transactions(&test.writer);
        test.checkpointer.wait_for_pass();
        test.write()
    };
    let before: Vec<i64> = (0..200).map(|_| write()).collect();
    assert!(before.is_sorted(), "the log restarted");
    assert!(test.checkpointer.is_kept.load(Ordering::Relaxed));
    assert!(!test.checkpointer.stop());
    keep_log(&test.writer).expect("a setting");
    let bytes = test.log_bytes();
    let closed = Connection::open_in_memory().expect("another connection");
    drop(std::mem::replace(&mut test.writer, closed));
    test.checkpointer.close();
    assert_eq!(test.log_bytes(), bytes, "the log has everything that may not be in the file");
    let writer = open_writer(&test.path).expect("a writer");
    let all = checkpoint(&writer, MEASURE).expect("the log");
    assert_eq!(all.copied, 0, "all of it is copied again");
    empty_log(&writer).expect("an empty log");
    test.check_newest(&test.path);
}

#[test]
fn a_writer_without_a_thread_copies_its_log_itself() {
    let mut test = TestWriter::new();
    assert!(test.checkpointer.stop());
    test.write_through(5);
    assert!(test.longest <= LENGTHS.full * 2, "{}", test.longest);
    test.check_newest(&test.path);
}

#[test]
fn a_failed_pass_is_retried() {
    let mut test = TestWriter::new();
    let folder = test.path.parent().expect("a folder").to_owned();
    let away = folder.join("away.db");
    // The thread opens its connections in the first pass, and finds a folder instead of the file.
    std::fs::rename(&test.path, &away).expect("a name");
    std::fs::create_dir(&test.path).expect("something else");
    while test.write() < 3 * LENGTHS.pass {}
    test.checkpointer.wait_for_pass();
    std::fs::remove_dir(&test.path).expect("nothing");
    std::fs::rename(&away, &test.path).expect("its name");
    test.write_through(2);
    test.check_newest(&test.path);
}
