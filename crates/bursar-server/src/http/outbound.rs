//! The one client for outbound requests.
//!
//! A name is resolved first, and the connection goes to one of the resulting addresses, so that
//! addresses can be checked between the two steps. Each request has its own connection, because a
//! pooled one would outlive that check. Deliberately absent: redirects, proxies from the
//! environment, cookies, and methods other than GET.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest duration of a request, including name resolution.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// How long one address may take to connect before the next is tried.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(2);
/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;
/// The largest response head in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// A URL for outbound requests: https, or http on this machine.
#[derive(Clone, Debug)]
pub struct WebUrl {
    text: String,
    host: String,
    port: u16,
    /// The name that the certificate must have. `None` without TLS.
    tls_name: Option<ServerName<'static>>,
    /// The path with query.
    target: Uri,
    /// The value of the Host header.
    authority: HeaderValue,
}

impl WebUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// The rest of a sentence that starts with the purpose of the URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let wrong = "must be an https URL without a user, a password and a fragment";
        let uri: Uri = text.parse().map_err(|_| wrong)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong);
        };
        if authority.as_str().contains('@') || text.contains('#') {
            return Err(wrong);
        }
        let host = authority.host();
        let said = authority.as_str().strip_prefix(host).ok_or(wrong)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| wrong)?;
        let (standard, tls_name) = match scheme {
            "https" => (443, Some(name)),
            "http" if is_this_machine(bare) => (80, None),
            _ => return Err("must be an https URL; http is allowed for this machine only"),
        };
        let port = match said.strip_prefix(':') {
            None if said.is_empty() => standard,
            None => return Err(wrong),
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(wrong)?,
        };
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            text: text.to_owned(),
            host: bare.to_owned(),
            port,
            tls_name,
            target: target.parse().map_err(|_| wrong)?,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong)?,
        })
    }

    /// The URL for logs, without its query, which may contain a key.
    pub(crate) fn shown(&self) -> &str {
        self.text.split('?').next().unwrap_or_default()
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls_name.is_some()
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why a request failed, for the log.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The deadline passed.
    #[error("no response in time")]
    TooSlow,
    /// Name resolution, connection or certificate failed.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// The connection broke off.
    #[error("the connection broke off")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// The status is not 200.
    #[error("the response has the status {0}")]
    Status(StatusCode),
    /// The response is too large.
    #[error("the response has more than {0} bytes")]
    TooLarge(usize),
    /// The response has another form. It is not quoted, because it can contain anything.
    #[error("the response is not the expected JSON")]
    NotJson,
}

impl From<hyper::Error> for OutboundError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(Box::new(error))
    }
}

/// The certificate authorities that this machine trusts.
pub(crate) fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A client for outbound requests.
pub struct Outbound {
    tls: TlsConnector,
    deadline: Duration,
}

impl Outbound {
    /// Creates a client with these authorities and this deadline.
    ///
    /// # Errors
    /// If the cryptography supports no version of TLS, which only a faulty build can cause.
    pub fn new(roots: RootCertStore, deadline: Duration) -> Result<Self, rustls::Error> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), deadline })
    }

    /// Fetches a JSON document of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        url: &WebUrl,
        bytes_max: usize,
    ) -> Result<T, OutboundError> {
        let asked = tokio::time::timeout(self.deadline, self.get(url, bytes_max));
        let body = asked.await.unwrap_or(Err(OutboundError::TooSlow))?;
        serde_json::from_slice(&body).map_err(|_| OutboundError::NotJson)
    }

    async fn get(&self, url: &WebUrl, bytes_max: usize) -> Result<Bytes, OutboundError> {
        let stream = connect(&resolve(url).await?).await?;
        match &url.tls_name {
            None => ask(stream, url, bytes_max).await,
            Some(name) => {
                let shaken = self.tls.connect(name.clone(), stream).await;
                ask(shaken.map_err(OutboundError::Unreachable)?, url, bytes_max).await
            }
        }
    }
}

/// The addresses of the host. Plain HTTP is only sent to this machine, whatever the name resolves
/// to.
async fn resolve(url: &WebUrl) -> Result<Vec<SocketAddr>, OutboundError> {
    let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    let found = found.map_err(OutboundError::Unreachable)?;
    let may = |address: &SocketAddr| url.is_tls() || address.ip().is_loopback();
    Ok(found.filter(may).take(ADDRESSES_MAX).collect())
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, OutboundError> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(ADDRESS_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => refused = error,
            Err(_) => refused = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(OutboundError::Unreachable(refused))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    url: &WebUrl,
    bytes_max: usize,
) -> Result<Bytes, OutboundError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut exchange = pin!(async move {
        let answer = sender.send_request(request(url)).await?;
        if answer.status() != StatusCode::OK {
            return Err(OutboundError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| {
            let is_too_large = error.is::<LengthLimitError>();
            if is_too_large {
                OutboundError::TooLarge(bytes_max)
            } else {
                OutboundError::Broken(error)
            }
        })
    });
    tokio::select! {
        answered = &mut exchange => answered,
        // The peer closed the connection; buffered data may still have to be read.
        _ = connection => exchange.await,
    }
}

fn request(url: &WebUrl) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.target.clone();
    let headers = request.headers_mut();
    headers.insert(header::HOST, url.authority.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("bursar"));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_or_on_this_machine() {
        for url in [
            "https://id.example.com/realms/a",
            "https://id.example.com",
            "https://10.0.0.7:8443/keys?x=1",
            "https://[2001:db8::1]/",
            "http://localhost:8080/a",
            "http://127.0.0.1/",
            "http://[::1]:1/",
        ] {
            assert!(WebUrl::parse(url).is_ok(), "{url}");
        }
        for url in [
            "http://id.example.com",
            "http://10.0.0.7/",
            "http://localhost.example.com/",
            "ftp://localhost/",
            "https://user:password@a/",
            "https://user@a/",
            "https://a/#b",
            "https://a:0/",
            "https://a:/",
            "https://a:65536/",
            "https://a b/",
            "https://[::1/",
            "https:///a",
            "/a",
            "a",
            "",
        ] {
            assert!(WebUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_asked_is_the_path_with_its_query() {
        let url = WebUrl::parse("https://a.example:8443/b/c?d=e").expect("a URL");
        let request = request(&url);
        assert_eq!(request.uri().to_string(), "/b/c?d=e");
        assert_eq!(url.shown(), "https://a.example:8443/b/c");
        assert_eq!(request.headers()[header::HOST], "a.example:8443");
        let request = super::request(&WebUrl::parse("https://a.example").expect("a URL"));
        assert_eq!(request.uri().to_string(), "/");
    }
}
