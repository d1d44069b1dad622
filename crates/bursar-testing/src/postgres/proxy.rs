//! A proxy in front of PostgreSQL that can close connections, delay replies, and lose the reply to
//! a commit.
//!
//! It parses as much of the protocol as that takes: the ends of messages, which messages get a
//! reply, and whether a statement is `commit`. Deliberately absent: TLS and COPY FROM STDIN.

use std::io::{BufReader, BufWriter, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::url::Url;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// A proxy on its own port. Dropping it closes every connection.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// The state that all connections of a proxy share.
struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Whether replies are delayed.
    delays_replies: bool,
    /// Whether the next commit loses its reply.
    loses_next: bool,
    commits_lost: usize,
    /// The statements of clients, one entry per message.
    statements: Vec<String>,
    links: Vec<Weak<Link>>,
}

/// One client and its connection to the server.
struct Link {
    client: TcpStream,
    server: TcpStream,
    is_cut: AtomicBool,
    batches: Mutex<Batches>,
}

/// Requests that each end in one `ReadyForQuery`: a simple query, or everything up to a `Sync`.
#[derive(Default)]
struct Batches {
    /// Expected replies of one byte, to requests for encryption.
    encryption_replies: u32,
    sent: u64,
    answered: u64,
    /// The request whose reply is lost.
    lost: Option<u64>,
}

impl Proxy {
    /// Starts one in front of the server of a URL.
    pub fn start(url: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target: Url::parse(url).host(),
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let accepts = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &accepts));
        Self { address, shared, accepting: Some(accepting) }
    }

    /// The URL of the same database through this proxy.
    pub fn through(&self, url: &str) -> String {
        Url::parse(url).with_host(&self.address.to_string()).to_string()
    }

    /// Delays all replies, like a server that hangs. Requests still reach the server.
    pub fn delay_replies(&self) {
        self.shared.state().delays_replies = true;
    }

    /// Releases the delayed replies, and delays no further ones.
    pub fn release_replies(&self) {
        self.shared.state().delays_replies = false;
        self.shared.wake();
    }

    /// The statements since the last call, one entry per message that has any.
    pub fn take_statements(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().statements)
    }

    /// Closes all connections. New ones are accepted.
    pub fn cut(&self) {
        let links = std::mem::take(&mut self.shared.state().links);
        for link in links.iter().filter_map(Weak::upgrade) {
            link.cut();
        }
        self.shared.wake();
    }

    /// Loses the reply to the next commit, which reaches the server, and closes that connection.
    pub fn lose_next_commit(&self) {
        self.shared.state().loses_next = true;
    }

    /// The number of commits whose reply was lost.
    pub fn commits_lost(&self) -> usize {
        self.shared.state().commits_lost
    }

    /// Waits until so many commits have lost their reply. Returns how many have at the end.
    pub fn wait_for_lost(&self, commits: usize, limit: Duration) -> usize {
        let waiting = |state: &mut State| state.commits_lost < commits;
        let waited = self.shared.changed.wait_timeout_while(self.shared.state(), limit, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.commits_lost
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // This connection wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the waiting threads. The lock prevents a wake-up between a check and its wait.
    fn wake(&self) {
        let _state = self.state();
        self.changed.notify_all();
    }

    /// Waits while replies are delayed, unless the connection is closed meanwhile.
    fn wait_while_delayed(&self, link: &Link) {
        let waiting =
            |state: &mut State| state.delays_replies && !link.is_cut.load(Ordering::SeqCst);
        drop(self.changed.wait_while(self.state(), waiting));
    }
}

impl Link {
    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in [&self.client, &self.server] {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        // Without a server the client is disconnected, as if the server were down.
        let Ok(link) = client.and_then(|client| connect(client, shared)) else { continue };
        {
            let mut state = shared.state();
            state.links.retain(|link| link.strong_count() > 0);
            state.links.push(Arc::downgrade(&link));
        }
        let (request_link, request_shared) = (Arc::clone(&link), Arc::clone(shared));
        std::thread::spawn(move || {
            // An error on either side closes both.
            let _ = pump_requests(&request_link, &request_shared);
            request_link.cut();
            request_shared.wake();
        });
        let (answers, answered) = (link, Arc::clone(shared));
        std::thread::spawn(move || {
            let _ = pump_replies(&answers, &answered);
            answers.cut();
        });
    }
}

fn connect(client: TcpStream, shared: &Shared) -> Result<Arc<Link>> {
    let server = TcpStream::connect(&shared.target)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (is_cut, batches) = (AtomicBool::new(false), Mutex::default());
    Ok(Arc::new(Link { client, server, is_cut, batches }))
}

/// A message: its type, which the first messages of a connection lack, and the bytes after the
/// length.
struct Message {
    kind: Option<u8>,
    body: Vec<u8>,
}

impl Message {
    /// Reads a message whose type has been read.
    fn read(kind: Option<u8>, from: &mut impl Read) -> Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u64::from(u32::from_be_bytes(length)).saturating_sub(4);
        let mut body = Vec::new();
        if from.take(length).read_to_end(&mut body)? as u64 != length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { kind, body })
    }

    fn write(&self, to: &mut impl Write) -> Result<()> {
        if let Some(kind) = self.kind {
            to.write_all(&[kind])?;
        }
        let length = u32::try_from(self.body.len() + 4).expect("a length that was read");
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&self.body)
    }

    /// The statements of a `Query` or `Parse` message.
    fn statement(&self) -> Option<&[u8]> {
        let mut texts = self.body.split(|byte| *byte == 0);
        match self.kind {
            Some(b'Q') => texts.next(),
            // After the name of the prepared statement.
            Some(b'P') => texts.nth(1),
            Some(_) | None => None,
        }
    }

    /// Whether its statement is `commit`.
    fn commits(&self) -> bool {
        let Some(statement) = self.statement() else { return false };
        let word: Vec<u8> = statement
            .trim_ascii_start()
            .iter()
            .take_while(|byte| byte.is_ascii_alphabetic())
            .map(u8::to_ascii_lowercase)
            .collect();
        word == b"commit"
    }
}

fn pump_requests(link: &Link, shared: &Shared) -> Result<()> {
    let mut from = BufReader::new(&link.client);
    let mut to = BufWriter::new(&link.server);
    loop {
        let message = Message::read(None, &mut from)?;
        let code = message.body.first_chunk().map(|code| u32::from_be_bytes(*code));
        let is_encryption_request = matches!(code, Some(SSL_REQUEST | GSS_REQUEST));
        {
            let mut batches = link.batches();
            if is_encryption_request {
                batches.encryption_replies += 1;
            } else {
                // A startup message, or a cancel request, which gets no reply.
                batches.sent += 1;
            }
        }
        message.write(&mut to)?;
        to.flush()?;
        if !is_encryption_request {
            break;
        }
    }
    let mut kind = [0];
    loop {
        from.read_exact(&mut kind)?;
        let message = Message::read(kind.first().copied(), &mut from)?;
        note_request(&message, link, shared);
        message.write(&mut to)?;
        if from.buffer().is_empty() {
            to.flush()?;
        }
    }
}

/// Counts a request before it is forwarded, so that its reply cannot arrive first.
fn note_request(message: &Message, link: &Link, shared: &Shared) {
    let loses = {
        let mut state = shared.state();
        let statement = message.statement().map(|text| String::from_utf8_lossy(text).into_owned());
        state.statements.extend(statement);
        message.commits() && std::mem::take(&mut state.loses_next)
    };
    let mut batches = link.batches();
    if loses {
        batches.lost = Some(batches.sent + 1);
    }
    if matches!(message.kind, Some(b'Q' | b'S')) {
        batches.sent += 1;
    }
}

fn pump_replies(link: &Link, shared: &Shared) -> Result<()> {
    let mut from = BufReader::new(&link.server);
    let mut to = BufWriter::new(&link.client);
    let mut kind = [0];
    loop {
        from.read_exact(&mut kind)?;
        if link.batches().encryption_replies > 0 {
            link.batches().encryption_replies -= 1;
            shared.wait_while_delayed(link);
            to.write_all(&kind)?;
            to.flush()?;
            continue;
        }
        let message = Message::read(kind.first().copied(), &mut from)?;
        let is_last = message.kind == Some(b'Z');
        let is_lost = {
            let mut batches = link.batches();
            let is_lost = batches.lost == Some(batches.answered + 1);
            batches.answered += u64::from(is_last);
            is_lost
        };
        match (is_lost, is_last) {
            (true, false) => continue,
            (true, true) => {
                to.flush()?;
                link.cut();
                shared.state().commits_lost += 1;
                shared.wake();
                return Ok(());
            }
            (false, _) => {}
        }
        shared.wait_while_delayed(link);
        message.write(&mut to)?;
        if from.buffer().is_empty() {
            to.flush()?;
        }
    }
}
