//! The events of a connection, and the state that they lead to.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::http::framing::Framing;
use crate::http::limits::Deadlines;

/// The stray bytes forgiven for each part of a response that the client reads, because it must
/// confirm the part.
const PART_CREDIT: usize = 64 * 1024;

/// The progress of one connection.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(super) deadlines: Deadlines,
    pub(super) state: Mutex<State>,
    /// Notified when the connection is asked to close.
    closes: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) framing: Framing,
    /// Requests in flight.
    pub(super) requests: u32,
    /// Requests of unauthenticated callers whose bodies are being discarded.
    pub(super) discards: u32,
    /// When the first of these discards started.
    pub(super) discards_since: Option<Instant>,
    /// Whether a request ever came.
    pub(super) had_request: bool,
    /// When the last request ended.
    pub(super) idle_since: Instant,
    /// Bytes that belong to no request: between requests all bytes, and during a request the HTTP/2
    /// frames without a body.
    pub(super) stray_bytes: usize,
    /// When the head of the next request started to arrive.
    pub(super) head_since: Option<Instant>,
    /// When the socket stopped accepting data.
    pub(super) blocked_since: Option<Instant>,
    /// Unfinished responses, and when the client last read some of each.
    pub(super) answers: Vec<(u64, Instant)>,
    pub(super) next_answer: u64,
    /// Responses so far.
    pub(super) answered: u32,
    /// When the last part of a response was passed to the socket.
    pub(super) handed_over_at: Option<Instant>,
    /// Requests that were canceled before their responses.
    pub(super) canceled: u32,
    /// When the connection was asked to close.
    pub(super) closing_since: Option<Instant>,
    /// Whether the connection ends with a part of a request unread.
    pub(super) leaves_unread: bool,
    /// When the connection started to wait for the client to close it.
    pub(super) lingering_since: Option<Instant>,
    /// Whether the server cut the connection.
    pub(super) is_cut: bool,
}

impl Progress {
    /// A connection that was just opened.
    pub(crate) fn new(deadlines: Deadlines, now: Instant) -> Self {
        let state = State {
            framing: Framing::new(),
            requests: 0,
            discards: 0,
            discards_since: None,
            had_request: false,
            idle_since: now,
            stray_bytes: 0,
            head_since: None,
            blocked_since: None,
            answers: Vec::new(),
            next_answer: 0,
            answered: 0,
            handed_over_at: None,
            canceled: 0,
            closing_since: None,
            leaves_unread: false,
            lingering_since: None,
            is_cut: false,
        };
        Self { deadlines, state: Mutex::new(state), closes: Notify::new() }
    }

    /// Reports received bytes. Returns the position after a line of HTTP/1.1 with a bare LF.
    pub(crate) fn read(&self, bytes: &[u8], now: Instant) -> Option<usize> {
        let mut state = self.state.lock();
        let found = state.framing.read(bytes);
        let stray_bytes = if state.requests > 0 { found.frame_bytes } else { bytes.len() };
        state.stray_bytes = state.stray_bytes.saturating_add(stray_bytes);
        if state.requests > 0 {
            return found.bad_line_end;
        }
        // HTTP/2 frames without a request can come at any time. Its heads are limited by the idle
        // deadline.
        match state.framing {
            Framing::Http2(_) => state.head_since = None,
            Framing::Http1(_) | Framing::Unknown(_) if bytes.is_empty() => {}
            Framing::Http1(_) | Framing::Unknown(_) => {
                state.head_since.get_or_insert(now);
            }
        }
        found.bad_line_end
    }

    /// The socket accepted data.
    pub(crate) fn wrote(&self) {
        self.state.lock().blocked_since = None;
    }

    /// The socket accepts no data.
    pub(crate) fn blocked(&self, now: Instant) {
        self.state.lock().blocked_since.get_or_insert(now);
    }

    /// The head of a request is complete.
    pub(crate) fn begin_request(&self) {
        let mut state = self.state.lock();
        state.requests += 1;
        state.had_request = true;
        state.head_since = None;
        state.stray_bytes = 0;
    }

    /// A response was sent completely, or its request was canceled.
    pub(crate) fn end_request(&self, now: Instant) {
        let mut state = self.state.lock();
        state.requests = state.requests.saturating_sub(1);
        if state.requests == 0 {
            state.idle_since = now;
        }
    }

    /// The rest of the body of an unauthenticated caller is discarded.
    pub(crate) fn begin_discard(&self, now: Instant) {
        let mut state = self.state.lock();
        state.discards += 1;
        state.discards_since.get_or_insert(now);
    }

    /// A discarded body has ended or is no longer read.
    pub(crate) fn end_discard(&self) {
        let mut state = self.state.lock();
        state.discards = state.discards.saturating_sub(1);
        if state.discards == 0 {
            state.discards_since = None;
        }
    }

    /// A request was canceled before its response.
    pub(crate) fn cancel_request(&self) {
        let mut state = self.state.lock();
        state.canceled = state.canceled.saturating_add(1);
    }

    /// A response starts. Returns its number.
    pub(crate) fn begin_answer(&self, now: Instant) -> u64 {
        let mut state = self.state.lock();
        let answer = state.next_answer;
        state.next_answer += 1;
        state.answered = state.answered.saturating_add(1);
        state.answers.push((answer, now));
        answer
    }

    /// The client is ready for the next part of a response.
    pub(crate) fn advance_answer(&self, answer: u64, now: Instant) {
        let mut state = self.state.lock();
        if let Some((_, read_at)) = state.answers.iter_mut().find(|(known, _)| *known == answer) {
            *read_at = now;
        }
        state.stray_bytes = state.stray_bytes.saturating_sub(PART_CREDIT);
    }

    /// A response has no more parts.
    pub(crate) fn end_answer(&self, answer: u64, now: Instant) {
        let mut state = self.state.lock();
        state.answers.retain(|(known, _)| *known != answer);
        state.handed_over_at = Some(now);
    }

    /// Asks the connection to close after its current responses.
    pub(crate) fn close(&self, now: Instant) {
        self.state.lock().closing_since.get_or_insert(now);
        self.closes.notify_waiters();
    }

    /// Whether the connection was asked to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().closing_since.is_some()
    }

    /// Waits until the connection is asked to close.
    pub(crate) async fn closes(&self) {
        // Registered before the check, so that no notification is missed.
        let notified = self.closes.notified();
        if !self.is_closing() {
            notified.await;
        }
    }

    /// The connection ends with a part of a request unread.
    pub(crate) fn leave_unread(&self) {
        self.state.lock().leaves_unread = true;
    }

    /// The connection sent its last byte. Returns whether the client may still be sending.
    ///
    /// In that case closing the socket would cause a reset, which can cost the client its response
    /// (RFC 9112, 9.6).
    pub(crate) fn begin_lingering(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        // A head that never became a request was refused.
        let lingers = state.leaves_unread || state.head_since.is_some();
        if lingers {
            state.lingering_since.get_or_insert(now);
        }
        lingers
    }

    /// Whether a request ever came.
    pub(crate) fn had_request(&self) -> bool {
        self.state.lock().had_request
    }

    /// Marks the connection as cut by the server.
    pub(crate) fn cut(&self) {
        self.state.lock().is_cut = true;
    }

    /// Whether the server cut the connection.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }
}
