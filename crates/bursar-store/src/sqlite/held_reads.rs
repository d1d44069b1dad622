//! When the reads of this process are held back, so that the log can begin anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::snapshots::Snapshots;

/// How long new reads are held back so that a log which is too long can begin anew.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// The same from when no read of this process runs any more.
const HOLD_IN_VAIN_MAX: Duration = Duration::from_millis(300);
/// How long reads are not held back again after that did not help.
const HOLD_EVERY: Duration = Duration::from_secs(60);
/// The same when no read of this process was in the way: then another process reads the log.
const HOLD_IN_VAIN_EVERY: Duration = Duration::from_secs(600);

/// The reads of this process that are held back so that the log can begin anew.
pub(super) struct HeldReads {
    pub(super) snapshots: Arc<Snapshots>,
    /// Until when they are.
    pub(super) until: Option<Instant>,
    /// Until when they are not held back again.
    pub(super) rests_until: Option<Instant>,
}

impl HeldReads {
    pub(super) fn are_held(&self) -> bool {
        self.until.is_some()
    }

    /// Holds reads back while the log is much too long, as far as that can help.
    pub(super) fn tend(&mut self, is_overfull: bool) {
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
