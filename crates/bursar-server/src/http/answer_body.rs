//! The body of a response as a connection sends it.
//!
//! It is sent in parts, each after the client has taken the one before, and reports to the
//! connection's deadlines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::progress::Progress;

/// The largest part in bytes.
const PART_BYTES: usize = 64 * 1024;

/// A panic while a part of the response was produced.
#[derive(Debug, thiserror::Error)]
#[error("the response panicked")]
struct Panicked;

/// A request from its complete head to the last byte of its response.
#[derive(Debug)]
pub(crate) struct InFlight {
    progress: Arc<Progress>,
    answer: Option<u64>,
}

impl InFlight {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        progress.begin_request();
        Self { progress, answer: None }
    }

    /// Answers the request with this body.
    pub(crate) fn answer(mut self, body: Body) -> AnswerBody {
        self.answer = Some(self.progress.begin_answer(Instant::now()));
        AnswerBody { body, rest: Bytes::new(), in_flight: self }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        match self.answer {
            Some(answer) => self.progress.end_answer(answer, now),
            None => self.progress.cancel_request(),
        }
        self.progress.end_request(now);
    }
}

/// The body of a response that is being sent.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Body,
    /// The rest of a part that was too large.
    rest: Bytes,
    in_flight: InFlight,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(answer) = this.in_flight.answer {
            this.in_flight.progress.advance_answer(answer, Instant::now());
        }
        let mut part = if this.rest.is_empty() {
            // The panic is logged already. Without this it would end all requests on the
            // connection.
            let poll = AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx));
            let polled = catch_unwind(poll).unwrap_or_else(|_panic| {
                // The body must not be polled again.
                this.body = Body::empty();
                Poll::Ready(Some(Err(axum::Error::new(Panicked))))
            });
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end @ (Some(Err(_)) | None) => return Poll::Ready(end),
            }
        } else {
            std::mem::take(&mut this.rest)
        };
        if part.len() > PART_BYTES {
            this.rest = part.split_off(PART_BYTES);
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;
    use crate::http::limits::Deadlines;

    fn progress() -> Arc<Progress> {
        let long = Duration::from_secs(60);
        let deadlines = Deadlines { header: long, idle: long, write: long };
        Arc::new(Progress::new(deadlines, Instant::now()))
    }

    #[tokio::test]
    async fn a_large_answer_goes_out_in_parts_and_whole() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        let mut body = InFlight::new(progress()).answer(Body::from(bytes.clone()));
        let mut sent = Vec::new();
        while !body.is_end_stream() {
            let left = (bytes.len() - sent.len()) as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
            let part = body.frame().await.expect("a frame").expect("sound").into_data();
            let part = part.expect("data");
            assert!(part.len() <= PART_BYTES);
            sent.extend_from_slice(&part);
        }
        assert_eq!(sent, bytes);
    }

    #[tokio::test]
    async fn a_panic_ends_its_answer_as_an_error() {
        let mut asked = 0;
        let parts = futures_util::stream::poll_fn(move |_| {
            asked += 1;
            assert!(asked < 2, "a fault of the test");
            Poll::Ready(Some(Ok::<_, axum::Error>(Bytes::from("part"))))
        });
        let mut body = InFlight::new(progress()).answer(Body::from_stream(parts));
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        let end = body.frame().await.expect("no clean end").expect_err("a panic");
        assert_eq!(end.to_string(), "the response panicked");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_request_is_in_flight_until_its_answer_is_handed_over() {
        let progress = progress();
        let request = InFlight::new(Arc::clone(&progress));
        assert!(progress.due().is_none());
        let body = request.answer(Body::from("answer"));
        assert!(
            progress
                .due()
                .is_some_and(|(_, cut)| cut == crate::http::progress::CutReason::SlowReader)
        );
        drop(body);
        assert!(
            progress.due().is_some_and(|(_, cut)| cut == crate::http::progress::CutReason::Idle)
        );
    }
}
