//! Slow clients: half of them send an endless body, the others do not read large responses.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bursar_testing::process::tenant::Tenant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::background::Background;
use crate::overload::load_client::NICENESS;

/// The announced size of a body, and the size of its parts.
const BODY: usize = 8 * 1024 * 1024;
const PART: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(100);
/// Pipelined requests of a client that does not read.
const PIPELINED: usize = 8;
const READ_BUFFER: u32 = 16 * 1024;
/// The source address of all slow clients.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Slow clients. Dropping them ends them.
pub(crate) struct Slow {
    _background: Background,
}

impl Slow {
    /// Starts this many clients of one tenant.
    pub(crate) fn start(tenant: &Tenant, address: SocketAddr, count: usize) -> Self {
        let bearer: Arc<str> = tenant.bearer.clone().into();
        let background = Background::start(NICENESS, move || async move {
            let mut clients = JoinSet::new();
            for number in 0..count {
                let bearer = Arc::clone(&bearer);
                clients.spawn(async move {
                    loop {
                        run_connection(number, address, &bearer).await;
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
            clients.join_all().await;
        });
        Self { _background: background }
    }
}

/// Runs one connection until the server closes it.
async fn run_connection(number: usize, address: SocketAddr, bearer: &str) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((FROM, 0).into()).expect("an address of this machine");
    socket.set_recv_buffer_size(READ_BUFFER).expect("set");
    let Ok(mut stream) = socket.connect(address).await else { return };
    let _ = if number.is_multiple_of(2) {
        send_slowly(&mut stream, bearer).await
    } else {
        read_nothing(&mut stream, bearer).await
    };
}

async fn send_slowly(stream: &mut TcpStream, bearer: &str) -> std::io::Result<()> {
    let head = format!(
        "POST /api/v1/telemetry/llm-usage/batch HTTP/1.1\r\nHost: bursar\r\n\
         Authorization: {bearer}\r\nContent-Length: {BODY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let part = vec![b' '; PART];
    // The server waits for the last part until its deadline.
    for _ in 1..BODY / PART {
        stream.write_all(&part).await?;
        tokio::time::sleep(PAUSE).await;
    }
    stream.read_u8().await.map(|_| ())
}

async fn read_nothing(stream: &mut TcpStream, bearer: &str) -> std::io::Result<()> {
    let request = format!(
        "GET /api/v1/telemetry/usage-history?limit=1000 HTTP/1.1\r\nHost: bursar\r\n\
         Authorization: {bearer}\r\n\r\n"
    );
    stream.write_all(request.repeat(PIPELINED).as_bytes()).await?;
    // Only writing shows the end of the connection, because nothing is read.
    while stream.write_all(b"").await.is_ok() && stream.take_error()?.is_none() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
