//! The body of a request as a route reads it, and what happens to the part that no route reads.
//!
//! Most refusals come before the body is read: no credential, too many requests, no such route. Over
//! HTTP/1.1 the next request begins where that body ends (RFC 9112, 9.3). So the server reads and
//! discards the rest before it answers, if the rest is small and arrives soon. Otherwise the answer
//! says `Connection: close`. Both are decided here for every answer, so that no refusal has to, and a
//! client that is turned away can come again on the same connection.
//!
//! Over HTTP/2 the body concerns its stream alone. The answer goes out at once, and the rest is
//! discarded beside it; a stream whose client does not end it in time is reset with `NO_ERROR`.
//! Rejected: resetting every such stream at once. h2 forgets streams after a reset, counts what still
//! arrives on them as errors, and ends the connection after a few dozen.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, timeout};

use super::limits::{BODY_BYTES_MAX, Limits};
use super::progress::Progress;
use crate::http::request_extensions::RequestTenant;

/// The largest body that the server discards for a caller without a valid credential. A batch of
/// 1,000 ordinary records fits.
const ANONYMOUS_BYTES_MAX: u64 = 1024 * 1024;
/// For how long it discards such a body, or one whose answer is out already.
const SHORT_TIME_MAX: Duration = Duration::from_secs(2);
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The body of a request as a route reads it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// Empty only while it is dropped.
    unread: Option<Unread>,
    /// Takes what is unread when the route drops the body.
    returned: Option<oneshot::Sender<Unread>>,
}

/// The part of a body that no route read.
#[derive(Debug)]
struct Unread {
    incoming: Incoming,
    /// What a route has read of the body.
    read_bytes: u64,
    /// When a route began to read. Only then hyper sends `100 Continue`.
    begun_at: Option<Instant>,
    /// For how long the route read.
    read_for: Duration,
    /// Whether reading failed.
    is_broken: bool,
}

/// How much of a body may be discarded.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes_max: u64,
    /// With the time that a route spent on reading it.
    time_max: Duration,
    /// Whether the caller has a valid credential.
    is_proved: bool,
}

/// Decides whether the connection persists once the answer to a request is known.
#[derive(Debug)]
pub(crate) struct Persistence {
    /// `None` for a request without a body.
    returned: Option<oneshot::Receiver<Unread>>,
    caller: RequestTenant,
    limits: Arc<Limits>,
    progress: Arc<Progress>,
    /// Whether the connection is for this request alone.
    is_last: bool,
    is_http1: bool,
    awaits_continue: bool,
}

impl RequestBody {
    fn new(incoming: Incoming, returned: Option<oneshot::Sender<Unread>>) -> Self {
        let unread = Unread {
            incoming,
            read_bytes: 0,
            begun_at: None,
            read_for: Duration::ZERO,
            is_broken: false,
        };
        Self { unread: Some(unread), returned }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(unread) = &mut this.unread else { return Poll::Ready(None) };
        unread.begun_at.get_or_insert_with(Instant::now);
        let polled = ready!(Pin::new(&mut unread.incoming).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                unread.read_bytes = unread.read_bytes.saturating_add(bytes);
            }
            Some(Err(_)) => unread.is_broken = true,
            None => this.returned = None,
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.unread.as_ref().is_none_or(|unread| unread.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let unread = self.unread.as_ref();
        unread.map_or_else(SizeHint::default, |unread| unread.incoming.size_hint())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let (Some(mut unread), Some(returned)) = (self.unread.take(), self.returned.take()) else {
            return;
        };
        if unread.is_broken || !unread.incoming.is_end_stream() {
            unread.read_for = unread.begun_at.map_or(Duration::ZERO, |at| at.elapsed());
            // The receiver is gone if the connection has ended.
            let _ = returned.send(unread);
        }
    }
}

impl Unread {
    /// Reads and discards it, unless the connection is asked to end meanwhile. Returns whether the
    /// body ended within the bounds.
    async fn discard(mut self, bounds: Bounds, progress: &Progress) -> bool {
        let mut left = bounds.bytes_max.saturating_sub(self.read_bytes);
        if self.is_broken || self.incoming.size_hint().lower() > left {
            return false;
        }
        let reading = async {
            while let Some(frame) = self.incoming.frame().await {
                let bytes = frame.ok()?.data_ref().map_or(0, Bytes::len) as u64;
                left = left.checked_sub(bytes)?;
            }
            Some(())
        };
        let reading = async {
            tokio::select! {
                biased;
                end = reading => end,
                () = progress.closes() => None,
            }
        };
        if !bounds.is_proved {
            progress.begin_discard(Instant::now());
        }
        let end = timeout(bounds.time_max.saturating_sub(self.read_for), reading).await;
        if !bounds.is_proved {
            progress.end_discard();
        }
        end.is_ok_and(|end| end.is_some())
    }
}

impl Persistence {
    /// Wraps the body of a request, so that its unread part comes back here.
    pub(crate) fn track(
        request: Request<Incoming>,
        limits: Arc<Limits>,
        progress: Arc<Progress>,
        is_last: bool,
    ) -> (Request<RequestBody>, Self) {
        let has_body = !request.body().is_end_stream();
        let (sender, returned) = has_body.then(oneshot::channel).unzip();
        let persistence = Self {
            returned,
            caller: RequestTenant::default(),
            limits,
            progress,
            is_last,
            is_http1: request.version() < Version::HTTP_2,
            awaits_continue: awaits_continue(request.headers()),
        };
        let mut request = request.map(|incoming| RequestBody::new(incoming, sender));
        request.extensions_mut().insert(persistence.caller.clone());
        (request, persistence)
    }

    /// Discards what is unread, so that the next request can follow, or announces the close.
    pub(crate) async fn decide<B>(self, response: &mut Response<B>) {
        let bounds = self.discard_bounds();
        let unread = self.returned.map(|mut returned| returned.try_recv());
        let is_ending = self.is_last || self.progress.is_closing();
        if !self.is_http1 {
            if let Some(Ok(unread)) = unread
                && !is_ending
            {
                // Counts as a request meanwhile, so that its bytes are no flood.
                self.progress.begin_request();
                tokio::spawn(async move {
                    let bounds = Bounds { time_max: unread.read_for + SHORT_TIME_MAX, ..bounds };
                    unread.discard(bounds, &self.progress).await;
                    self.progress.end_request(Instant::now());
                });
            }
            return;
        }
        let is_read = match unread {
            None | Some(Err(TryRecvError::Closed)) => true,
            // A task outlives its answer and still reads. hyper does not wait for it.
            Some(Err(TryRecvError::Empty)) => false,
            Some(Ok(unread)) => {
                let is_held_back = self.awaits_continue && unread.begun_at.is_none();
                let is_late = response.status() == StatusCode::REQUEST_TIMEOUT;
                let may_wait = !(is_ending || is_held_back || is_late);
                may_wait && unread.discard(bounds, &self.progress).await
            }
        };
        if !is_read {
            self.progress.leave_unread();
        }
        if !is_read || self.is_last {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
    }

    /// The bytes of a body that may be discarded, and the time for it. A caller with a valid
    /// credential gets the bounds of a body that is read, which it could send as well.
    fn discard_bounds(&self) -> Bounds {
        let is_proved = self.caller.is_proved();
        let (bytes_max, time_max) = match is_proved {
            true => (BODY_BYTES_MAX as u64, self.limits.body),
            false => (ANONYMOUS_BYTES_MAX, SHORT_TIME_MAX),
        };
        Bounds { bytes_max, time_max, is_proved }
    }
}

/// Whether the client may hold the body back until it sees `100 Continue`. After a final answer it
/// may send the body or leave it out, so the place of its next request is unknown.
fn awaits_continue(headers: &HeaderMap) -> bool {
    let expected = headers.get(header::EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
