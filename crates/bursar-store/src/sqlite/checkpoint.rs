//! Moves the write-ahead log into the data file while the writer continues.
//!
//! A thread copies the pages of the log in passes (see [`log_copier`](super::log_copier)). While the
//! writer is busy, such a pass never reaches the end of the log, so the log would grow without
//! bound. Therefore the writer makes the last pass itself, between two transactions: it copies the
//! few remaining pages, and its next transaction restarts the log.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

use super::connect::BUSY_MAX;
use super::held_reads::HeldReads;
use super::log_copier::{LogCopier, MEASURE, Pass, Progress, checkpoint, empty_log};
use super::snapshots::Snapshots;
use crate::memory::{Caches, PAGE};
/// How long the writer waits between two transactions for a pass that is too slow.
const BRAKE_MAX: Duration = Duration::from_millis(250);

/// Thresholds for the length of the log, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// The pages that start a pass. With fewer, pages that change often are copied more often; with
    /// more, the sync takes longer and slows commits down.
    pass: i64,
    /// At this length the log should restart.
    full: i64,
    /// At this length the writer waits for passes, and new reads wait for the running ones.
    overfull: i64,
}

impl Lengths {
    /// The thresholds for a log that should restart after `full` pages.
    pub(super) fn of(full: i64) -> Self {
        Self { pass: full / 4, full, overfull: full * 4 }
    }

    /// The thresholds for the memory of this process.
    pub(super) fn fitting() -> Self {
        Self::of(Caches::fitting().log_pages)
    }

    /// The size to which the file of a longer log is truncated when the log restarts.
    pub(super) fn kept_bytes(self) -> i64 {
        self.overfull.saturating_mul(PAGE)
    }
}

/// What the thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Idle, before the next pass.
    Resting,
    /// A requested pass is due or running.
    Copying,
    /// Idle after a pass; the writer has not made the last pass yet.
    Copied {
        /// Whether the pass copied everything that was in the log when it began.
        kept_up: bool,
    },
    /// The thread has ended, so the writer copies the log.
    Ended,
}

struct State {
    work: Work,
    is_stopped: bool,
    /// No pass is made before this instant, because the last one made no progress.
    rests_until: Instant,
}

impl State {
    /// Whether another pass should reduce what is left for the last one.
    fn is_shrinking(&self, is_full: bool) -> bool {
        is_full && matches!(self.work, Work::Copied { .. })
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    copier: Mutex<LogCopier>,
}

/// The writer's side of the copying of the log.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    lengths: Lengths,
    reads: HeldReads,
    /// Whether the log is kept until the next start.
    is_kept: Arc<AtomicBool>,
    /// Whether the last measurement failed, which was logged.
    measure_failed: bool,
}

impl Checkpointer {
    /// Starts the thread; if that fails, the writer copies the log itself.
    ///
    /// The copier sets `is_kept` when the log must be kept until the next start.
    pub(super) fn start(
        path: &Path,
        (data_file, snapshots): (Arc<File>, Arc<Snapshots>),
        is_kept: Arc<AtomicBool>,
        lengths: Lengths,
    ) -> Self {
        let state = State { work: Work::Resting, is_stopped: false, rests_until: Instant::now() };
        let copier = LogCopier::new(path, data_file, Arc::clone(&is_kept));
        let (state, copier) = (Mutex::new(state), Mutex::new(copier));
        let shared = Arc::new(Shared { state, changed: Condvar::new(), copier });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bursar-log".to_owned())
            .spawn(move || work(&of_thread));
        let thread = thread.inspect_err(|error| {
            shared.state.lock().work = Work::Ended;
            tracing::warn!(%error, "cannot start the thread that copies the log; the writer copies it");
        });
        let reads = HeldReads { snapshots, until: None, rests_until: None };
        Self { shared, thread: thread.ok(), lengths, reads, is_kept, measure_failed: false }
    }

    /// Requests or makes a pass if one is due. The writer calls this between two transactions.
    pub(super) fn between_transactions(&mut self, writer: &Connection) {
        let Lengths { pass, full, overfull } = self.lengths;
        let Some(mut log) = self.measure(writer) else { return };
        let is_kept = self.is_kept.load(Ordering::Relaxed);
        self.reads.update(log.pages >= overfull && !is_kept);
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
            // A pass that kept up leaves only what was written during it. Another pass leaves less,
            // but never less than one transaction, which can be large.
            Work::Copied { kept_up } => {
                let few = if log.pages < 2 * full { pass / 2 } else { 2 * pass };
                log.pages >= full && (log.left() <= few || kept_up && log.pages >= overfull)
            }
            Work::Ended => log.left() >= full && may_begin,
            Work::Resting => false,
            Work::Copying => return,
        };
        if is_last {
            if state.work != Work::Ended {
                state.work = Work::Resting;
            }
            drop(state);
            // The copier logs an error, and a later pass retries.
            let _ = self.copy();
        } else if (log.left() >= pass || state.is_shrinking(log.pages >= full))
            && state.work != Work::Ended
            && may_begin
        {
            state.work = Work::Copying;
            self.shared.changed.notify_all();
        }
    }

    /// The same when no transaction waits; a log that grew much too long is also truncated.
    pub(super) fn idle(&mut self, writer: &Connection) {
        self.between_transactions(writer);
        let Some(log) = self.measure_quietly(writer) else { return };
        if log.pages >= self.lengths.overfull && log.left() == 0 {
            self.empty(writer);
            let after = self.measure_quietly(writer);
            self.reads.update(after.is_none_or(|log| log.pages >= self.lengths.overfull));
        }
    }

    fn measure(&mut self, writer: &Connection) -> Option<Progress> {
        match checkpoint(writer, MEASURE) {
            Ok(log) => {
                self.measure_failed = false;
                Some(log)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.measure_failed, true) {
                    tracing::error!(
                        %error,
                        "the length of the write-ahead log cannot be read; the log may grow"
                    );
                }
                None
            }
        }
    }

    /// Measures the log without logging an error; the next [`measure`](Self::measure) logs it.
    fn measure_quietly(&self, writer: &Connection) -> Option<Progress> {
        checkpoint(writer, MEASURE).ok()
    }

    /// Makes a pass on the writer's thread, after any running pass.
    fn copy(&self) -> rusqlite::Result<Pass> {
        let mut copier = self.shared.copier.lock();
        let pass = copier.copy();
        self.shared.state.lock().rests_until = copier.retry.at;
        pass
    }

    /// Moves the whole log into the file and truncates it, as far as readers allow without a wait.
    pub(super) fn empty(&self, writer: &Connection) {
        if let Err(error) = self.try_empty(writer) {
            tracing::warn!(%error, "the write-ahead log was not moved into the data file");
        }
    }

    /// The same, but returns the error. A log that is kept until the next start is no error.
    pub(super) fn try_empty(&self, writer: &Connection) -> rusqlite::Result<()> {
        self.wait_for_pass();
        // The copier's pass syncs what it copies, so the truncating command must have nothing left
        // to copy.
        if self.copy()?.is_whole {
            without_waiting(writer, empty_log)?;
        }
        Ok(())
    }

    /// Waits for the running pass. The next one begins only when the writer requests it.
    fn wait_for_pass(&self) {
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_while(&mut state, |state| state.work == Work::Copying);
    }

    /// Closes the connections of the copier, so that the writer is the last to close the file.
    pub(super) fn close(&self) {
        self.shared.copier.lock().connections = None;
    }

    /// Ends the thread, and returns whether all pages that count as copied are on stable storage.
    pub(super) fn stop(&mut self) -> bool {
        self.wait_for_pass();
        self.shared.state.lock().is_stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        !self.is_kept.load(Ordering::Relaxed)
    }
}

/// Runs `body` with a busy timeout of zero.
fn without_waiting<T>(
    connection: &Connection,
    body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(Duration::ZERO)?;
    let result = body(connection);
    connection.busy_timeout(BUSY_MAX)?;
    result
}

/// Marks the thread as ended on drop, also after a panic.
struct EndOnExit<'a>(&'a Shared);

impl Drop for EndOnExit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().work = Work::Ended;
        self.0.changed.notify_all();
    }
}

/// The thread's loop: makes the passes that the writer requests.
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
            Err(_logged) => Work::Resting,
        };
        let rests_until = copier.retry.at;
        drop(copier);
        let mut state = shared.state.lock();
        (state.work, state.rests_until) = (work, rests_until);
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
