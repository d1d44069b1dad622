//! Arbitrary bytes on a connection, over the real accept loop: each response has a documented
//! status, and the next client is served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use bursar_server::config::settings::Config;
use bursar_server::http::request_extensions::ListenerKind;
use bursar_server::http::tls::{Certificates, TlsFiles};
use bursar_server::http::{Listener, listen, serve};
use bursar_server::wire::error_code::ErrorCode;
use bursar_testing::frames::{flag, frame, get, head, kind, preface};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::fuzz::server::Server;

/// The timeout of a response, so that a test never hangs.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client waits for the server before it closes its side of the connection.
const GRACE: Duration = Duration::from_millis(20);
/// Connections of one run: the system keeps the port of each for a minute.
const CONNECTIONS_MAX: u64 = 8_000;
/// The name of the servers' threads, whose panics are counted.
const THREAD: &str = "fuzzed-server";

const REQUESTS: &[&str] = &[
    "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/tenants?limit=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{\"name\":\"a\"}",
    "POST /api/v1/enforcement/check HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
     Authorization: Bearer operator-token-of-the-fuzzer\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "HEAD /health HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1",
];
const WORDS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    "Content-Length: 5\r\n",
    "Content-Length: 1\r\n",
    "0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "HTTP/1.1",
    "HTTP/2.0",
    "GET /",
    "?",
    "//",
    "Upgrade: h2c\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\n",
    "ffffffffffffffff\r\n",
    ":",
];

fn any_http1(choices: &mut Choices<'_>) -> Vec<u8> {
    let count = 1 + choices.below(3);
    let requests: String = (0..count).map(|_| choices.one_of(REQUESTS)).collect();
    choices.mutated_bytes(requests.as_bytes(), WORDS)
}

fn any_http2(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = preface();
    for _ in 0..choices.below(6) {
        let stream = choices.one_of(&[1, 3, 0, 2, 5, u32::MAX]);
        let post = head("POST", "/api/v1/tenants", &[("content-length", "2")]);
        bytes.extend(match choices.below(8) {
            0 => get(stream, "/health/live", &[]),
            1 => frame(kind::HEADERS, flag::END_HEADERS, stream, &post),
            2 => frame(kind::DATA, flag::END_STREAM, stream, b"{}"),
            3 => frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            4 => frame(kind::PING, 0, 0, &[7; 8]),
            5 => frame(kind::CONTINUATION, flag::END_HEADERS, stream, &post),
            6 => frame(kind::GOAWAY, 0, 0, &[0; 8]),
            _ => frame(choices.byte(), choices.byte(), stream, &[choices.byte(); 5]),
        });
    }
    choices.mutated_bytes(&bytes, &["\0\0\0", "\u{1}", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
}

/// Input of a TLS port: a truncated ClientHello or plain HTTP.
fn any_tls(choices: &mut Choices<'_>) -> Vec<u8> {
    const GREETING: &[u8] =
        b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03abcdefghijklmnopqrstuvwxyz\
        abcdef\x00\x00\x02\x13\x01\x01\x00\x00\x00";
    if choices.one_in(4) {
        any_http1(choices)
    } else {
        choices.mutated_bytes(GREETING, &["\x16\x03"])
    }
}

/// Servers on sockets in this process.
struct Front {
    runtime: Runtime,
    plain: SocketAddr,
    tls: SocketAddr,
    ends: Vec<oneshot::Sender<()>>,
}

impl Front {
    fn open(server: &Server) -> Self {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name(THREAD).enable_all();
        let runtime = builder.build().expect("a runtime");
        let seconds = |name: &str| (format!("BURSAR_SERVER_{name}_SECONDS"), "1".to_owned());
        let environment = ["HEADER", "BODY", "IDLE", "WRITE", "DRAIN"].map(seconds);
        let config = Config::load(None, environment.into_iter()).expect("a configuration");
        let mut ends = Vec::new();
        let mut open = |certificates: Option<Arc<Certificates>>| {
            let listener = runtime.block_on(listen("127.0.0.1:0")).expect("a port");
            let address = listener.local_addr().expect("an address");
            let router = server.router();
            let listeners = vec![Listener { socket: listener, router, kind: ListenerKind::Public }];
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            let ended = async {
                let _ = ended.await;
            };
            runtime.spawn(serve(listeners, config.server.limits(), certificates, ended));
            address
        };
        let (plain, tls) = (open(None), open(Some(Arc::new(certificates()))));
        Self { runtime, plain, tls, ends }
    }

    fn close(self) {
        self.ends.into_iter().for_each(drop);
        self.runtime.shutdown_timeout(RESPONSE_TIMEOUT);
    }
}

fn certificates() -> Certificates {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let files = TlsFiles { certificate, key, reload_every: Duration::from_secs(10) };
    Certificates::load(files).expect("a pair")
}

/// Sends bytes on a new connection and reads until it ends, cleanly or not.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let mut ended = false;
    stream.set_read_timeout(Some(GRACE)).expect("a timeout");
    stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).expect("a timeout");
    // The server may close the connection before everything is sent.
    let _ = stream.write_all(bytes);
    let (mut answer, mut part) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return answer,
            Ok(read) => answer.extend_from_slice(part.get(..read).unwrap_or_default()),
            // The server waits for more input.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                    && !ended =>
            {
                ended = true;
                stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).expect("a timeout");
                let _ = stream.shutdown(Shutdown::Write);
            }
            Err(error) => {
                let is_reset = error.kind() == ErrorKind::ConnectionReset;
                assert!(is_reset, "no end: {error}, after {bytes:?}");
                return answer;
            }
        }
    }
}

/// The statuses of all responses in the bytes that a server sent.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let starts = text.match_indices("HTTP/1.").map(|(at, _)| at + "HTTP/1.1 ".len());
    starts.filter_map(|at| text.get(at..at + 3)?.parse().ok()).collect()
}

#[track_caller]
fn check_statuses(sent: &[u8], statuses: &[u16]) {
    for status in statuses {
        let is_code = ErrorCode::ALL.iter().any(|code| code.status().as_u16() == *status);
        let is_known = is_code || [100, 200, 201].contains(status);
        assert!(is_known && *status < 500, "{status} for {}", String::from_utf8_lossy(sent));
    }
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics of server threads, which only end a connection.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREAD) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

#[test]
fn arbitrary_bytes_get_documented_responses_and_crash_nothing() {
    count_panics();
    let server = Server::new();
    let front = Front::open(&server);
    let connections = AtomicU64::new(0);
    let effort = Effort { inputs: 100, seconds: 20, bytes_max: 1_024 };
    fuzz(bolero::check!(), effort, |choices| {
        if connections.fetch_add(2, Ordering::Relaxed) > CONNECTIONS_MAX {
            return Outcome::Refused;
        }
        let (address, bytes) = match choices.below(8) {
            0..=3 => (front.plain, any_http1(choices)),
            4..=6 => (front.plain, any_http2(choices)),
            _ => (front.tls, any_tls(choices)),
        };
        let found = statuses(&exchange(address, &bytes));
        check_statuses(&bytes, &found);
        let next = "GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(statuses(&exchange(front.plain, next.as_bytes())), [200]);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0);
        if found.contains(&200) { Outcome::Accepted } else { Outcome::Refused }
    });
    front.close();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(server.close_and_verify());
}
