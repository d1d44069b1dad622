//! How many reads of the log run, and a pause for new ones.
//!
//! The log begins anew only in a moment in which nobody reads from it. Reads that overlap without end
//! leave no such moment, so the checkpointer may hold new ones back until those that run have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How often a read that waits is asked whether anybody still waits for it.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The reads of one data file in this process that may take long.
#[derive(Default)]
pub(super) struct Snapshots {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: usize,
    held_until: Option<Instant>,
}

/// A read that runs, until it is dropped.
pub(super) struct OpenSnapshot(Arc<Snapshots>);

impl Drop for OpenSnapshot {
    fn drop(&mut self) {
        self.0.state.lock().open -= 1;
    }
}

impl Snapshots {
    /// Begins a read, after a pause if there is one; none when it is gone before.
    pub(super) fn open(self: &Arc<Self>, is_gone: impl Fn() -> bool) -> Option<OpenSnapshot> {
        let mut state = self.state.lock();
        while let Some(until) = state.held_until {
            let now = Instant::now();
            if now >= until {
                break;
            }
            if is_gone() {
                return None;
            }
            self.changed.wait_until(&mut state, until.min(now + ASK_EVERY));
        }
        state.open += 1;
        Some(OpenSnapshot(Arc::clone(self)))
    }

    /// Holds new reads back until they are released, and no longer than to an instant.
    pub(super) fn hold(&self, until: Instant) {
        self.state.lock().held_until = Some(until);
        self.changed.notify_all();
    }

    /// Lets reads begin again.
    pub(super) fn release(&self) {
        self.state.lock().held_until = None;
        self.changed.notify_all();
    }

    /// Whether no read runs.
    pub(super) fn are_none(&self) -> bool {
        self.state.lock().open == 0
    }
}
