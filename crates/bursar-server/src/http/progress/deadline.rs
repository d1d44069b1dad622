//! When a connection is cut, and why.

use std::time::Duration;

use tokio::time::Instant;

use super::state::Progress;
use crate::http::limits::Deadlines;

/// The most bytes that belong to no request.
///
/// A client whose body is not read sends at most one window of a megabyte; floods of PING or
/// SETTINGS exceed this at once.
pub(super) const STRAY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most canceled requests beyond the answered ones.
pub(super) const CANCELED_MAX: u32 = 200;
/// How long a closing connection may stay open with nothing to send.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// Why the server cut a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutReason {
    /// The head of a request did not arrive in time.
    SlowHead,
    /// No request came for too long.
    Idle,
    /// The client does not read a response.
    SlowReader,
    /// Too many bytes belong to no request.
    Flood,
    /// The client cancels requests as soon as it sends them.
    Canceled,
    /// The connection was closing, and the client did not close its end.
    Lingering,
    /// The connection was idle, and its slot is needed.
    Evicted,
}

impl Progress {
    /// The next deadline and its reason. `None` while the server has work to do.
    pub(crate) fn due(&self) -> Option<(Instant, CutReason)> {
        let state = self.state.lock();
        let Deadlines { header, idle, write } = self.deadlines;
        if state.stray_bytes > STRAY_BYTES_MAX {
            return Some((state.idle_since, CutReason::Flood));
        }
        if state.canceled > state.answered.saturating_add(CANCELED_MAX) {
            return Some((state.idle_since, CutReason::Canceled));
        }
        let unread = state.answers.iter().map(|(_, read_at)| *read_at).min();
        let reader = [state.blocked_since, unread].into_iter().flatten().min();
        let reader = reader.map(|since| (since + write, CutReason::SlowReader));
        // A response whose end is on its way still counts as in flight.
        if state.requests > 0 || state.blocked_since.is_some() {
            return reader;
        }
        let quiet = match (state.closing_since, state.lingering_since, state.head_since) {
            (Some(asked), _, _) => {
                (asked.max(state.idle_since) + CLOSING_MAX, CutReason::Lingering)
            }
            (None, Some(since), _) => (since + CLOSING_MAX, CutReason::Lingering),
            (None, None, Some(since)) => (since + header, CutReason::SlowHead),
            (None, None, None) => (state.idle_since + idle, CutReason::Idle),
        };
        Some(quiet)
    }
}
