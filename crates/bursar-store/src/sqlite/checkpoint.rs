//! Moves the write-ahead log into the data file while the writer goes on.
//!
//! A thread copies the pages of the log in passes (`wal_checkpoint(passive)`). Under a busy writer such
//! a pass never comes to the end of the log, so that the log would grow for ever. Therefore the writer
//! makes the last pass, between two of its transactions: it copies the few pages that are left, and its
//! next transaction begins the log anew.
//!
//! A page that counts as copied must be on stable storage before its log begins anew. SQLite syncs the
//! data file only after a pass that comes to the end, so each pass is followed by a sync of its own. A
//! read of the log is open around both, because the log of an open read does not begin anew. If the copy
//! or the sync fails, that read stays open: the system may have dropped pages, a second sync would not
//! tell, and only the next start copies all of the log again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::connect::{BUSY_MAX, open_reader, open_writable};
use super::snapshots::Snapshots;
use crate::memory::{Caches, PAGE};

pub(super) const MEASURE: &str = "pragma wal_checkpoint(noop)";
const COPY: &str = "pragma wal_checkpoint(passive)";
/// Opens the log, and in a transaction keeps a read of it open.
const BEGIN_SNAPSHOT: &str = "select count(*) from sqlite_schema";

/// How long the writer waits between two transactions for a pass that falls behind.
const BRAKE_MAX: Duration = Duration::from_millis(250);
/// How long new reads are held back so that a log which is too long can begin anew.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// The same from when no read of this process runs any more.
const HOLD_IN_VAIN_MAX: Duration = Duration::from_millis(300);
/// How long reads are not held back again after that did not help.
const HOLD_EVERY: Duration = Duration::from_secs(60);
/// The same when no read of this process was in the way: then another process reads the log.
const HOLD_IN_VAIN_EVERY: Duration = Duration::from_secs(600);
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
pub(super) struct Progress {
    /// Whether another process stood in the way.
    pub(super) is_blocked: bool,
    /// Pages in the log.
    pages: i64,
    /// Those of them that are in the data file.
    pub(super) copied: i64,
}

impl Progress {
    fn left(self) -> i64 {
        self.pages.saturating_sub(self.copied)
    }
}

pub(super) fn checkpoint(connection: &Connection, sql: &str) -> rusqlite::Result<Progress> {
    connection.prepare_cached(sql)?.query_row([], |row| {
        let is_blocked = row.get::<_, i64>(0)? != 0;
        Ok(Progress { is_blocked, pages: row.get(1)?, copied: row.get(2)? })
    })
}

/// Moves the log into the file and cuts it, unless readers or other processes are in the way. Whether
/// it did.
pub(super) fn empty_log(writer: &Connection) -> rusqlite::Result<bool> {
    checkpoint(writer, "pragma wal_checkpoint(truncate)").map(|log| !log.is_blocked)
}

/// What the thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Nothing, and the writer made the last pass after the one before.
    Resting,
    /// A pass that was asked for.
    Copying,
    /// Nothing; a pass has come as far as it could.
    Copied {
        /// Whether it copied all that was there when it began.
        kept_up: bool,
    },
    Ended,
}

struct State {
    work: Work,
    is_stopped: bool,
    /// Before this a further pass would come no further.
    rests_until: Instant,
}

impl State {
    /// Whether a further pass is to leave less for the last one.
    fn is_shrinking(&self, is_full: bool) -> bool {
        is_full && matches!(self.work, Work::Copied { .. })
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    copier: Mutex<Copier>,
}

/// What copies the log, as the writer sees it.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    lengths: Lengths,
    reads: HeldReads,
    /// Whether the log is kept until the next start.
    is_kept: Arc<AtomicBool>,
    /// Whether that the log cannot be measured was told.
    is_blind: bool,
}

impl Checkpointer {
    /// Starts the thread. Without one the writer copies the log itself. It is told in `is_kept` when
    /// the log is kept until the next start.
    pub(super) fn start(
        path: &Path,
        (data_file, snapshots): (Arc<File>, Arc<Snapshots>),
        is_kept: Arc<AtomicBool>,
        lengths: Lengths,
    ) -> Self {
        let state = State { work: Work::Resting, is_stopped: false, rests_until: Instant::now() };
        let copier = Copier::new(path, data_file, Arc::clone(&is_kept));
        let (state, copier) = (Mutex::new(state), Mutex::new(copier));
        let shared = Arc::new(Shared { state, changed: Condvar::new(), copier });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bursar-log".to_owned())
            .spawn(move || work(&of_thread));
        let thread = thread.inspect_err(|error| {
            shared.state.lock().work = Work::Ended;
            tracing::warn!(%error, "no thread copies the log; the writer does it itself");
        });
        let reads = HeldReads { snapshots, until: None, rests_until: None };
        Self { shared, thread: thread.ok(), lengths, reads, is_kept, is_blind: false }
    }

    /// Looks after the log; for the writer between two of its transactions.
    pub(super) fn tend(&mut self, writer: &Connection) {
        let Lengths { pass, full, overfull } = self.lengths;
        let Some(mut log) = self.measure(writer) else { return };
        let is_kept = self.is_kept.load(Ordering::Relaxed);
        self.reads.tend(log.pages >= overfull && !is_kept);
        if is_kept || log.left() == 0 || log.left() < pass && log.pages < full {
            return;
        }
        let mut state = self.shared.state.lock();
        if log.pages >= overfull && state.work == Work::Copying {
            let copying = |state: &mut State| state.work == Work::Copying;
            self.shared.changed.wait_while_for(&mut state, copying, BRAKE_MAX);
            let Some(after) = self.measure_quietly(writer) else { return };
            log = after;
        }
        let may_begin = self.reads.are_held() || Instant::now() >= state.rests_until;
        let is_last = match state.work {
            // After a pass that kept up there is only what was written during it. A further pass leaves
            // less, but never less than a transaction, which can be large.
            Work::Copied { kept_up } => {
                let few = if log.pages < 2 * full { pass / 2 } else { 2 * pass };
                log.pages >= full && (log.left() <= few || kept_up && log.pages >= overfull)
            }
            // Nobody else does it.
            Work::Ended => log.left() >= full && may_begin,
            Work::Resting => false,
            Work::Copying => return,
        };
        if is_last {
            if state.work != Work::Ended {
                state.work = Work::Resting;
            }
            drop(state);
            // What fails is told and made again.
            let _ = self.copy();
        } else if (log.left() >= pass || state.is_shrinking(log.pages >= full))
            && state.work != Work::Ended
            && may_begin
        {
            state.work = Work::Copying;
            self.shared.changed.notify_all();
        }
    }

    /// The same when no transaction waits: a log that grew much too long is cut as well.
    pub(super) fn idle(&mut self, writer: &Connection) {
        self.tend(writer);
        let Some(log) = self.measure_quietly(writer) else { return };
        if log.pages >= self.lengths.overfull && log.left() == 0 {
            self.empty(writer);
            let after = self.measure_quietly(writer);
            self.reads.tend(after.is_none_or(|log| log.pages >= self.lengths.overfull));
        }
    }

    fn measure(&mut self, writer: &Connection) -> Option<Progress> {
        match checkpoint(writer, MEASURE) {
            Ok(log) => {
                self.is_blind = false;
                Some(log)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::error!(%error, "the log cannot be measured, and may grow");
                }
                None
            }
        }
    }

    /// The same where an error is told by the next one.
    fn measure_quietly(&self, writer: &Connection) -> Option<Progress> {
        checkpoint(writer, MEASURE).ok()
    }

    /// Makes a pass on the writer's thread, while no other one is made.
    fn copy(&self) -> rusqlite::Result<Pass> {
        let mut copier = self.shared.copier.lock();
        let pass = copier.copy();
        self.shared.state.lock().rests_until = copier.retry.at;
        pass
    }

    /// Moves all of the log into the file and cuts it, as far as readers allow at once.
    pub(super) fn empty(&self, writer: &Connection) {
        if let Err(error) = self.try_empty(writer) {
            tracing::warn!(%error, "the log was not moved into the file");
        }
    }

    /// The same, and answers what failed; that the log is kept until the next start is no error.
    pub(super) fn try_empty(&self, writer: &Connection) -> rusqlite::Result<()> {
        self.settle();
        // Whatever is copied is copied there, so that nothing is left to copy for the command that cuts.
        if self.copy()?.is_whole {
            impatiently(writer, empty_log)?;
        }
        Ok(())
    }

    /// Waits for the pass that is being made; none begins before the writer tends the log again.
    fn settle(&self) {
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_while(&mut state, |state| state.work == Work::Copying);
    }

    /// Closes what passes are made with, so that the writer is the last one that closes the file.
    pub(super) fn close(&self) {
        self.shared.copier.lock().connections = None;
    }

    /// Ends the thread. Whether all that counts as copied is on stable storage.
    pub(super) fn stop(&mut self) -> bool {
        self.settle();
        self.shared.state.lock().is_stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        !self.is_kept.load(Ordering::Relaxed)
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
    /// Until when they are.
    until: Option<Instant>,
    /// Until when they are not held back again.
    rests_until: Option<Instant>,
}

impl HeldReads {
    fn are_held(&self) -> bool {
        self.until.is_some()
    }

    /// Holds reads back while the log is much too long, as far as that can help.
    fn tend(&mut self, is_overfull: bool) {
        if !is_overfull {
            if self.until.take().is_some() {
                self.snapshots.release();
            }
            self.rests_until = None;
            return;
        }
        let (now, are_none) = (Instant::now(), self.snapshots.are_none());
        match self.until {
            Some(until) if now >= until => {
                let pause = if are_none { HOLD_IN_VAIN_EVERY } else { HOLD_EVERY };
                (self.until, self.rests_until) = (None, Some(now + pause));
                self.snapshots.release();
            }
            Some(until) if are_none && now + HOLD_IN_VAIN_MAX < until => {
                self.hold(now + HOLD_IN_VAIN_MAX);
            }
            Some(_) => {}
            None if !are_none && self.rests_until.is_none_or(|until| now >= until) => {
                self.hold(now + HOLD_MAX);
            }
            None => {}
        }
    }

    fn hold(&mut self, until: Instant) {
        self.until = Some(until);
        self.snapshots.hold(until);
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
fn work(shared: &Shared) {
    let _end = EndOnExit(shared);
    loop {
        let mut state = shared.state.lock();
        let is_resting = |state: &mut State| !state.is_stopped && state.work != Work::Copying;
        shared.changed.wait_while(&mut state, is_resting);
        if state.is_stopped {
            return;
        }
        drop(state);
        let mut copier = shared.copier.lock();
        let work = match copier.copy() {
            Ok(pass) => Work::Copied { kept_up: pass.kept_up },
            Err(_told) => Work::Resting,
        };
        let rests_until = copier.retry.at;
        drop(copier);
        let mut state = shared.state.lock();
        (state.work, state.rests_until) = (work, rests_until);
        shared.changed.notify_all();
    }
}

/// How far a pass came.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Whether it copied all that was there when it began.
    kept_up: bool,
    /// Whether nothing was left at its end.
    is_whole: bool,
}

/// What passes are made with.
struct Copier {
    path: PathBuf,
    /// Opened with the first pass, and anew after an error.
    connections: Option<Connections>,
    /// How far the pass before came.
    copied: i64,
    retry: Retry,
    /// Whether that passes fail was told.
    is_failing: bool,
    /// Whether a copy or a sync failed, so that the log is kept until the next start.
    is_kept: Arc<AtomicBool>,
    /// Syncs the data file. While SQLite has the file open in this process it must not be closed: the
    /// system would drop the locks of every connection. Fields are dropped in their order.
    data_file: Arc<File>,
}

struct Connections {
    copying: Connection,
    /// Keeps the log from beginning anew while it reads.
    reading: Connection,
}

impl Connections {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let copying = open_writable(path)?;
        keep_log(&copying)?;
        Ok(Self { copying, reading: open_reader(path)? })
    }
}

impl Copier {
    fn new(path: &Path, data_file: Arc<File>, is_kept: Arc<AtomicBool>) -> Self {
        let (path, retry) = (path.to_owned(), Retry::default());
        Self { path, connections: None, copied: 0, retry, is_failing: false, is_kept, data_file }
    }

    /// Makes a pass: copies what was committed before it, as far as readers allow, and syncs it. While
    /// the log is kept until the next start it does nothing.
    fn copy(&mut self) -> rusqlite::Result<Pass> {
        let (log, before) = match self.run_pass() {
            Ok(Some(passed)) => passed,
            Ok(None) => return Ok(Pass::default()),
            Err(error) => {
                self.connections = None;
                self.retry.put_off();
                if !std::mem::replace(&mut self.is_failing, true) {
                    let message =
                        "the log is not moved into the data file, and grows; trying again";
                    tracing::error!(%error, message);
                }
                return Err(error);
            }
        };
        let is_whole = !log.is_blocked && log.left() == 0;
        if !is_whole && log.copied == self.copied {
            // A reader stands in the way.
            self.retry.put_off();
        } else {
            self.retry = Retry::default();
        }
        self.copied = log.copied;
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the log is moved into the data file again");
        }
        Ok(Pass { kept_up: !log.is_blocked && log.copied >= before.pages, is_whole })
    }

    /// How long the log is after a pass and was before it; nothing when it is kept.
    fn run_pass(&mut self) -> rusqlite::Result<Option<(Progress, Progress)>> {
        if self.is_kept.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let open = match self.connections.take() {
            Some(open) => open,
            None => Connections::open(&self.path)?,
        };
        let Connections { copying, reading } = self.connections.insert(open);
        if !reading.is_autocommit() {
            return Ok(self.keep(&"a pass did not end"));
        }
        copying.execute_batch(BEGIN_SNAPSHOT)?;
        let before = checkpoint(copying, MEASURE)?;
        if before.left() == 0 {
            return Ok(Some((before, before)));
        }
        // With something left to copy, this read is one of the log, not of the data file alone.
        reading.execute_batch("begin")?;
        reading.execute_batch(BEGIN_SNAPSHOT)?;
        let log = match checkpoint(copying, COPY) {
            Ok(log) => log,
            Err(error) if is_harmless(&error) => return Err(error),
            Err(error) => return Ok(self.keep(&error)),
        };
        if let Err(error) = self.data_file.sync_data() {
            return Ok(self.keep(&error));
        }
        reading.execute_batch("rollback")?;
        Ok(Some((log, before)))
    }

    /// Leaves the read of the log open until the process ends.
    fn keep<T>(&self, error: &dyn std::fmt::Display) -> Option<T> {
        self.is_kept.store(true, Ordering::Relaxed);
        tracing::error!(
            %error,
            "the data file was not written or synced: its log is kept, and grows, until a restart"
        );
        None
    }
}

/// Whether a pass that failed so left nothing in doubt: it counted no page as copied, and none of its
/// syncs failed.
fn is_harmless(error: &rusqlite::Error) -> bool {
    let harmless = [
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
        ErrorCode::DiskFull,
        ErrorCode::OutOfMemory,
    ];
    error.sqlite_error_code().is_some_and(|code| harmless.contains(&code))
}

/// Lets a connection end without copying the log and deleting it.
pub(super) fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(|_| ())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::sqlite::files::{beside, open_private};
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
            let checkpointer = Checkpointer::start(
                &path,
                (synced, Arc::clone(&snapshots)),
                Arc::default(),
                LENGTHS,
            );
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
        let mut reads =
            HeldReads { snapshots: Arc::clone(&snapshots), until: None, rests_until: None };
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
}
