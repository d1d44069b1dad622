//! How idle a connection is, which decides whether it is evicted for a new one.

use std::time::Duration;

use tokio::time::Instant;

use super::state::Progress;
use crate::http::framing::Framing;

/// A new connection without a request counts as silent after this.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// After this, an unread response no longer protects its connection from eviction.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// How little a connection is used, least first. The least used one is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Idleness {
    /// It never sent a request, sends only discarded bytes, or is closing.
    Silent,
    /// Its last request was answered.
    Idle,
    /// The client does not read its responses.
    Stalled,
}

impl Progress {
    /// How little the connection is used, and since when. `None` while it must not be evicted.
    ///
    /// That is while a request is in flight or the end of a response is on its way. Discarding the
    /// body of an unauthenticated caller does not count as a request, and lingering does not count
    /// as use: both only help the client.
    pub(crate) fn idleness(&self, now: Instant) -> Option<(Idleness, Instant)> {
        let state = self.state.lock();
        if let Some(since) = state.lingering_since {
            return Some((Idleness::Silent, since));
        }
        let requests = state.requests.saturating_sub(state.discards);
        if let (0, Some(since)) = (requests, state.discards_since) {
            return Some((Idleness::Silent, since));
        }
        let is_recent = |at: Instant| now.duration_since(at) < STALLED_AFTER;
        // Data that waits for HTTP/2 flow control is invisible here.
        let is_http2 = matches!(state.framing, Framing::Http2(_));
        if is_http2 && state.handed_over_at.is_some_and(is_recent) {
            return None;
        }
        if requests == 0 {
            if let Some(since) = state.blocked_since {
                return (!is_recent(since)).then_some((Idleness::Stalled, since));
            }
            let is_new = now.duration_since(state.idle_since) < SILENT_AFTER;
            let is_silent = !state.had_request && !is_new;
            let idleness = if is_silent { Idleness::Silent } else { Idleness::Idle };
            return Some((idleness, state.idle_since));
        }
        let read_at = state.answers.iter().map(|(_, read_at)| *read_at).max()?;
        let is_stalled = state.answers.len() == requests as usize && !is_recent(read_at);
        is_stalled.then_some((Idleness::Stalled, read_at))
    }
}
