//! The state of a connection that its deadlines depend on.
//!
//! Is a request in flight, has one started to arrive, does the client read its responses? The
//! stream, the service and the response bodies report here. The task that drives the connection
//! asks what is due. Deliberately absent: timers and sockets.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::framing::Framing;
use super::limits::Deadlines;

/// The most bytes without a request.
///
/// Between requests all bytes count, during a request the HTTP/2 frames without a body. A client
/// whose body is not read sends at most one window of a megabyte; floods of PING or SETTINGS exceed
/// this at once.
const QUIET_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The credit for such frames that reading a part of a response gives: the client must confirm it.
const PART_CREDIT: usize = 64 * 1024;
/// A new connection without a request counts as silent after this.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// After this, an unread response no longer protects its connection from eviction.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// The most canceled requests beyond the answered ones.
const TAKEN_BACK_MAX: u32 = 200;
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
    /// Too many bytes without a request.
    Chatter,
    /// The client cancels requests as soon as it sends them.
    TakenBack,
    /// The connection was closing, and the client did not close its end.
    Lingering,
    /// The connection was idle, and its slot is needed.
    Crowded,
}

/// The shared state of one connection.
#[derive(Debug)]
pub(crate) struct Progress {
    deadlines: Deadlines,
    state: Mutex<State>,
    /// Notified when the connection is asked to close.
    closes: Notify,
}

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

#[derive(Debug)]
struct State {
    framing: Framing,
    /// Requests in flight.
    requests: u32,
    /// Requests of unauthenticated callers whose bodies are being discarded.
    discards: u32,
    /// When the first of them started.
    discards_since: Option<Instant>,
    /// Whether a request ever came.
    has_asked: bool,
    /// When the last request ended.
    quiet_since: Instant,
    /// Bytes since then that belong to no request.
    quiet_bytes: usize,
    /// When the head of the next request started to arrive.
    head_since: Option<Instant>,
    /// When the socket stopped accepting data.
    blocked_since: Option<Instant>,
    /// Unfinished responses, and when the client last read some of each.
    answers: Vec<(u64, Instant)>,
    next_answer: u64,
    answered: u32,
    /// When the last part of a response was passed to the socket.
    handed_over_at: Option<Instant>,
    taken_back: u32,
    /// When the connection was asked to close.
    closing_since: Option<Instant>,
    /// Whether the connection ends with a part of a request unread.
    leaves_unread: bool,
    /// When the connection started to wait for the client to close it.
    lingering_since: Option<Instant>,
    /// Whether the server cut the connection.
    is_cut: bool,
}

impl Progress {
    /// A connection that was just opened.
    pub(crate) fn new(deadlines: Deadlines, now: Instant) -> Self {
        let state = State {
            framing: Framing::new(),
            requests: 0,
            discards: 0,
            discards_since: None,
            has_asked: false,
            quiet_since: now,
            quiet_bytes: 0,
            head_since: None,
            blocked_since: None,
            answers: Vec::new(),
            next_answer: 0,
            answered: 0,
            handed_over_at: None,
            taken_back: 0,
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
        let quiet_bytes = if state.requests > 0 { found.frame_bytes } else { bytes.len() };
        state.quiet_bytes = state.quiet_bytes.saturating_add(quiet_bytes);
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
        state.has_asked = true;
        state.head_since = None;
        state.quiet_bytes = 0;
    }

    /// A response was sent completely, or its request was canceled.
    pub(crate) fn end_request(&self, now: Instant) {
        let mut state = self.state.lock();
        state.requests = state.requests.saturating_sub(1);
        if state.requests == 0 {
            state.quiet_since = now;
        }
    }

    /// The rest of a body is only discarded from now on, for an unauthenticated caller.
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
    pub(crate) fn take_back(&self) {
        let mut state = self.state.lock();
        state.taken_back = state.taken_back.saturating_add(1);
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
        if let Some((_, taken_at)) = state.answers.iter_mut().find(|(known, _)| *known == answer) {
            *taken_at = now;
        }
        state.quiet_bytes = state.quiet_bytes.saturating_sub(PART_CREDIT);
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
        let told = self.closes.notified();
        if !self.is_closing() {
            told.await;
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
    pub(crate) fn has_asked(&self) -> bool {
        self.state.lock().has_asked
    }

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
            let is_new = now.duration_since(state.quiet_since) < SILENT_AFTER;
            let is_silent = !state.has_asked && !is_new;
            let idleness = if is_silent { Idleness::Silent } else { Idleness::Idle };
            return Some((idleness, state.quiet_since));
        }
        let taken_at = state.answers.iter().map(|(_, taken_at)| *taken_at).max()?;
        let is_stalled = state.answers.len() == requests as usize && !is_recent(taken_at);
        is_stalled.then_some((Idleness::Stalled, taken_at))
    }

    /// Marks the connection as cut by the server.
    pub(crate) fn cut(&self) {
        self.state.lock().is_cut = true;
    }

    /// Whether the server cut the connection.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }

    /// The next deadline and its reason. `None` while the server has work to do.
    pub(crate) fn due(&self) -> Option<(Instant, CutReason)> {
        let state = self.state.lock();
        let Deadlines { header, idle, write } = self.deadlines;
        if state.quiet_bytes > QUIET_BYTES_MAX {
            return Some((state.quiet_since, CutReason::Chatter));
        }
        if state.taken_back > state.answered.saturating_add(TAKEN_BACK_MAX) {
            return Some((state.quiet_since, CutReason::TakenBack));
        }
        let untaken = state.answers.iter().map(|(_, taken_at)| *taken_at).min();
        let reader = [state.blocked_since, untaken].into_iter().flatten().min();
        let reader = reader.map(|since| (since + write, CutReason::SlowReader));
        // A response whose end is on its way still counts as in flight.
        if state.requests > 0 || state.blocked_since.is_some() {
            return reader;
        }
        let quiet = match (state.closing_since, state.lingering_since, state.head_since) {
            (Some(asked), _, _) => {
                (asked.max(state.quiet_since) + CLOSING_MAX, CutReason::Lingering)
            }
            (None, Some(since), _) => (since + CLOSING_MAX, CutReason::Lingering),
            (None, None, Some(since)) => (since + header, CutReason::SlowHead),
            (None, None, None) => (state.quiet_since + idle, CutReason::Idle),
        };
        Some(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::framing::HTTP2_OPENING;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const DEADLINES: Deadlines =
        Deadlines { header: seconds(10), idle: seconds(75), write: seconds(30) };

    fn opened() -> (Progress, Instant) {
        let now = Instant::now();
        (Progress::new(DEADLINES, now), now)
    }

    #[track_caller]
    fn check(progress: &Progress, expected: Option<(Instant, CutReason)>) {
        assert_eq!(progress.due(), expected);
    }

    #[test]
    fn a_connection_without_a_request_is_idle() {
        let (progress, start) = opened();
        check(&progress, Some((start + seconds(75), CutReason::Idle)));
        progress.begin_request();
        check(&progress, None);
        progress.end_request(start + seconds(5));
        check(&progress, Some((start + seconds(80), CutReason::Idle)));
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte_however_many_follow() {
        let (progress, start) = opened();
        for (after, byte) in b"POST".iter().enumerate() {
            progress.read(&[*byte], start + seconds(3 + after as u64));
        }
        check(&progress, Some((start + seconds(13), CutReason::SlowHead)));
        progress.begin_request();
        progress.read(b"more", start + seconds(6));
        progress.end_request(start + seconds(7));
        check(&progress, Some((start + seconds(82), CutReason::Idle)));
    }

    #[test]
    fn frames_of_http2_are_no_head_but_its_opening_has_a_deadline() {
        let (progress, start) = opened();
        progress.read(b"PR", start);
        check(&progress, Some((start + seconds(10), CutReason::SlowHead)));
        progress.read(b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n", start + seconds(1));
        progress.read(b"a frame", start + seconds(70));
        check(&progress, Some((start + seconds(75), CutReason::Idle)));
    }

    #[test]
    fn a_reader_that_takes_nothing_is_due_and_one_that_takes_something_is_not() {
        let (progress, start) = opened();
        progress.begin_request();
        let answer = progress.begin_answer(start);
        check(&progress, Some((start + seconds(30), CutReason::SlowReader)));
        progress.advance_answer(answer, start + seconds(20));
        check(&progress, Some((start + seconds(50), CutReason::SlowReader)));
        progress.end_answer(answer, start + seconds(20));
        check(&progress, None);
        progress.blocked(start + seconds(21));
        progress.blocked(start + seconds(40));
        check(&progress, Some((start + seconds(51), CutReason::SlowReader)));
        progress.wrote();
        check(&progress, None);
    }

    #[test]
    fn one_answer_that_is_left_lying_is_seen_beside_others_that_are_taken() {
        let (progress, start) = opened();
        progress.begin_request();
        progress.begin_request();
        let left = progress.begin_answer(start);
        let taken = progress.begin_answer(start);
        progress.advance_answer(taken, start + seconds(29));
        progress.end_answer(taken, start + seconds(29));
        check(&progress, Some((start + seconds(30), CutReason::SlowReader)));
        progress.end_answer(left, start + seconds(29));
        check(&progress, None);
    }

    #[test]
    fn floods_are_due_at_once() {
        let (progress, start) = opened();
        progress.read(HTTP2_OPENING, start);
        progress.read(&vec![0; QUIET_BYTES_MAX + 1], start);
        check(&progress, Some((start, CutReason::Chatter)));
        let (progress, start) = opened();
        progress.read(HTTP2_OPENING, start);
        progress.begin_request();
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let flood = ping.repeat(QUIET_BYTES_MAX / ping.len());
        progress.read(&flood, start);
        check(&progress, None);
        progress.read(&ping.repeat(2), start);
        check(&progress, Some((start, CutReason::Chatter)));
        // Each part of a long response gives the credit that reading it needs.
        let answer = progress.begin_answer(start);
        progress.advance_answer(answer, start);
        check(&progress, Some((start + seconds(30), CutReason::SlowReader)));
        let (progress, start) = opened();
        for _ in 0..=TAKEN_BACK_MAX {
            progress.begin_request();
            progress.take_back();
            progress.end_request(start);
        }
        check(&progress, Some((start, CutReason::TakenBack)));
    }

    #[test]
    fn the_body_of_a_request_is_no_flood() {
        let (progress, start) = opened();
        progress.read(HTTP2_OPENING, start);
        progress.begin_request();
        let part = [&[0, 64, 0, 0, 0, 0, 0, 0, 1], vec![b'{'; 16 * 1024].as_slice()].concat();
        progress.read(&part.repeat(512), start);
        check(&progress, None);
    }

    #[test]
    fn a_connection_is_idle_while_it_asks_nothing_or_takes_nothing() {
        let (progress, start) = opened();
        assert_eq!(progress.idleness(start), Some((Idleness::Idle, start)));
        let later = start + seconds(1);
        assert_eq!(progress.idleness(later), Some((Idleness::Silent, start)));
        progress.begin_request();
        assert_eq!(progress.idleness(later), None);
        let answer = progress.begin_answer(later);
        assert_eq!(progress.idleness(later + seconds(4)), None);
        let stalled = Some((Idleness::Stalled, later));
        assert_eq!(progress.idleness(later + seconds(5)), stalled);
        progress.begin_request();
        assert_eq!(progress.idleness(later + seconds(5)), None, "the other is being answered");
        progress.end_answer(answer, later);
        progress.end_request(later);
        progress.end_request(later);
        assert_eq!(progress.idleness(later), Some((Idleness::Idle, later)));
    }

    /// Answers one request at this instant.
    fn answer(progress: &Progress, now: Instant) {
        progress.begin_request();
        let answer = progress.begin_answer(now);
        progress.end_answer(answer, now);
        progress.end_request(now);
    }

    #[test]
    fn a_client_that_takes_the_end_of_an_answer_is_not_idle() {
        let (progress, start) = opened();
        answer(&progress, start);
        progress.blocked(start + seconds(1));
        assert_eq!(progress.idleness(start + seconds(5)), None);
        // A closing connection gives its client time to read, too.
        progress.close(start + seconds(1));
        check(&progress, Some((start + seconds(31), CutReason::SlowReader)));
        progress.wrote();
        progress.blocked(start + seconds(6));
        assert_eq!(progress.idleness(start + seconds(10)), None, "it took something");
        let stalled = Some((Idleness::Stalled, start + seconds(6)));
        assert_eq!(progress.idleness(start + seconds(11)), stalled);
        progress.wrote();
        assert_eq!(progress.idleness(start + seconds(11)), Some((Idleness::Idle, start)));
        check(&progress, Some((start + seconds(3), CutReason::Lingering)));
    }

    #[test]
    fn over_http2_the_end_of_an_answer_has_a_moment() {
        let (progress, start) = opened();
        progress.read(HTTP2_OPENING, start);
        answer(&progress, start);
        assert_eq!(progress.idleness(start + seconds(4)), None);
        assert_eq!(progress.idleness(start + seconds(5)), Some((Idleness::Idle, start)));
        // The same with another response that is not read.
        progress.begin_request();
        progress.begin_answer(start);
        answer(&progress, start + seconds(4));
        assert_eq!(progress.idleness(start + seconds(8)), None);
        let stalled = Some((Idleness::Stalled, start));
        assert_eq!(progress.idleness(start + seconds(9)), stalled);
        // A canceled request has no response on its way.
        let (progress, start) = opened();
        progress.read(HTTP2_OPENING, start);
        progress.begin_request();
        progress.take_back();
        progress.end_request(start);
        assert_eq!(progress.idleness(start), Some((Idleness::Idle, start)));
    }

    #[test]
    fn a_client_that_may_still_be_sending_has_a_moment_to_read_its_last_answer() {
        let (progress, start) = opened();
        answer(&progress, start);
        assert!(!progress.begin_lingering(start), "there is nothing unread");
        progress.leave_unread();
        let end = start + seconds(1);
        assert!(progress.begin_lingering(end));
        assert!(progress.begin_lingering(end + seconds(1)), "from the first time on");
        check(&progress, Some((end + seconds(2), CutReason::Lingering)));
        assert_eq!(progress.idleness(end), Some((Idleness::Silent, end)), "it may give way");
        // So does one whose head was refused.
        let (progress, start) = opened();
        progress.read(b"no head", start);
        assert!(progress.begin_lingering(start));
        check(&progress, Some((start + seconds(2), CutReason::Lingering)));
    }

    #[test]
    fn a_body_that_is_discarded_for_a_caller_without_a_credential_may_give_way() {
        for opening in [&b""[..], HTTP2_OPENING] {
            let (progress, start) = opened();
            progress.read(opening, start);
            answer(&progress, start);
            progress.begin_request();
            progress.begin_discard(start + seconds(1));
            progress.begin_request();
            progress.begin_discard(start + seconds(2));
            let silent = Some((Idleness::Silent, start + seconds(1)));
            assert_eq!(progress.idleness(start + seconds(2)), silent);
            progress.begin_request();
            assert_eq!(progress.idleness(start + seconds(2)), None, "another is in flight");
            progress.end_request(start + seconds(2));
            progress.end_discard();
            progress.end_request(start + seconds(2));
            progress.end_discard();
            assert_eq!(progress.idleness(start + seconds(9)), None, "its answer goes out");
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_of_a_connection_hears_of_it() {
        let (progress, start) = opened();
        let closes = async { tokio::join!(progress.closes(), async { progress.close(start) }) };
        tokio::time::timeout(seconds(10), closes).await.expect("told while it waits");
        tokio::time::timeout(seconds(10), progress.closes()).await.expect("told before");
    }

    #[test]
    fn what_was_asked_to_end_may_answer_first_and_then_has_a_moment() {
        let (progress, start) = opened();
        progress.begin_request();
        progress.close(start);
        check(&progress, None);
        progress.end_request(start + seconds(9));
        check(&progress, Some((start + seconds(11), CutReason::Lingering)));
    }
}
