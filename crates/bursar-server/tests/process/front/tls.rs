//! TLS: served over both versions of HTTP, with certificates that change while the server runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bursar_testing::frames::{self, kind};
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, send_signal};
use bursar_testing::waiting::within;
use bursar_testing::wire::Wire;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const START_MAX: Duration = Duration::from_secs(30);
const RELOAD_MAX: Duration = Duration::from_secs(10);

/// A certificate of `localhost` and its key.
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

    /// Puts it where the server looks.
    fn install(&self, folder: &Folder) {
        std::fs::write(folder.beside("key.pem"), &self.key).expect("written");
        std::fs::write(folder.beside("certificate.pem"), &self.certificate).expect("written");
    }
}

/// A folder whose server speaks TLS.
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

/// A server that speaks TLS.
struct Server {
    process: Process,
    address: String,
}

impl Server {
    #[track_caller]
    fn start(folder: &Folder) -> Self {
        let mut process = Process::start(&mut folder.serve());
        let address = within(START_MAX, || {
            assert_eq!(process.ended(), None, "{}", folder.log());
            let text = std::fs::read_to_string(folder.file("server-address")).ok()?;
            let address = text.trim().strip_prefix("https://")?.to_owned();
            TcpStream::connect(&address).is_ok().then_some(address)
        });
        Self { process, address: address.expect("a server that listens") }
    }

    #[track_caller]
    fn stop(mut self) {
        send_signal("TERM", self.process.pid());
        assert_eq!(self.process.end_within(Duration::from_secs(15)).code(), Some(0));
    }

    /// A handshake with whoever has this certificate.
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
fn https_is_served_over_both_versions_of_http() {
    let pair = Pair::new();
    let server = Server::start(&folder(&pair, "3600"));
    let answer = get(&mut server.client(&pair, "http/1.1").expect("a handshake"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
    let mut stream = server.client(&pair, "h2").expect("a handshake");
    stream.write_all(&frames::opening()).expect("written");
    stream.write_all(&frames::get(1, "/health/ready", &[])).expect("written");
    stream.write_all(&frames::frame(kind::GO_AWAY, 0, 0, &[0; 8])).expect("written");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let sent = frames::read(&bytes);
    assert!(sent.contains(&(kind::HEADERS, 1)) && sent.contains(&(kind::DATA, 1)), "{sent:?}");
    server.stop();
}

#[test]
fn a_new_certificate_is_taken_over_when_its_file_changes() {
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
fn a_new_certificate_is_taken_over_at_once_by_sighup() {
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
fn a_new_pair_that_does_not_match_changes_nothing_and_is_told() {
    let (old, new) = (Pair::new(), Pair::new());
    let folder = folder(&old, "3600");
    let server = Server::start(&folder);
    assert!(server.client(&old, "http/1.1").is_some());
    std::fs::write(folder.beside("key.pem"), &new.key).expect("written");
    send_signal("HUP", server.process.pid());
    let told = "the certificate stays the one before";
    within(RELOAD_MAX, || folder.log().contains(told).then_some(())).expect("the log tells");
    assert!(!folder.log().contains("PRIVATE"), "no key in the log");
    get(&mut server.client(&old, "http/1.1").expect("the old certificate"));
    server.stop();
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_at_the_start() {
    let (pair, other) = (Pair::new(), Pair::new());
    for (key, told) in [(other.key.as_str(), "cannot be used together"), ("", "no private key")] {
        let folder = folder(&pair, "3600");
        std::fs::write(folder.beside("key.pem"), key).expect("written");
        let mut process = Process::start(&mut folder.serve());
        let status = process.end_within(START_MAX);
        assert!(!status.success());
        assert!(folder.log().contains(told), "{}", folder.log());
    }
}

#[test]
fn plain_http_on_a_port_of_tls_is_told_so() {
    let server = Server::start(&folder(&Pair::new(), "3600"));
    let mut wire = Wire::open(&server.address);
    wire.send("GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n");
    let (status, text) = wire.answer().expect("an answer");
    assert_eq!(status, 400);
    assert!(text.ends_with("This port is for HTTPS only.\r\n") || text.contains("HTTPS"), "{text}");
    // However much it sends.
    let mut wire = Wire::open(&server.address);
    let head = "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    wire.send_all(format!("{head}{}", " ".repeat(1_000_000)));
    assert_eq!(wire.answer().map(|(status, _)| status), Some(400));
    assert!(wire.ends(), "a reset");
    server.stop();
}

#[test]
fn a_handshake_has_a_deadline() {
    let server = Server::start(&folder(&Pair::new(), "3600"));
    let slack = Duration::from_secs(4);
    for begun in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0]] {
        let mut wire = Wire::open(&server.address);
        wire.send(begun);
        let took = wire.cut_while_waiting(Duration::from_secs(10));
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(1) + slack);
    }
    server.stop();
}

#[test]
fn handshakes_that_do_not_begin_keep_nobody_out() {
    let pair = Pair::new();
    let mut folder = folder(&pair, "3600");
    folder.set("BURSAR_SERVER_HEADER_SECONDS", "60");
    folder.set("BURSAR_SERVER_CONNECTIONS_MAX", "2");
    let server = Server::start(&folder);
    let mut silent: Vec<Wire> = (0..3).map(|_| Wire::open(&server.address)).collect();
    silent[1].send([0x16, 3, 1]);
    let answer = get(&mut server.client(&pair, "http/1.1").expect("a handshake"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    silent[0].cut_while_waiting(Duration::from_secs(10));
    drop(silent);
    server.stop();
}
