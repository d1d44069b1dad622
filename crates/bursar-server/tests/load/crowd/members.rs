//! Hostile connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bursar_testing::waiting::within;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::background::Background;
use crate::crowd::attack::Attack;

/// The timeout of opening all connections, and of their closing.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Source addresses, so that the limit for one address does not apply.
const ADDRESSES: usize = 8;
/// The receive buffer of a client that does not read.
const READ_BUFFER: u32 = 16 * 1024;

/// Hostile connections. Dropping them closes them.
pub(crate) struct Crowd {
    attack: Attack,
    seen: Arc<Seen>,
    _background: Background,
}

/// Counts of the connections.
#[derive(Default)]
struct Seen {
    opened: AtomicUsize,
    cuts: AtomicUsize,
    slowest: Mutex<Duration>,
}

/// How the server ended hostile connections.
pub(crate) struct Cuts {
    pub(crate) cuts: usize,
    /// The longest time from opening a connection to its closing by the server.
    pub(crate) slowest: Duration,
}

impl Crowd {
    /// Opens the connections and waits until all are open.
    #[track_caller]
    pub(crate) fn open(attack: Attack, address: &str, bearer: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let address: SocketAddr = address.parse().expect("an address");
        let (shared, first_bytes) = (Arc::clone(&seen), attack.first_bytes(bearer));
        let background = Background::start(0, move || async move {
            let mut connections = JoinSet::new();
            for at in 0..attack.connections() {
                let from = Ipv4Addr::new(127, 0, 0, 2 + (at % ADDRESSES) as u8);
                let (shared, first_bytes) = (Arc::clone(&shared), first_bytes.clone());
                connections.spawn(async move {
                    loop {
                        run_connection(attack, from, address, &first_bytes, &shared).await;
                    }
                });
            }
            connections.join_all().await;
        });
        let crowd = Self { attack, seen, _background: background };
        let are_open = || {
            let opened = crowd.seen.opened.load(Ordering::Relaxed);
            (opened >= crowd.attack.connections()).then_some(())
        };
        within(TIMEOUT, are_open).expect("the connections are opened");
        crowd
    }

    /// Waits until the server has closed as many connections as there are, then closes all.
    pub(crate) fn wait_for_cuts(self) -> Cuts {
        let all = self.attack.connections();
        let cuts = || self.seen.cuts.load(Ordering::Relaxed);
        within(TIMEOUT, || (cuts() >= all).then_some(()));
        Cuts { cuts: cuts(), slowest: *self.seen.slowest.lock() }
    }
}

/// Runs one hostile connection until the server closes it.
async fn run_connection(
    attack: Attack,
    from: Ipv4Addr,
    address: SocketAddr,
    first_bytes: &[u8],
    seen: &Seen,
) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of this machine");
    if !attack.reads() {
        socket.set_recv_buffer_size(READ_BUFFER).expect("set");
    }
    let Ok(mut stream) = socket.connect(address).await else {
        tokio::time::sleep(attack.pause()).await;
        return;
    };
    seen.opened.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let _ = stream.write_all(first_bytes).await;
    until_cut(attack, &mut stream).await;
    seen.cuts.fetch_add(1, Ordering::Relaxed);
    let mut slowest = seen.slowest.lock();
    *slowest = slowest.max(began.elapsed());
}

async fn until_cut(attack: Attack, stream: &mut TcpStream) {
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut part = [0; 4096];
        while attack.reads() && reader.read(&mut part).await.is_ok_and(|read| read > 0) {}
        if !attack.reads() {
            std::future::pending::<()>().await;
        }
    };
    let write = async {
        let mut step = 0;
        loop {
            tokio::time::sleep(attack.pause()).await;
            if writer.write_all(&attack.next(step)).await.is_err() {
                break;
            }
            step += 1;
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
