//! The server's sockets: accept loops, deadlines, connection limits, TLS and shutdown.
//!
//! Also the client for outbound requests, memory budgets and worker pools. Deliberately absent:
//! routes.

mod address_limiter;
mod answer_body;
pub(crate) mod answer_memory;
pub mod client_address;
mod connection;
mod connection_pool;
mod connection_service;
mod descriptors;
pub(crate) mod export;
pub(crate) mod fixed_text;
mod framing;
#[cfg(test)]
mod fuzz;
pub mod holder;
pub(crate) mod inflate;
pub(crate) mod limits;
pub(crate) mod memory_budget;
pub mod outbound;
mod progress;
mod request_body;
pub mod request_extensions;
mod retry;
pub mod tls;
mod tracked_stream;
pub mod work_pool;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use self::address_limiter::{AddressLimiter, AddressSlot};
use self::connection::ConnectionHandler;
use self::connection_pool::{ConnectionPool, ConnectionSlot};
use self::limits::Limits;
use self::progress::Progress;
use self::tls::Certificates;
use self::tracked_stream::Abort;
use crate::http::request_extensions::ListenerKind;
use crate::jobs::background::{RESTART_AFTER, keep_running};

/// The pause after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the system queues until they are accepted.
const BACKLOG: u32 = 1024;
/// The system's send buffer.
///
/// Without a limit, a client that does not read makes it grow to several megabytes.
const SEND_BUFFER: u32 = 256 * 1024;
/// Connections of the operator's listener, which has a pool of its own.
const OPERATOR_CONNECTIONS_MAX: usize = 256;
/// Overflow connections of the public listener, for health checks and the operator.
const OVERFLOW_MAX: usize = 64;
/// How often to look for an idle connection while the pool is full.
const SLOT_RETRY_EVERY: Duration = Duration::from_millis(20);

/// A listening socket and what it serves.
pub struct Listener {
    pub socket: TcpListener,
    /// The routes served there.
    pub router: Router,
    pub kind: ListenerKind,
}

/// Listens on an address.
///
/// # Errors
/// If the address does not belong to this machine or is in use.
pub async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut refused = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(address).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `end` resolves, then waits for the requests in flight.
pub async fn serve(
    listeners: Vec<Listener>,
    limits: Limits,
    certificates: Option<Arc<Certificates>>,
    end: impl Future<Output = ()>,
) {
    descriptors::provide(limits.connections_max);
    let limits = Arc::new(limits);
    let (asked, drain) = watch::channel(false);
    for Listener { socket, router, kind } in listeners {
        let pool = match kind {
            ListenerKind::Public => ConnectionPool::new(limits.connections_max, OVERFLOW_MAX),
            ListenerKind::Operator => ConnectionPool::new(OPERATOR_CONNECTIONS_MAX, 0),
        };
        let handler = ConnectionHandler {
            router,
            listener: kind,
            limits: Arc::clone(&limits),
            certificates: certificates.clone(),
            drain: drain.clone(),
        };
        let accept_loop = Arc::new(AcceptLoop {
            socket,
            address_limiter: Arc::new(AddressLimiter::new(limits.connections_per_address_max)),
            handler: Arc::new(handler),
            pool: Arc::new(pool),
        });
        let accept_loop = move || accept_all(Arc::clone(&accept_loop));
        tokio::spawn(keep_running("accept", RESTART_AFTER, accept_loop));
    }
    drop(drain);
    end.await;
    asked.send_replace(true);
    if tokio::time::timeout(limits.drain, asked.closed()).await.is_err() {
        tracing::warn!(
            "requests were still open when server.drain_seconds had passed; their connections were \
             closed"
        );
    }
}

/// The state of an accept loop, which survives a restart of the loop after a panic.
struct AcceptLoop {
    socket: TcpListener,
    handler: Arc<ConnectionHandler>,
    pool: Arc<ConnectionPool>,
    address_limiter: Arc<AddressLimiter>,
}

/// Accepts connections until shutdown.
async fn accept_all(accept_loop: Arc<AcceptLoop>) {
    let AcceptLoop { socket, handler, pool, address_limiter } = &*accept_loop;
    let mut drain = handler.drain.clone();
    loop {
        let accepted = tokio::select! {
            _ = drain.wait_for(|asked| *asked) => return,
            accepted = accept(socket, pool) => accepted,
        };
        let Some((stream, peer)) = accepted else { continue };
        let Some(address_slot) = take_address_slot(handler, address_limiter, peer) else {
            // Reset it, so that the system keeps no state for a connection that is not served.
            stream.abort();
            continue;
        };
        let progress = Arc::new(Progress::new(handler.limits.deadlines, Instant::now()));
        let slot = tokio::select! {
            _ = drain.wait_for(|asked| *asked) => return,
            slot = wait_for_slot(pool, &progress) => slot,
        };
        let handler = Arc::clone(handler);
        // Held by the task, so that shutdown waits for it.
        let held = drain.clone();
        tokio::spawn(async move {
            handler.serve(stream, peer, &progress, &slot).await;
            drop((slot, address_slot, held));
        });
    }
}

/// Waits for a connection.
async fn accept(socket: &TcpListener, pool: &ConnectionPool) -> Option<(TcpStream, IpAddr)> {
    match socket.accept().await {
        Ok((stream, peer)) => {
            // Responses are small: send them without delay.
            let _ = stream.set_nodelay(true);
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // The usual cause is a lack of file descriptors. An idle connection can give one back.
            pool.evict_idle(Instant::now());
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Waits for a slot in the pool. Meanwhile new connections queue in the system.
async fn wait_for_slot(pool: &Arc<ConnectionPool>, progress: &Arc<Progress>) -> ConnectionSlot {
    loop {
        if let Some(slot) = pool.take_slot(progress, Instant::now()) {
            return slot;
        }
        let _ = tokio::time::timeout(SLOT_RETRY_EVERY, pool.slot_freed()).await;
    }
}

/// Takes the slot of a connection among those of its address. Trusted proxies need none.
fn take_address_slot(
    handler: &ConnectionHandler,
    address_limiter: &Arc<AddressLimiter>,
    peer: IpAddr,
) -> Option<Option<AddressSlot>> {
    if handler.limits.trusted_proxies.contains(peer) {
        return Some(None);
    }
    address_limiter.take(peer).map(Some)
}

/// Resolves when the process receives SIGTERM or SIGINT.
///
/// # Errors
/// If the system refuses signal handlers.
pub fn shutdown_requested() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The address at which a client on this machine reaches a listener.
pub(crate) fn connectable_address(address: SocketAddr) -> SocketAddr {
    let mut connectable_address = address;
    if address.ip().is_unspecified() {
        connectable_address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    connectable_address
}
