//! The server's sockets: its own accept loops, deadlines, caps on connections, TLS, and a clean end.

mod addresses;
mod answer;
pub mod answer_memory;
pub mod client_address;
mod connection;
mod descriptors;
pub mod fixed_text;
mod framing;
#[cfg(test)]
mod fuzz;
mod gate;
pub mod holder;
pub(crate) mod inflate;
pub mod limits;
pub mod memory_budget;
pub mod outbound;
mod pool;
mod progress;
mod request_body;
pub mod request_facts;
pub mod tls;
mod watched;
pub mod work_pool;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use self::addresses::{Addresses, Place};
use self::connection::Door;
use self::limits::Limits;
use self::pool::{Pool, Seat};
use self::progress::Progress;
use self::tls::Certificates;
use self::watched::Abort;
use crate::http::request_facts::Listener;
use crate::jobs::background::{RESTART_AFTER, keep_running};

/// How long to wait after an accept that failed, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// What the system holds of answers that a client does not take. Without a bound it grows to
/// several megabytes for each connection.
const SEND_BUFFER: u32 = 256 * 1024;
/// Connections of the operator's listener, which the public one cannot use up.
const OPERATOR_CONNECTIONS_MAX: usize = 256;
/// Connections of the public listener beyond all others, for health and for the operator.
const RESERVE_MAX: usize = 64;
/// How often to look for room when no connection has left.
const ROOM_EVERY: Duration = Duration::from_millis(20);

/// One address that is listened on.
pub struct Entrance {
    /// Where connections come from.
    pub listener: TcpListener,
    /// What is served there.
    pub router: Router,
    /// Whom it is for.
    pub kind: Listener,
}

/// Listens on an address.
///
/// # Errors
/// When it is not an address of this machine, or taken.
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

/// Serves until `end`, then lets the requests that began come to their answers.
pub async fn serve(
    entrances: Vec<Entrance>,
    limits: Limits,
    certificates: Option<Arc<Certificates>>,
    end: impl Future<Output = ()>,
) {
    descriptors::provide(limits.connections_max);
    let limits = Arc::new(limits);
    let (asked, drain) = watch::channel(false);
    for Entrance { listener, router, kind } in entrances {
        let pool = match kind {
            Listener::Public => Pool::new(limits.connections_max, RESERVE_MAX),
            Listener::Operator => Pool::new(OPERATOR_CONNECTIONS_MAX, 0),
        };
        let door = Door {
            router,
            listener: kind,
            limits: Arc::clone(&limits),
            certificates: certificates.clone(),
            drain: drain.clone(),
        };
        let accepting = Arc::new(Accepting {
            listener,
            addresses: Arc::new(Addresses::new(limits.connections_per_address_max)),
            door: Arc::new(door),
            pool: Arc::new(pool),
        });
        let accepting = move || accept_all(Arc::clone(&accepting));
        tokio::spawn(keep_running("accept", RESTART_AFTER, accepting));
    }
    drop(drain);
    end.await;
    asked.send_replace(true);
    if tokio::time::timeout(limits.drain, asked.closed()).await.is_err() {
        tracing::warn!("connections were still busy at the end of the drain");
    }
}

/// What an accept loop works with, and finds again when it begins anew.
struct Accepting {
    listener: TcpListener,
    door: Arc<Door>,
    pool: Arc<Pool>,
    addresses: Arc<Addresses>,
}

/// Accepts connections until the server is asked to end.
async fn accept_all(accepting: Arc<Accepting>) {
    let Accepting { listener, door, pool, addresses } = &*accepting;
    let mut drain = door.drain.clone();
    loop {
        let accepted = tokio::select! {
            _ = drain.wait_for(|asked| *asked) => return,
            accepted = accept(listener, pool) => accepted,
        };
        let Some((stream, peer)) = accepted else { continue };
        let Some(place) = admit(door, addresses, peer) else {
            // Reset, so that the system keeps nothing of connections that were never served.
            stream.abort();
            continue;
        };
        let progress = Arc::new(Progress::new(door.limits.deadlines, Instant::now()));
        let seat = tokio::select! {
            _ = drain.wait_for(|asked| *asked) => return,
            seat = take_seat(pool, &progress) => seat,
        };
        let door = Arc::clone(door);
        // Held by the task, so that the end of the server waits for it.
        let held = drain.clone();
        tokio::spawn(async move {
            door.serve(stream, peer, &progress, &seat).await;
            drop((seat, place, held));
        });
    }
}

/// Waits for a connection.
async fn accept(listener: &TcpListener, pool: &Pool) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and awaited: they must not wait for more.
            let _ = stream.set_nodelay(true);
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection was not accepted");
            // Mostly for want of file descriptors, of which an idle connection has one.
            pool.give_back_one(Instant::now());
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Waits for a place for a connection, while the others wait in the system.
async fn take_seat(pool: &Arc<Pool>, progress: &Arc<Progress>) -> Seat {
    loop {
        if let Some(seat) = pool.enter(progress, Instant::now()) {
            return seat;
        }
        let _ = tokio::time::timeout(ROOM_EVERY, pool.left()).await;
    }
}

/// The place of a connection among those of its address. A proxy speaks for many clients.
fn admit(door: &Door, addresses: &Arc<Addresses>, peer: IpAddr) -> Option<Option<Place>> {
    if door.limits.trusted_proxies.contains(peer) {
        return Some(None);
    }
    addresses.take(peer).map(Some)
}

/// Resolves when the process is asked to end.
///
/// # Errors
/// When the system does not let signals be heard.
pub fn end_asked() -> std::io::Result<impl Future<Output = ()>> {
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

/// The address that a client on this machine can reach a listener under.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reachable
}
