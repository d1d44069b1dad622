//! The attacker's connections, all on one thread of a low priority.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::setpriority_process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::hostile::attack::{Client, Hold, Kind};
use crate::line::Line;

/// The attacker shares the machine with the server and the honest callers, which go first.
const NICENESS: i32 = 10;
/// How long a client waits after its connection was refused or cut.
const PAUSE: Duration = Duration::from_millis(20);
/// What a client that reads nothing lets the system take for it.
const READ_BUFFER: u32 = 16 * 1024;

/// Characters of an answer that are kept to be shown.
const SHOWN: usize = 300;

/// What came of the attacker's requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) cuts: u64,
    /// Answers by their status, and the beginning of one answer of each.
    pub(crate) answers: BTreeMap<u16, (u64, String)>,
}

/// Clients at work. Dropping it ends them.
pub(crate) struct Force {
    tally: Arc<Mutex<Tally>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Force {
    pub(crate) fn start(clients: Vec<Client>, address: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (end, ended) = oneshot::channel();
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            setpriority_process(None, NICENESS).expect("a lower priority");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut connections = JoinSet::new();
                for Client { from, kind } in clients {
                    connections.spawn(attack(from, address, kind, Arc::clone(&shared)));
                }
                tokio::select! {
                    _ = ended => {}
                    _ = connections.join_all() => {}
                }
            });
        });
        Self { tally, end: Some(end), thread: Some(thread) }
    }

    /// Waits until the clients have nothing left to ask, but not for ever.
    pub(crate) fn finish(mut self, limit: Duration) -> Tally {
        let deadline = Instant::now() + limit;
        let works = |thread: &JoinHandle<()>| !thread.is_finished() && Instant::now() < deadline;
        while self.thread.as_ref().is_some_and(works) {
            std::thread::sleep(PAUSE);
        }
        self.join();
        self.tally.lock().clone()
    }

    /// Ends all of them, and says what they were told.
    pub(crate) fn end(mut self) -> Tally {
        self.join();
        self.tally.lock().clone()
    }

    fn join(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.transpose().expect("no client of the attacker failed by itself");
        }
    }
}

impl Drop for Force {
    fn drop(&mut self) {
        self.join();
    }
}

impl Kind {
    fn reads(&self) -> bool {
        match self {
            Self::Asks(_) => true,
            Self::Holds(hold) => hold.reads,
        }
    }
}

async fn attack(from: Ipv4Addr, address: SocketAddr, mut kind: Kind, tally: Arc<Mutex<Tally>>) {
    loop {
        if let Some(stream) = connect(from, address, kind.reads()).await {
            tally.lock().connections += 1;
            let has_more = match &mut kind {
                Kind::Asks(next) => ask(stream, next, &tally).await,
                Kind::Holds(hold) => {
                    keep(stream, hold).await;
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

/// Asks until the connection ends, or until there is nothing left to ask: then it answers no.
async fn ask(
    stream: TcpStream,
    next: &mut (dyn FnMut() -> Option<Vec<u8>> + Send),
    tally: &Mutex<Tally>,
) -> bool {
    let mut line = Line::new(stream);
    while let Some(request) = next() {
        // An answer may be there even if the request was not taken whole.
        let _ = line.send(&request).await;
        let Ok(answer) = line.answer().await else { return true };
        let mut tally = tally.lock();
        let (count, _) = tally
            .answers
            .entry(answer.status)
            .or_insert_with(|| (0, answer.body().chars().take(SHOWN).collect()));
        *count += 1;
    }
    false
}

/// Keeps a connection until the server ends it.
async fn keep(mut stream: TcpStream, hold: &Hold) {
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut part = [0; 16 * 1024];
        while hold.reads && reader.read(&mut part).await.is_ok_and(|read| read > 0) {}
        if !hold.reads {
            std::future::pending::<()>().await;
        }
    };
    let write = async {
        let mut sent = writer.write_all(&hold.opening).await;
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
