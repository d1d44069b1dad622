//! The attacker's clients while they run.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::background::Background;
use crate::connection::Connection;
use crate::hostile::attack::{Client, Hold, Kind};

/// The server and the honest callers have priority on the machine.
const NICENESS: i32 = 10;
/// The pause of a client after its connection was refused or closed.
const PAUSE: Duration = Duration::from_millis(20);
/// The receive buffer of a client that does not read.
const READ_BUFFER: u32 = 16 * 1024;

/// Characters of a response that are kept as an example.
const SHOWN: usize = 300;

/// Counts of connections and responses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) cuts: u64,
    /// For each status the number of responses and the start of one.
    pub(crate) answers: BTreeMap<u16, (u64, String)>,
}

/// Running clients. Dropping this ends them.
pub(crate) struct RunningClients {
    tally: Arc<Mutex<Tally>>,
    background: Background,
}

impl RunningClients {
    pub(crate) fn start(clients: Vec<Client>, address: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let shared = Arc::clone(&tally);
        let background = Background::start(NICENESS, move || async move {
            let mut connections = JoinSet::new();
            for Client { from, kind } in clients {
                connections.spawn(attack(from, address, kind, Arc::clone(&shared)));
            }
            connections.join_all().await;
        });
        Self { tally, background }
    }

    /// Waits until the clients have no requests left, but not beyond the limit.
    pub(crate) fn finish(self, limit: Duration) -> Tally {
        let deadline = Instant::now() + limit;
        while !self.background.is_finished() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        self.end()
    }

    /// Ends the clients and returns their counts.
    pub(crate) fn end(mut self) -> Tally {
        self.background.end();
        self.tally.lock().clone()
    }
}

impl Kind {
    fn reads(&self) -> bool {
        match self {
            Self::Requests(_) => true,
            Self::Holds(hold) => hold.reads,
        }
    }
}

async fn attack(from: Ipv4Addr, address: SocketAddr, mut kind: Kind, tally: Arc<Mutex<Tally>>) {
    loop {
        if let Some(stream) = connect(from, address, kind.reads()).await {
            tally.lock().connections += 1;
            let has_more = match &mut kind {
                Kind::Requests(next) => send_requests(stream, next, &tally).await,
                Kind::Holds(hold) => {
                    hold_open(stream, hold).await;
                    true
                }
            };
            if !has_more {
                return;
            }
            tally.lock().cuts += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(from: Ipv4Addr, address: SocketAddr, reads: bool) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of this machine");
    if !reads {
        socket.set_recv_buffer_size(READ_BUFFER).expect("set");
    }
    let stream = socket.connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// Sends requests until the connection ends; returns whether there are more to send.
async fn send_requests(
    stream: TcpStream,
    next: &mut (dyn FnMut() -> Option<Vec<u8>> + Send),
    tally: &Mutex<Tally>,
) -> bool {
    let mut connection = Connection::new(stream);
    while let Some(request) = next() {
        // There may be a response even if the request was not read completely.
        let _ = connection.send(&request).await;
        let Ok(answer) = connection.response().await else { return true };
        let mut tally = tally.lock();
        let (count, _) = tally
            .answers
            .entry(answer.status)
            .or_insert_with(|| (0, answer.body().chars().take(SHOWN).collect()));
        *count += 1;
    }
    false
}

/// Keeps a connection open until the server closes it.
async fn hold_open(mut stream: TcpStream, hold: &Hold) {
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut part = [0; 16 * 1024];
        while hold.reads && reader.read(&mut part).await.is_ok_and(|read| read > 0) {}
        if !hold.reads {
            std::future::pending::<()>().await;
        }
    };
    let write = async {
        let mut sent = writer.write_all(&hold.first_bytes).await;
        while sent.is_ok() {
            tokio::time::sleep(hold.pause).await;
            sent = writer.write_all(&hold.next).await;
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
