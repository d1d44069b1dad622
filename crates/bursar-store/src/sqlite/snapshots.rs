//! Counts the running reads of the log, and can pause new ones.
//!
//! SQLite restarts the log only while no read uses it. If reads always overlap, that never happens,
//! so the checkpointer can hold back new reads until the running ones have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How often a paused read checks whether its client is still waiting.
const GONE_CHECK_EVERY: Duration = Duration::from_millis(50);

/// The long reads of one data file in this process.
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

/// A running read, until it is dropped.
pub(super) struct OpenSnapshot(Arc<Snapshots>);

impl Drop for OpenSnapshot {
    fn drop(&mut self) {
        self.0.state.lock().open -= 1;
    }
}

impl Snapshots {
    /// Begins a read, after the pause if there is one; `None` if its client stops waiting first.
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
            self.changed.wait_until(&mut state, until.min(now + GONE_CHECK_EVERY));
        }
        state.open += 1;
        Some(OpenSnapshot(Arc::clone(self)))
    }

    /// Holds back new reads until [`release`](Self::release), or until an instant.
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
