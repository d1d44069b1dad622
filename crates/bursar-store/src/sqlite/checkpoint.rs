//! Moves the write-ahead log into the data file while the writer goes on.
//!
//! A thread with a connection of its own copies and syncs the pages of the log in passes
//! (`wal_checkpoint(passive)`). Under a busy writer such a pass never comes to the end of the log, so
//! that the log would grow for ever. Therefore the writer makes the last step, between two of its
//! transactions: it copies the few pages that are left, and its next transaction begins the log anew.
//!
//! SQLite syncs the data file only after a pass that comes to the end. Other passes count their pages
//! as copied before they are on stable storage, so the thread syncs the file itself, and the writer
//! makes its last step only after that.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::snapshots::Snapshots;
use super::{BUSY_MAX, empty_log, open_writable};
use crate::memory::{Caches, PAGE};

const MEASURE: &str = "pragma wal_checkpoint(noop)";
const COPY: &str = "pragma wal_checkpoint(passive)";
const COPY_REST: &str = "pragma wal_checkpoint(restart)";
const BEGIN_SNAPSHOT: &str = "select count(*) from sqlite_schema";

/// How long the writer waits between two transactions for a pass that falls behind.
const BRAKE_MAX: Duration = Duration::from_millis(250);
/// How long new reads are held back so that a log which is too long can begin anew.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// The same when no read of this process runs: then another process reads the log.
const HOLD_IN_VAIN_MAX: Duration = Duration::from_millis(300);
/// How long reads are not held back again after that was in vain.
const HOLD_EVERY: Duration = Duration::from_secs(60);
/// How long after a pass that came no further the next one comes, at first and at last.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Lengths of the log, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// What a pass copies. A shorter one copies pages that change often more often; a longer one has a
    /// longer sync, which slows commits down.
    pass: i64,
    /// From here on the log is to begin anew.
    full: i64,
    /// From here on the writer waits for passes, and new reads for those that run.
    overfull: i64,
}

impl Lengths {
    /// Those of a log that begins anew after so many pages.
    pub(super) fn of(full: i64) -> Self {
        Self { pass: full / 4, full, overfull: full * 4 }
    }

    /// Those for the memory that this process may take.
    pub(super) fn fitting() -> Self {
        Self::of(Caches::fitting().log_pages)
    }

    /// The size to which the file of a longer log is cut when the log begins anew.
    pub(super) fn kept_bytes(self) -> i64 {
        self.overfull.saturating_mul(PAGE)
    }
}

/// How far the log is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// Whether a reader or another process stood in the way.
    is_blocked: bool,
    /// Pages in the log.
    pages: i64,
    /// Those of them that are in the data file.
    copied: i64,
}

impl Progress {
    fn left(self) -> i64 {
        self.pages.saturating_sub(self.copied)
    }
}

fn checkpoint(connection: &Connection, sql: &str) -> rusqlite::Result<Progress> {
    connection.prepare_cached(sql)?.query_row([], |row| {
        let is_blocked = row.get::<_, i64>(0)? != 0;
        Ok(Progress { is_blocked, pages: row.get(1)?, copied: row.get(2)? })
    })
}

/// What the thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Nothing, and the writer made its last step after the pass before.
    Resting,
    /// A pass that was asked for.
    Copying,
    /// Nothing; a pass has come as far as it could.
    Copied,
    /// The data file could not be synced. The system may have dropped pages that count as copied, so
    /// the log is kept until the next start copies all of it again.
    InDoubt,
    Ended,
}

struct State {
    work: Work,
    is_stopped: bool,
    /// Before this a further pass would come no further.
    rests_until: Instant,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// What copies the log, as the writer sees it.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    lengths: Lengths,
    reads: HeldReads,
    /// Whether that the last step fails was told.
    is_failing: bool,
}

impl Checkpointer {
    /// Starts the thread. Without one the writer copies the log itself.
    pub(super) fn start(
        path: &Path,
        (data_file, snapshots): (Arc<File>, Arc<Snapshots>),
        lengths: Lengths,
    ) -> Self {
        let state = State { work: Work::Resting, is_stopped: false, rests_until: Instant::now() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let copier = Copier::new(path, data_file);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bursar-log".to_owned())
            .spawn(move || work(&of_thread, copier));
        let thread = thread.inspect_err(|error| {
            shared.state.lock().work = Work::Ended;
            tracing::warn!(%error, "no thread copies the log; the writer does it itself");
        });
        let reads = HeldReads { snapshots, since: None, until: None };
        Self { shared, thread: thread.ok(), lengths, reads, is_failing: false }
    }

    /// Looks after the log; for the writer between two of its transactions.
    pub(super) fn tend(&mut self, writer: &Connection) {
        let Lengths { pass, full, overfull } = self.lengths;
        let Ok(mut log) = checkpoint(writer, MEASURE) else { return };
        self.reads.tend(log.pages >= overfull);
        if log.left() == 0 || log.left() < pass && log.pages < full {
            return;
        }
        let mut state = self.shared.state.lock();
        if log.pages >= overfull && state.work == Work::Copying {
            let copying = |state: &mut State| state.work == Work::Copying;
            self.shared.changed.wait_while_for(&mut state, copying, BRAKE_MAX);
            let Ok(after) = checkpoint(writer, MEASURE) else { return };
            log = after;
        }
        let is_last_step = match state.work {
            // After a pass that kept up there is little left.
            Work::Copied => log.pages >= full && log.left() <= 2 * pass,
            // Nobody else does it.
            Work::Ended => log.left() >= full,
            Work::Resting => false,
            Work::Copying | Work::InDoubt => return,
        };
        if is_last_step {
            if state.work == Work::Copied {
                state.work = Work::Resting;
            }
            drop(state);
            self.copy_rest(writer);
        } else if log.left() >= pass
            && state.work != Work::Ended
            && (self.reads.are_held() || Instant::now() >= state.rests_until)
        {
            state.work = Work::Copying;
            self.shared.changed.notify_all();
        }
    }

    /// Copies what is left. The next transaction then begins the log anew, unless someone still reads
    /// from it: the writer waits for no reader.
    fn copy_rest(&mut self, writer: &Connection) {
        match impatiently(writer, |writer| checkpoint(writer, COPY_REST)) {
            Ok(_) => self.is_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "the end of the log was not moved into the data file");
                }
            }
        }
    }

    /// Moves all of the log into the file and cuts it, as far as readers allow at once.
    pub(super) fn empty(&self, writer: &Connection) {
        if self.settle()
            && let Err(error) = impatiently(writer, empty_log)
        {
            tracing::warn!(%error, "the log was not moved into the file");
        }
    }

    /// Waits for the pass that is being made; none begins before the writer tends the log again.
    /// Whether all that counts as copied is on stable storage.
    pub(super) fn settle(&self) -> bool {
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_while(&mut state, |state| state.work == Work::Copying);
        state.work != Work::InDoubt
    }

    /// Ends the thread. Whether all that counts as copied is on stable storage.
    pub(super) fn stop(&mut self) -> bool {
        let is_sure = self.settle();
        self.shared.state.lock().is_stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        is_sure
    }
}

/// Runs something that waits for no other connection.
fn impatiently<T>(
    connection: &Connection,
    body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(Duration::ZERO)?;
    let result = body(connection);
    connection.busy_timeout(BUSY_MAX)?;
    result
}

/// The reads of this process that are held back so that the log can begin anew.
struct HeldReads {
    snapshots: Arc<Snapshots>,
    /// When they were held back last.
    since: Option<Instant>,
    /// Until when they are.
    until: Option<Instant>,
}

impl HeldReads {
    fn are_held(&self) -> bool {
        self.until.is_some()
    }

    /// Holds reads back while the log is much too long, as far as that can help.
    fn tend(&mut self, is_overfull: bool) {
        if !is_overfull && self.until.is_none() {
            return;
        }
        let now = Instant::now();
        match self.until {
            Some(until) if !is_overfull || now >= until => {
                self.until = None;
                self.snapshots.release();
                if !is_overfull {
                    self.since = None;
                }
            }
            Some(until) if self.snapshots.are_none() => {
                self.until = Some(until.min(now + HOLD_IN_VAIN_MAX));
            }
            Some(_) => {}
            None if self.since.is_none_or(|since| now >= since + HOLD_EVERY) => {
                (self.since, self.until) = (Some(now), Some(now + HOLD_MAX));
                self.snapshots.hold(now + HOLD_MAX);
            }
            None => {}
        }
    }
}

/// When to try again what was in vain.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { at: Instant::now(), pause: RETRY_MIN }
    }
}

impl Retry {
    fn put_off(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }
}

/// Tells the writer when the thread ends, however it ends.
struct EndOnExit<'a>(&'a Shared);

impl Drop for EndOnExit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().work = Work::Ended;
        self.0.changed.notify_all();
    }
}

/// The thread: a pass whenever the writer asks for one.
fn work(shared: &Shared, mut copier: Copier) {
    let _end = EndOnExit(shared);
    loop {
        let mut state = shared.state.lock();
        let is_resting = |state: &mut State| !state.is_stopped && state.work != Work::Copying;
        shared.changed.wait_while(&mut state, is_resting);
        if state.is_stopped {
            return;
        }
        drop(state);
        let work = copier.copy();
        let mut state = shared.state.lock();
        state.work = work;
        state.rests_until = copier.retry.at;
        shared.changed.notify_all();
    }
}

/// What the thread works with.
struct Copier {
    path: PathBuf,
    /// Syncs the data file. While SQLite has the file open in this process it must not be closed: the
    /// system would drop the locks of every connection.
    data_file: Arc<File>,
    /// Opened with the first pass, and anew after an error.
    connection: Option<Connection>,
    /// How far the pass before came.
    copied: i64,
    retry: Retry,
    /// Whether that passes fail was told.
    is_failing: bool,
}

impl Copier {
    fn new(path: &Path, data_file: Arc<File>) -> Self {
        let (path, retry) = (path.to_owned(), Retry::default());
        Self { path, data_file, connection: None, copied: 0, retry, is_failing: false }
    }

    /// Makes a pass: copies what was committed before it, as far as readers allow, and syncs it.
    fn copy(&mut self) -> Work {
        let copied = match self.pass() {
            Ok(log) => log.copied,
            Err(error) => {
                self.connection = None;
                self.retry.put_off();
                if !std::mem::replace(&mut self.is_failing, true) {
                    let message =
                        "the log is not moved into the data file, and grows; trying again";
                    tracing::error!(%error, message);
                }
                return Work::Resting;
            }
        };
        if copied == std::mem::replace(&mut self.copied, copied) {
            // A reader stands in the way.
            self.retry.put_off();
        } else {
            self.retry = Retry::default();
        }
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the log is moved into the data file again");
        }
        match self.data_file.sync_data() {
            Ok(()) => Work::Copied,
            Err(error) => {
                tracing::error!(
                    %error,
                    "the data file was not synced: its log is kept, and grows, until a restart"
                );
                self.read_on();
                Work::InDoubt
            }
        }
    }

    fn pass(&mut self) -> rusqlite::Result<Progress> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_writable(&self.path)?,
        };
        checkpoint(self.connection.insert(connection), COPY)
    }

    /// Keeps the log from beginning anew, as a reader of it does, until the process ends.
    fn read_on(&self) {
        let Some(connection) = &self.connection else { return };
        let kept = keep_log(connection)
            .and_then(|()| connection.execute_batch("begin"))
            .and_then(|()| connection.query_row(BEGIN_SNAPSHOT, [], |_| Ok(())));
        if let Err(error) = kept {
            tracing::error!(%error, "only the writer keeps the log");
        }
    }
}

/// Lets a connection end without copying the log and deleting it.
pub(super) fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::TempDir;

    use super::*;
    use crate::sqlite::{beside, open_private, open_reader, open_writer};

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
                Checkpointer::start(&path, (synced, Arc::clone(&snapshots)), LENGTHS);
            let (written, longest) = (0, 0);
            Self { _folder: folder, path, writer, checkpointer, snapshots, written, longest }
        }

        /// A transaction, and what comes before it. Answers how long the log is afterwards.
        fn write(&mut self) -> i64 {
            self.checkpointer.tend(&self.writer);
            let tx = self.writer.transaction().expect("a transaction");
            for row in 0..ROWS {
                self.written += 1;
                let key = self.written * 7_919 % 2_000 * ROWS + row;
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
                let _open = snapshots.open();
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
        world
            .writer
            .pragma_update(None, "journal_size_limit", LENGTHS.kept_bytes())
            .expect("a limit");
        assert!(world.log_bytes() > 2 * kept, "{}", world.log_bytes());
        reader.execute_batch("rollback").expect("the end of the snapshot");
        world.write_through(1);
        assert!(world.log_bytes() <= kept, "{}", world.log_bytes());
        world.check_newest(&world.path);
    }

    #[test]
    fn a_data_file_that_was_not_synced_keeps_its_log_until_the_next_start() {
        // What is no file on a disk cannot be synced.
        let mut world = World::syncing(|_| File::open("/dev/null").expect("nothing"));
        let before: Vec<i64> = (0..200).map(|_| world.write()).collect();
        assert!(before.is_sorted(), "the log began anew");
        assert!(!world.checkpointer.stop());
        keep_log(&world.writer).expect("a setting");
        let bytes = world.log_bytes();
        let closed = Connection::open_in_memory().expect("another connection");
        drop(std::mem::replace(&mut world.writer, closed));
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
}
