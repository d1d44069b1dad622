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

/// How long the writer waits between two transactions for a pass that falls behind.
const BRAKE_MAX: Duration = Duration::from_millis(250);

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
    copier: Mutex<LogCopier>,
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
        let copier = LogCopier::new(path, data_file, Arc::clone(&is_kept));
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

#[cfg(test)]
mod tests;
