//! Hostile connections, all on one thread of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bursar_testing::waiting::within;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::crowd::attack::Attack;

/// How long a crowd may take to gather, and to be cut.
const PATIENCE: Duration = Duration::from_secs(20);
/// Addresses that the hostile connections come from, so that no cap for one address helps.
const ADDRESSES: usize = 8;
/// What a reader that reads nothing lets the system take for it.
const READ_BUFFER: u32 = 16 * 1024;

/// Hostile connections; dropping them ends them.
pub(crate) struct Crowd {
    attack: Attack,
    seen: Arc<Seen>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections saw.
#[derive(Default)]
struct Seen {
    opened: AtomicUsize,
    cuts: AtomicUsize,
    slowest: Mutex<Duration>,
}

/// How the server ended hostile connections.
pub(crate) struct Cuts {
    pub(crate) cuts: usize,
    /// From the first byte of a connection to its cut.
    pub(crate) slowest: Duration,
}

impl Crowd {
    /// Opens the connections, and comes back when they are there.
    #[track_caller]
    pub(crate) fn gather(attack: Attack, address: &str, bearer: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let address: SocketAddr = address.parse().expect("an address");
        let (end, ended) = oneshot::channel();
        let (shared, opening) = (Arc::clone(&seen), attack.opening(bearer));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut connections = JoinSet::new();
                for at in 0..attack.connections() {
                    let from = Ipv4Addr::new(127, 0, 0, 2 + (at % ADDRESSES) as u8);
                    let (shared, opening) = (Arc::clone(&shared), opening.clone());
                    connections.spawn(async move {
                        loop {
                            harass(attack, from, address, &opening, &shared).await;
                        }
                    });
                }
                let _ = ended.await;
            });
        });
        let crowd = Self { attack, seen, end: Some(end), thread: Some(thread) };
        let are_there = || {
            let opened = crowd.seen.opened.load(Ordering::Relaxed);
            (opened >= crowd.attack.connections()).then_some(())
        };
        within(PATIENCE, are_there).expect("the connections are opened");
        crowd
    }

    /// Waits until as many were cut as there are, ends them all, and says what they saw.
    pub(crate) fn see_cut(self) -> Cuts {
        let all = self.attack.connections();
        let cuts = || self.seen.cuts.load(Ordering::Relaxed);
        within(PATIENCE, || (cuts() >= all).then_some(()));
        Cuts { cuts: cuts(), slowest: *self.seen.slowest.lock() }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no hostile connection failed for itself");
        }
    }
}

/// One hostile connection, until the server ends it.
async fn harass(attack: Attack, from: Ipv4Addr, address: SocketAddr, opening: &[u8], seen: &Seen) {
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
    let _ = stream.write_all(opening).await;
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
