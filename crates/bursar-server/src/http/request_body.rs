//! The body of a request as a route reads it, and what happens to the part that no route reads.
//!
//! Most refusals come before the body is read: no credential, too many requests, an unknown route.
//! Over HTTP/1.1 the next request starts where that body ends (RFC 9112, 9.3). The server therefore
//! reads and discards the rest before it responds, if the rest is small and arrives soon. Otherwise
//! the response has `Connection: close`. This file decides that for every response, so a refused
//! client can send its next request on the same connection.
//!
//! Over HTTP/2 the body concerns only its stream. The response is sent at once, and the rest is
//! discarded meanwhile. A stream that the client does not end in time is reset with `NO_ERROR`.
//! Rejected: resetting every such stream at once. h2 forgets streams after a reset, counts what
//! still arrives on them as errors, and ends the connection after a few dozen.

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
/// How long it discards such a body, or one whose response is already sent.
const SHORT_TIME_MAX: Duration = Duration::from_secs(2);
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The body of a request as a route reads it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` only during the drop.
    unread: Option<Unread>,
    /// Receives the unread part when the route drops the body.
    returned: Option<oneshot::Sender<Unread>>,
}

/// The part of a body that no route read.
#[derive(Debug)]
struct Unread {
    incoming: Incoming,
    /// The bytes that a route read.
    read_bytes: u64,
    /// When a route started to read. hyper sends `100 Continue` only then.
    begun_at: Option<Instant>,
    /// How long the route read.
    read_for: Duration,
    /// Whether reading failed.
    is_broken: bool,
}

/// How much of a body may be discarded.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes_max: u64,
    /// Includes the time that a route spent reading.
    time_max: Duration,
    /// Whether the caller has a valid credential.
    is_proved: bool,
}

/// Decides whether the connection persists after the response to a request.
#[derive(Debug)]
pub(crate) struct Persistence {
    /// `None` for a request without a body.
    returned: Option<oneshot::Receiver<Unread>>,
    caller: RequestTenant,
    limits: Arc<Limits>,
    progress: Arc<Progress>,
    /// Whether the connection serves only this request.
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
            // The receiver was dropped if the connection has ended.
            let _ = returned.send(unread);
        }
    }
}

impl Unread {
    /// Reads and discards the rest until the connection is asked to close. Returns whether the
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
    /// Wraps the body of a request, so that its unread part is returned here.
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

    /// Discards the unread part, so that the next request can follow, or announces the close.
    pub(crate) async fn decide<B>(self, response: &mut Response<B>) {
        let bounds = self.discard_bounds();
        let unread = self.returned.map(|mut returned| returned.try_recv());
        let is_ending = self.is_last || self.progress.is_closing();
        if !self.is_http1 {
            if let Some(Ok(unread)) = unread
                && !is_ending
            {
                // It counts as a request meanwhile, so that its bytes are not a flood.
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
            // A task outlives its response and still reads. hyper does not wait for it.
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

    /// How many bytes may be discarded, and for how long. A caller with a valid credential gets the
    /// bounds of a body that is read, because it could send such a body anyway.
    fn discard_bounds(&self) -> Bounds {
        let is_proved = self.caller.is_proved();
        let (bytes_max, time_max) = match is_proved {
            true => (BODY_BYTES_MAX as u64, self.limits.body),
            false => (ANONYMOUS_BYTES_MAX, SHORT_TIME_MAX),
        };
        Bounds { bytes_max, time_max, is_proved }
    }
}

/// Whether the client may hold the body back until it receives `100 Continue`. After a final
/// response it may send the body or omit it, so the start of its next request is unknown.
fn awaits_continue(headers: &HeaderMap) -> bool {
    let expected = headers.get(header::EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
