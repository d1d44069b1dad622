//! Holds back the reads of this process, so that the log can restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::snapshots::Snapshots;

/// The limit on holding back new reads for a log that is too long.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// The limit once no read of this process is running.
const IDLE_HOLD_MAX: Duration = Duration::from_millis(300);
/// The pause before reads are held back again, if the first time did not help.
const HOLD_EVERY: Duration = Duration::from_secs(60);
/// The pause if no read of this process was running, so that another process reads the log.
const IDLE_HOLD_EVERY: Duration = Duration::from_secs(600);

/// Decides when new reads are held back.
pub(super) struct HeldReads {
    pub(super) snapshots: Arc<Snapshots>,
    /// The end of the current hold.
    pub(super) until: Option<Instant>,
    /// The earliest instant of the next hold.
    pub(super) rests_until: Option<Instant>,
}

impl HeldReads {
    pub(super) fn are_held(&self) -> bool {
        self.until.is_some()
    }

    /// Holds back reads while the log is much too long, if that can help.
    pub(super) fn update(&mut self, is_overfull: bool) {
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
                let pause = if are_none { IDLE_HOLD_EVERY } else { HOLD_EVERY };
                (self.until, self.rests_until) = (None, Some(now + pause));
                self.snapshots.release();
            }
            Some(until) if are_none && now + IDLE_HOLD_MAX < until => {
                self.hold(now + IDLE_HOLD_MAX);
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
