//! Drives one connection from its first byte to its end.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection_pool::ConnectionSlot;
use super::connection_service::ConnectionService;
use super::limits::{HEAD_BYTES_MAX, Limits};
use super::progress::{CutReason, Idleness, Progress};
use super::tls::Certificates;
use super::tracked_stream::{Abort, TrackedStream};
use crate::http::request_extensions::{ListenerKind, OverTls, OverflowConnection};

/// The interval of HTTP/2 pings.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long an HTTP/2 peer may take to answer a ping.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// The HTTP/2 receive windows in bytes, of one request and of all requests of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The bytes buffered for one slow HTTP/2 stream.
const SEND_BUFFER: usize = 128 * 1024;
/// The most reset streams that wait to be handled.
const RESETS_MAX: usize = 32;
/// The alarm when no deadline is due.
const FAR: Duration = Duration::from_secs(3_600);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The response to a client that speaks plain HTTP on a TLS port.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 29\r\nConnection: close\r\n\r\nThis port is for HTTPS only.\r\n";

/// The shared state of all connections of a listener.
pub(crate) struct ConnectionHandler {
    pub(crate) router: Router,
    pub(crate) listener: ListenerKind,
    pub(crate) limits: Arc<Limits>,
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) drain: watch::Receiver<bool>,
}

impl ConnectionHandler {
    /// Serves a connection until it ends.
    pub(crate) async fn serve(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        progress: &Arc<Progress>,
        slot: &ConnectionSlot,
    ) {
        let Some(certificates) = &self.certificates else {
            return self.drive(stream, peer, None, progress, slot).await;
        };
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
                progress.leave_unread();
                let mut stream = TrackedStream::new(stream, Arc::clone(progress));
                stream.write_all(NOT_TLS).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
            certificates.acceptor().accept(stream).await.map(Some)
        };
        let mut drain = self.drain.clone();
        let shaken = tokio::select! {
            shaken = timeout(self.limits.deadlines.header, handshake) => shaken,
            _ = drain.wait_for(|asked| *asked) => return,
            () = slot.evicted() => return,
        };
        match shaken {
            Ok(Ok(Some(stream))) => {
                self.drive(stream, peer, Some(OverTls), progress, slot).await;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    async fn drive<S>(
        &self,
        stream: S,
        peer: IpAddr,
        over_tls: Option<OverTls>,
        progress: &Arc<Progress>,
        slot: &ConnectionSlot,
    ) where
        S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = ConnectionService {
            routes: TowerToHyperService::new(self.router.clone()),
            progress: Arc::clone(progress),
            limits: Arc::clone(&self.limits),
            peer,
            listener: self.listener,
            over_tls,
            overflow: slot.is_overflow().then_some(OverflowConnection),
        };
        let io = TokioIo::new(TrackedStream::new(stream, Arc::clone(progress)));
        let protocols = protocols(&self.limits);
        let connection = pin!(protocols.serve_connection(io, service));
        if let Some(cut) = until_end(connection, progress, slot, self.drain.clone()).await {
            tracing::debug!(?cut, %peer, "a connection was cut");
        }
    }
}

fn protocols(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `progress` has deadlines that distinguish a slow head from an idle connection.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

type Connection<'a, S> =
    auto::Connection<'a, TokioIo<TrackedStream<S>>, ConnectionService, TokioExecutor>;

/// Drives a connection to its end. Returns the reason if the server cut it.
async fn until_end<S>(
    mut connection: std::pin::Pin<&mut Connection<'_, S>>,
    progress: &Progress,
    slot: &ConnectionSlot,
    mut drain: watch::Receiver<bool>,
) -> Option<CutReason>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut asked = pin!(async move {
        // An error means that the server was dropped, which ends the connection as well.
        let _ = drain.wait_for(|asked| *asked).await;
        drain
    });
    let mut eviction = pin!(slot.evicted());
    let mut evicted = false;
    // Held until the connection ends, so that shutdown waits for it.
    let mut held = None;
    let mut closing = false;
    let mut alarm = pin!(sleep_until(Instant::now() + FAR));
    poll_fn(|cx| {
        if held.is_none()
            && let Poll::Ready(drain) = asked.as_mut().poll(cx)
        {
            held = Some(drain);
            ask_to_end(connection.as_mut(), progress, &mut closing);
        }
        if !evicted && eviction.as_mut().poll(cx).is_ready() {
            evicted = true;
            ask_to_end(connection.as_mut(), progress, &mut closing);
        }
        loop {
            // An error of the connection concerns the client only.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            // The client was told, if it still reads. A request that arrived meanwhile is answered.
            if evicted && let Some((idleness, _)) = progress.idleness(Instant::now()) {
                if idleness == Idleness::Stalled {
                    progress.cut();
                }
                return Poll::Ready(Some(CutReason::Evicted));
            }
            // An overflow connection serves one request only.
            if !closing && slot.is_overflow() && progress.had_request() {
                ask_to_end(connection.as_mut(), progress, &mut closing);
                continue;
            }
            let due = progress.due();
            let at = due.map_or_else(|| Instant::now() + FAR, |(at, _)| at);
            // Later deadlines are checked when the alarm rings, so that a busy connection does not
            // reset it at every request.
            if at < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match due {
                Some((at, cut)) if at <= Instant::now() => {
                    if cut != CutReason::Idle || closing {
                        progress.cut();
                        return Poll::Ready(Some(cut));
                    }
                    // An idle client is told. If it is just sending a request, that is answered.
                    ask_to_end(connection.as_mut(), progress, &mut closing);
                }
                Some(_) | None => {}
            }
        }
    })
    .await
}

/// Asks a connection to end after its current responses.
fn ask_to_end<S>(
    connection: std::pin::Pin<&mut Connection<'_, S>>,
    progress: &Progress,
    closing: &mut bool,
) where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    *closing = true;
    progress.close(Instant::now());
    connection.graceful_shutdown();
}
