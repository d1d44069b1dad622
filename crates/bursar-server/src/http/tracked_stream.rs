//! A stream that reports its reads and writes to the connection's deadlines.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::limits::BODY_BYTES_MAX;
use super::progress::Progress;

/// The most bytes of one read.
///
/// hyper's buffer has 8 KiB until a read fills it and then grows up to four times as large. Smaller
/// reads keep it small, which saves most of the server's memory when many clients send large
/// bodies.
const READ_MAX: usize = 8 * 1024 - 1;

/// The bytes that hyper reads instead of a line that ends with LF alone and of everything after it.
///
/// They are a complete head, so that hyper parses it, and an invalid one, so that hyper responds
/// with 400 and closes.
const NO_HEAD: &[u8] = b"\0\r\n\r\n";

/// The most bytes that a connection reads and discards after its last response.
///
/// Even a client whose body is refused for its size can read the response, unless the body is far
/// too large.
const LINGERING_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// A stream that can discard its unsent data.
pub(crate) trait Abort {
    /// Closes the stream with a reset, so that the system discards its unsent data.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // The connection may have ended already.
        let _ = self.set_zero_linger();
    }
}

impl Abort for TlsStream<TcpStream> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

/// A stream and the progress of its connection.
#[derive(Debug)]
pub(crate) struct TrackedStream<S: Abort> {
    stream: S,
    progress: Arc<Progress>,
    /// The rest of [`NO_HEAD`] to read, after a line ended with LF alone.
    refused: Option<&'static [u8]>,
    /// The bytes that may still be discarded, after the last byte was sent.
    lingering: Option<usize>,
}

impl<S: Abort> TrackedStream<S> {
    pub(crate) fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, progress, refused: None, lingering: None }
    }

    fn read_refused(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = self.refused.unwrap_or_default();
        let (given, left) = left.split_at(left.len().min(buffer.remaining()));
        buffer.put_slice(given);
        self.refused = Some(left);
    }

    fn report<T>(&self, polled: &Poll<io::Result<T>>) {
        match polled {
            Poll::Ready(_) => self.progress.wrote(),
            Poll::Pending => self.progress.blocked(Instant::now()),
        }
    }
}

impl<S: Abort> Drop for TrackedStream<S> {
    fn drop(&mut self) {
        if self.progress.is_cut() {
            self.stream.abort();
        }
    }
}

impl<S: Abort + AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = buffer.remaining().min(READ_MAX);
        if this.refused.is_some() {
            this.read_refused(buffer);
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let polled = Pin::new(&mut this.stream).poll_read(cx, &mut part);
        let mut read = part.filled().len();
        if polled.is_ready()
            && let Some(bad_line_end) = this.progress.read(part.filled(), Instant::now())
        {
            read = bad_line_end;
            this.refused = Some(NO_HEAD);
        }
        buffer.advance(read);
        if this.refused.is_some() {
            this.read_refused(buffer);
        }
        polled
    }
}

impl<S: Abort + AsyncRead + AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.report(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.report(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        // Under TLS a write can succeed into a buffer; only the flush reaches the socket. A flush
        // comes after all writes.
        this.report(&polled);
        polled
    }

    /// Closes the sending side, and waits for the client to close if it may still be sending.
    ///
    /// A socket that is closed with unread bytes is reset, and the client can lose the response.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut left = match this.lingering {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if this.refused.is_some() {
                    this.progress.leave_unread();
                }
                if !this.progress.begin_lingering(Instant::now()) {
                    return Poll::Ready(Ok(()));
                }
                LINGERING_BYTES_MAX
            }
        };
        let mut part = [0; READ_MAX];
        loop {
            this.lingering = Some(left);
            let mut part = ReadBuf::new(&mut part);
            let polled = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part));
            let read = part.filled().len();
            left = left.saturating_sub(read);
            if polled.is_err() || read == 0 || left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::limits::Deadlines;
    use crate::http::progress::{CutReason, Idleness};

    /// A stream that accepts everything and sends it when allowed.
    struct Buffered {
        may_send: bool,
    }

    impl Abort for Buffered {
        fn abort(&self) {}
    }

    impl AsyncRead for Buffered {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Buffered {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.may_send { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_was_flushed_late_is_on_its_way_no_more() {
        let long = Duration::from_secs(60);
        let deadlines = Deadlines { header: long, idle: long, write: long };
        let progress = Arc::new(Progress::new(deadlines, Instant::now()));
        let stream = Buffered { may_send: false };
        let mut tracked = TrackedStream::new(stream, Arc::clone(&progress));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut tracked).poll_write(&mut cx, b"answer").is_ready());
        assert!(Pin::new(&mut tracked).poll_flush(&mut cx).is_pending());
        assert!(progress.due().is_some_and(|(_, cut)| cut == CutReason::SlowReader));
        assert!(progress.idleness(Instant::now()).is_none());
        tracked.stream.may_send = true;
        assert!(Pin::new(&mut tracked).poll_flush(&mut cx).is_ready());
        assert!(progress.due().is_some_and(|(_, cut)| cut == CutReason::Idle));
        let idleness = progress.idleness(Instant::now()).map(|(idleness, _)| idleness);
        assert_eq!(idleness, Some(Idleness::Idle));
    }
}
