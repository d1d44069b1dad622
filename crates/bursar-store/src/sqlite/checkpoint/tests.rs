use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::sqlite::connect::open_reader;
use crate::sqlite::files::{beside, open_private};
use crate::sqlite::log_copier::keep_log;
use crate::sqlite::writer_connection::open_writer;

/// A log that is short, so that all of its phases come often.
const LENGTHS: Lengths = Lengths { pass: 64, full: 256, overfull: 1_024 };
/// What one transaction adds: about as many pages as rows, all over the table.
const ROWS: i64 = 8;
/// The longest log of a writer that nobody holds up: what it adds during a pass and a brake.
const PAGES_MAX: i64 = 2 * 1_024;

fn is_long() -> bool {
    std::env::var_os("BURSAR_PROVE").is_some()
}

/// A writer of rows, each of which is written over and over.
struct World {
    _folder: TempDir,
    path: PathBuf,
    writer: Connection,
    checkpointer: Checkpointer,
    snapshots: Arc<Snapshots>,
    rows: i64,
    written: i64,
    longest: i64,
}

impl World {
    fn new() -> Self {
        Self::syncing(|path| open_private(path).expect("the data file"))
    }

    /// With something else to sync than the data file.
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

    /// A transaction, and what comes before it. Answers how long the log is afterwards.
    fn write(&mut self) -> i64 {
        self.checkpointer.tend(&self.writer);
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

    /// Writes until the log has begun anew so often.
    fn write_through(&mut self, count: usize) {
        let (mut before, mut begun, mut writes) = (0, 0, 0);
        while begun < count {
            let pages = self.write();
            begun += usize::from(pages < before);
            before = pages;
            writes += 1;
            assert!(pages < 100 * LENGTHS.overfull, "the log grows: {pages} pages");
            assert!(writes < 20_000, "the log began anew {begun} times only");
        }
    }

    fn log_bytes(&self) -> u64 {
        beside(&self.path, "-wal").metadata().map_or(0, |file| file.len())
    }

    /// The newest row of a file, in which nothing is broken.
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
    let mut world = World::new();
    let end = Instant::now() + Duration::from_secs(if is_long() { 120 } else { 0 });
    world.write_through(20);
    while Instant::now() < end {
        world.write_through(20);
    }
    println!("{} rows, a log of up to {} pages", world.written, world.longest);
    assert!(world.longest <= PAGES_MAX, "{}", world.longest);
    world.check_newest(&world.path);
    assert!(world.checkpointer.stop());
    empty_log(&world.writer).expect("an empty log");
    let copy = world.path.with_extension("copy");
    std::fs::copy(&world.path, &copy).expect("a copy of the file alone");
    world.check_newest(&copy);
}

#[test]
fn the_log_is_bounded_when_reads_overlap_without_end() {
    let mut world = World::new();
    world.write();
    let ended = AtomicBool::new(false);
    let (path, snapshots) = (world.path.clone(), Arc::clone(&world.snapshots));
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
            world.write_through(2);
        }));
        ended.store(true, Ordering::Relaxed);
        world.snapshots.release();
        writing.expect("a log that begins anew");
    });
    println!("a log of up to {} pages", world.longest);
    world.check_newest(&world.path);
}

#[test]
fn nobody_waits_for_a_reader_that_stays_and_its_log_is_cut_afterwards() {
    let mut world = World::new();
    world.write_through(1);
    let reader = open_reader(&world.path).expect("a reader");
    reader.execute_batch("begin; select count(*) from t").expect("a snapshot");
    let mut slowest = Duration::ZERO;
    while world.longest < 3 * LENGTHS.overfull {
        let began = Instant::now();
        world.write();
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let kept = u64::try_from(LENGTHS.kept_bytes()).expect("a length");
    world.writer.pragma_update(None, "journal_size_limit", LENGTHS.kept_bytes()).expect("a limit");
    assert!(world.log_bytes() > 2 * kept, "{}", world.log_bytes());
    reader.execute_batch("rollback").expect("the end of the snapshot");
    world.write_through(1);
    assert!(world.log_bytes() <= kept, "{}", world.log_bytes());
    world.check_newest(&world.path);
}

#[test]
fn the_log_is_bounded_when_each_transaction_writes_more_than_a_pass() {
    let mut world = World::new();
    world.rows = 6 * LENGTHS.pass;
    world.write_through(5);
    println!("a log of up to {} pages", world.longest);
    world.check_newest(&world.path);
}

#[test]
fn a_log_that_grew_under_a_reader_is_cut_when_nothing_is_written() {
    let mut world = World::new();
    let reader = open_reader(&world.path).expect("a reader");
    reader.execute_batch("begin; select count(*) from t").expect("a snapshot");
    while world.write() < 2 * LENGTHS.overfull {}
    reader.execute_batch("rollback").expect("the end of the snapshot");
    for _ in 0..3 {
        world.checkpointer.idle(&world.writer);
        world.checkpointer.settle();
        world.checkpointer.shared.state.lock().rests_until = Instant::now();
    }
    assert_eq!(world.log_bytes(), 0);
    world.check_newest(&world.path);
}

#[test]
fn reads_are_held_back_only_where_that_can_help() {
    let snapshots = Arc::new(Snapshots::default());
    let mut reads = HeldReads { snapshots: Arc::clone(&snapshots), until: None, rests_until: None };
    reads.tend(true);
    assert!(!reads.are_held(), "no read of this process is in the way");
    let open = snapshots.open(|| false);
    reads.tend(true);
    let long = reads.until.expect("a pause");
    drop(open);
    reads.tend(true);
    assert!(reads.until.expect("a shorter pause") < long);
    reads.tend(false);
    assert!(!reads.are_held());
    assert!(snapshots.open(|| false).is_some());
}

/// A file whose sync always fails.
fn unsyncable() -> World {
    // What is no file on a disk cannot be synced.
    World::syncing(|_| File::open("/dev/null").expect("nothing"))
}

#[test]
fn a_writer_without_a_thread_keeps_the_log_of_a_data_file_that_was_not_synced() {
    let mut world = unsyncable();
    assert!(world.checkpointer.stop());
    let before: Vec<i64> = (0..200).map(|_| world.write()).collect();
    assert!(before.is_sorted(), "the log began anew");
    world.checkpointer.empty(&world.writer);
    assert!(world.log_bytes() > 0, "the log was cut");
}

#[test]
fn a_data_file_that_was_not_synced_keeps_its_log_until_the_next_start() {
    let mut world = unsyncable();
    let mut write = || {
        // So that passes come to the end of the log.
        world.checkpointer.tend(&world.writer);
        world.checkpointer.settle();
        world.write()
    };
    let before: Vec<i64> = (0..200).map(|_| write()).collect();
    assert!(before.is_sorted(), "the log began anew");
    assert!(world.checkpointer.is_kept.load(Ordering::Relaxed));
    assert!(!world.checkpointer.stop());
    keep_log(&world.writer).expect("a setting");
    let bytes = world.log_bytes();
    let closed = Connection::open_in_memory().expect("another connection");
    drop(std::mem::replace(&mut world.writer, closed));
    world.checkpointer.close();
    assert_eq!(world.log_bytes(), bytes, "what is in doubt is in the log");
    let writer = open_writer(&world.path).expect("a writer");
    let all = checkpoint(&writer, MEASURE).expect("the log");
    assert_eq!(all.copied, 0, "all of it is copied again");
    empty_log(&writer).expect("an empty log");
    world.check_newest(&world.path);
}

#[test]
fn a_writer_without_a_thread_copies_its_log_itself() {
    let mut world = World::new();
    assert!(world.checkpointer.stop());
    world.write_through(5);
    assert!(world.longest <= LENGTHS.full * 2, "{}", world.longest);
    world.check_newest(&world.path);
}

#[test]
fn a_pass_that_fails_is_made_again() {
    let mut world = World::new();
    let folder = world.path.parent().expect("a folder").to_owned();
    let away = folder.join("away.db");
    // The thread opens its connection with the first pass, and finds no file.
    std::fs::rename(&world.path, &away).expect("a name");
    std::fs::create_dir(&world.path).expect("something else");
    while world.write() < 3 * LENGTHS.pass {}
    world.checkpointer.settle();
    std::fs::remove_dir(&world.path).expect("nothing");
    std::fs::rename(&away, &world.path).expect("its name");
    world.write_through(2);
    world.check_newest(&world.path);
}
