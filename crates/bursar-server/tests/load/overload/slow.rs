//! Slow clients: half of them send a body that never ends, half ask for much and take nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bursar_testing::process::tenant::Tenant;
use rustix::process::setpriority_process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::overload::loud::NICENESS;

/// What one of them announces, and sends bit by bit.
const BODY: usize = 8 * 1024 * 1024;
const PART: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(100);
/// Answers that one of them asks for at once.
const ANSWERS: usize = 8;
const READ_BUFFER: u32 = 16 * 1024;
/// An address of their own.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Slow clients; dropping them ends them.
pub(crate) struct Slow {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Slow {
    /// So many of them, all of one tenant.
    pub(crate) fn gather(tenant: &Tenant, address: SocketAddr, count: usize) -> Self {
        let (end, ended) = oneshot::channel();
        let bearer: Arc<str> = tenant.bearer.clone().into();
        let thread = std::thread::spawn(move || {
            setpriority_process(None, NICENESS).expect("a lower priority");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut clients = JoinSet::new();
                for number in 0..count {
                    let bearer = Arc::clone(&bearer);
                    clients.spawn(async move {
                        loop {
                            dawdle(number, address, &bearer).await;
                            tokio::time::sleep(PAUSE).await;
                        }
                    });
                }
                let _ = ended.await;
            });
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no slow client failed for itself");
        }
    }
}

/// One connection, until the server ends it.
async fn dawdle(number: usize, address: SocketAddr, bearer: &str) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((FROM, 0).into()).expect("an address of this machine");
    socket.set_recv_buffer_size(READ_BUFFER).expect("set");
    let Ok(mut stream) = socket.connect(address).await else { return };
    let _ = if number.is_multiple_of(2) {
        send_slowly(&mut stream, bearer).await
    } else {
        take_nothing(&mut stream, bearer).await
    };
}

async fn send_slowly(stream: &mut TcpStream, bearer: &str) -> std::io::Result<()> {
    let head = format!(
        "POST /api/v1/telemetry/llm-usage/batch HTTP/1.1\r\nHost: bursar\r\n\
         Authorization: {bearer}\r\nContent-Length: {BODY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let part = vec![b' '; PART];
    // All but the last part, which the server waits for until its deadline.
    for _ in 1..BODY / PART {
        stream.write_all(&part).await?;
        tokio::time::sleep(PAUSE).await;
    }
    stream.read_u8().await.map(|_| ())
}

async fn take_nothing(stream: &mut TcpStream, bearer: &str) -> std::io::Result<()> {
    let request = format!(
        "GET /api/v1/telemetry/usage-history?limit=1000 HTTP/1.1\r\nHost: bursar\r\n\
         Authorization: {bearer}\r\n\r\n"
    );
    stream.write_all(request.repeat(ANSWERS).as_bytes()).await?;
    // The end of a connection is seen by writing, because nothing is read.
    while stream.write_all(b"").await.is_ok() && stream.take_error()?.is_none() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
