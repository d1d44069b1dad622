//! TLS over HTTP/1.1 and HTTP/2, and certificates that change while the server runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bursar_testing::frames::{self, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, send_signal};
use bursar_testing::raw_connection::RawConnection;
use bursar_testing::waiting::within;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const START_MAX: Duration = Duration::from_secs(30);
const RELOAD_MAX: Duration = Duration::from_secs(10);

/// A certificate for `localhost` and its key.
struct Pair {
    certificate: String,
    der: CertificateDer<'static>,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let der = made.cert.der().clone();
        Self { certificate: made.cert.pem(), der, key: made.signing_key.serialize_pem() }
    }

    /// Writes it to the configured files.
    fn install(&self, folder: &Folder) {
        std::fs::write(folder.beside("key.pem"), &self.key).expect("written");
        std::fs::write(folder.beside("certificate.pem"), &self.certificate).expect("written");
    }
}

/// A folder with the settings of a TLS server.
fn folder(pair: &Pair, reload_seconds: &str) -> Folder {
    let mut folder = Folder::new();
    pair.install(&folder);
    let path = |name| folder.beside(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    folder.set("BURSAR_TLS_CERTIFICATE", certificate);
    folder.set("BURSAR_TLS_KEY", key);
    folder.set("BURSAR_TLS_RELOAD_SECONDS", reload_seconds);
    folder.set("BURSAR_SERVER_HEADER_SECONDS", "1");
    folder.set("BURSAR_LOG", "info");
    folder
}

/// A TLS server.
struct Server {
    process: Process,
    address: String,
}

impl Server {
    #[track_caller]
    fn start(folder: &Folder) -> Self {
        let mut process = Process::start(&mut folder.serve());
        let address = within(START_MAX, || {
            assert_eq!(process.exit_status(), None, "{}", folder.log());
            let text = std::fs::read_to_string(folder.file("server-address")).ok()?;
            let address = text.trim().strip_prefix("https://")?.to_owned();
            TcpStream::connect(&address).is_ok().then_some(address)
        });
        Self { process, address: address.expect("a server that listens") }
    }

    #[track_caller]
    fn stop(mut self) {
        send_signal("TERM", self.process.pid());
        assert_eq!(self.process.wait_for_exit(Duration::from_secs(15)).code(), Some(0));
    }

    /// A connection that trusts only this certificate; `None` if the handshake fails.
    fn client(&self, trusted: &Pair, protocol: &str) -> Option<Stream> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let tcp = TcpStream::connect(&self.address).expect("a connection");
        tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut stream = StreamOwned::new(connection, tcp);
        stream.conn.complete_io(&mut stream.sock).ok()?;
        assert_eq!(stream.conn.alpn_protocol(), Some(protocol.as_bytes()));
        Some(stream)
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

#[track_caller]
fn get(stream: &mut Stream) -> String {
    let request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn https_is_served_over_http1_and_http2() {
    let pair = Pair::new();
    let server = Server::start(&folder(&pair, "3600"));
    let answer = get(&mut server.client(&pair, "http/1.1").expect("a handshake"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
    let mut stream = server.client(&pair, "h2").expect("a handshake");
    stream.write_all(&frames::preface()).expect("written");
    stream.write_all(&frames::get(1, "/health/ready", &[])).expect("written");
    stream.write_all(&frames::frame(kind::GOAWAY, 0, 0, &[0; 8])).expect("written");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let sent = frames::read(&bytes);
    assert!(sent.contains(&(kind::HEADERS, 1)) && sent.contains(&(kind::DATA, 1)), "{sent:?}");
    server.stop();
}

#[test]
fn a_new_certificate_is_loaded_when_its_file_changes() {
    let (old, new) = (Pair::new(), Pair::new());
    let folder = folder(&old, "1");
    let server = Server::start(&folder);
    let mut kept = server.client(&old, "http/1.1").expect("a handshake");
    new.install(&folder);
    let changed = within(RELOAD_MAX, || server.client(&new, "http/1.1"));
    get(&mut changed.expect("the new certificate"));
    assert!(server.client(&old, "http/1.1").is_none(), "the old one is gone");
    assert!(get(&mut kept).starts_with("HTTP/1.1 200"), "a connection that is open stays");
    server.stop();
}

#[test]
fn sighup_loads_a_new_certificate_at_once() {
    let (old, new) = (Pair::new(), Pair::new());
    let folder = folder(&old, "3600");
    let server = Server::start(&folder);
    assert!(server.client(&old, "http/1.1").is_some());
    new.install(&folder);
    send_signal("HUP", server.process.pid());
    let changed = within(RELOAD_MAX, || server.client(&new, "http/1.1"));
    get(&mut changed.expect("the new certificate"));
    server.stop();
}

#[test]
fn a_mismatched_certificate_and_key_are_not_loaded_and_logged() {
    let (old, new) = (Pair::new(), Pair::new());
    let folder = folder(&old, "3600");
    let server = Server::start(&folder);
    assert!(server.client(&old, "http/1.1").is_some());
    std::fs::write(folder.beside("key.pem"), &new.key).expect("written");
    send_signal("HUP", server.process.pid());
    let message = "the new certificate is unusable; the old one stays in use";
    within(RELOAD_MAX, || folder.log().contains(message).then_some(()))
        .expect("a message in the log");
    assert!(!folder.log().contains("PRIVATE"), "no key in the log");
    get(&mut server.client(&old, "http/1.1").expect("the old certificate"));
    server.stop();
}

#[test]
fn an_unusable_certificate_and_key_refuse_the_start() {
    let (pair, other) = (Pair::new(), Pair::new());
    for (key, message) in [(other.key.as_str(), "cannot be used together"), ("", "no private key")]
    {
        let folder = folder(&pair, "3600");
        std::fs::write(folder.beside("key.pem"), key).expect("written");
        let mut process = Process::start(&mut folder.serve());
        let status = process.wait_for_exit(START_MAX);
        assert!(!status.success());
        assert!(folder.log().contains(message), "{}", folder.log());
    }
}

#[test]
fn plain_http_on_the_tls_port_gets_400() {
    let server = Server::start(&folder(&Pair::new(), "3600"));
    let mut connection = RawConnection::open(&server.address);
    connection.send("GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n");
    let (status, text) = connection.answer().expect("an answer");
    assert_eq!(status, 400);
    assert!(text.ends_with("This port is for HTTPS only.\r\n") || text.contains("HTTPS"), "{text}");
    // Also when it sends much.
    let mut connection = RawConnection::open(&server.address);
    let head = "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    connection.send_all(format!("{head}{}", " ".repeat(1_000_000)));
    assert_eq!(connection.status(), Some(400));
    assert!(connection.is_closed_cleanly(), "a reset");
    server.stop();
}

#[test]
fn a_handshake_has_a_deadline() {
    let server = Server::start(&folder(&Pair::new(), "3600"));
    let slack = Duration::from_secs(4);
    for begun in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0]] {
        let mut connection = RawConnection::open(&server.address);
        connection.send(begun);
        let took = connection.cut_while_waiting(Duration::from_secs(10));
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(1) + slack);
    }
    server.stop();
}

#[test]
fn unstarted_handshakes_make_way_for_new_connections() {
    let pair = Pair::new();
    let mut folder = folder(&pair, "3600");
    folder.set("BURSAR_SERVER_HEADER_SECONDS", "60");
    folder.set("BURSAR_SERVER_CONNECTIONS_MAX", "2");
    let server = Server::start(&folder);
    let mut silent: Vec<RawConnection> =
        (0..3).map(|_| RawConnection::open(&server.address)).collect();
    silent[1].send([0x16, 3, 1]);
    let answer = get(&mut server.client(&pair, "http/1.1").expect("a handshake"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    silent[0].cut_while_waiting(Duration::from_secs(10));
    drop(silent);
    server.stop();
}
