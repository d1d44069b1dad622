//! Connections: where to, by which TLS, and how long to wait.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig};
use futures_util::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::OpenPostgresError;

/// How long to wait for a connection: whoever asks meanwhile is told to come again.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long bytes may stay unacknowledged before a connection counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a quiet connection is asked whether it still stands.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where a database is and how to get there. Its password is never shown.
#[derive(Clone)]
pub(super) struct Address {
    /// One way for each host of the URL.
    ways: Vec<Config>,
    tls: MakeRustlsConnect,
    /// The way that led to the database last. It is tried first, so that a host that says nothing
    /// stands before the others once and not before every connection.
    good: Arc<AtomicUsize>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.ways.iter().flat_map(Config::get_hosts).collect();
        f.debug_struct("Address").field("hosts", &hosts).finish_non_exhaustive()
    }
}

impl Address {
    /// Reads a URL such as `postgres://role:password@host:5432/bursar?sslmode=require`.
    ///
    /// `sslrootcert=<file>` names the authority that the server's certificate is checked with;
    /// otherwise those that the system trusts are. Every TLS connection checks the certificate and
    /// the host name, so libpq's `sslmode=verify-full` means the same as `require`.
    pub(super) fn parse(url: &str) -> Result<Self, OpenPostgresError> {
        let (url, root) = take_parameter(url, "sslrootcert");
        let url = with_known_mode(url)?;
        let way = |url: String| {
            let mut config =
                Config::from_str(&url).map_err(|_| OpenPostgresError::Url(ADDRESS_FORM))?;
            config
                .application_name("bursar")
                .connect_timeout(CONNECT_MAX)
                .tcp_user_timeout(SILENCE_MAX)
                .keepalives_idle(KEEPALIVE);
            Ok::<_, OpenPostgresError>(config)
        };
        let ways = one_for_each_host(&url).into_iter().map(way).collect::<Result<Vec<_>, _>>()?;
        let mode = ways.first().map_or(SslMode::Prefer, Config::get_ssl_mode);
        let roots = roots(root.map(PathBuf::from), mode)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| OpenPostgresError::Url("TLS cannot be set up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { ways, tls: MakeRustlsConnect::new(client), good: Arc::default() })
    }

    /// A connection whose traffic runs as a task of this runtime, until the client is dropped.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.open().await.map(|(client, _)| client)
    }

    /// How TLS is spoken, where it is.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// What makes the connections of a pool.
    pub(super) fn manager(&self, config: ManagerConfig) -> Manager {
        let any = self.ways.first().cloned().unwrap_or_default();
        Manager::from_connect(any, self.clone(), config)
    }

    /// How long it takes at most until every host was asked.
    pub(super) fn connect_max(&self) -> Duration {
        CONNECT_MAX * u32::try_from(self.ways.len()).unwrap_or(u32::MAX)
    }

    /// A connection to the first host that gives one, and the task of its traffic.
    async fn open(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let good = self.good.load(Ordering::Relaxed);
        let ways = self.ways.iter().enumerate();
        let mut order: Vec<_> = ways.clone().skip(good).chain(ways.take(good)).collect();
        // What the last one says is told; whoever waits for it has a bound of its own.
        let last = order.pop();
        for (at, way) in order {
            if let Ok(Ok((client, connection))) =
                timeout(CONNECT_MAX, way.connect(self.tls.clone())).await
            {
                self.good.store(at, Ordering::Relaxed);
                return Ok((client, run(connection)));
            }
        }
        let (at, way) = last.map_or((0, Config::new()), |(at, way)| (at, way.clone()));
        let (client, connection) = way.connect(self.tls.clone()).await?;
        self.good.store(at, Ordering::Relaxed);
        Ok((client, run(connection)))
    }
}

impl Connect for Address {
    fn connect(
        &self,
        _: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(self.open())
    }
}

/// Runs the traffic of a connection. Whoever uses its client is told what happened to it.
fn run<T>(connection: Connection<Socket, T>) -> JoinHandle<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let _ = connection.await;
    })
}

const ADDRESS_FORM: &str =
    "expected postgres://<role>[:<password>]@<host>[:<port>]/<database>[?sslmode=require]";

/// The same URL once for each of its hosts.
fn one_for_each_host(url: &str) -> Vec<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (login, rest) = match rest.split_once('@') {
        Some((login, rest)) => (format!("{login}@"), rest),
        None => (String::new(), rest),
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (hosts, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
    hosts.split(',').map(|host| format!("{scheme}://{login}{host}{after}")).collect()
}

/// The same URL with a `sslmode` that the driver knows.
fn with_known_mode(url: String) -> Result<String, OpenPostgresError> {
    let (rest, mode) = take_parameter(&url, "sslmode");
    match mode.as_deref() {
        None | Some("disable" | "prefer" | "require") => Ok(url),
        Some("verify-full") => {
            let sign = if rest.contains('?') { '&' } else { '?' };
            Ok(format!("{rest}{sign}sslmode=require"))
        }
        // `allow` and `verify-ca` would check less than they seem to, or more.
        Some(_) => {
            Err(OpenPostgresError::Url("sslmode is disable, prefer, require or verify-full"))
        }
    }
}

/// Takes a parameter out of the query of a URL.
fn take_parameter(url: &str, name: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut found = None;
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => {
                found = Some(value.to_owned());
                false
            }
            Some(_) | None => true,
        })
        .collect();
    let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (url, found)
}

/// The authorities that may speak for the server.
fn roots(file: Option<PathBuf>, mode: SslMode) -> Result<RootCertStore, OpenPostgresError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        if mode != SslMode::Disable {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        return Ok(roots);
    };
    let unreadable = || OpenPostgresError::Certificate(file.clone());
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|_| unreadable())? {
        roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
    }
    if roots.is_empty() { Err(unreadable()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_that_is_verified_in_full_has_two_names() {
        #[track_caller]
        fn check(url: &str, want: Option<SslMode>) {
            let mode = Address::parse(url).ok().map(|address| address.ways[0].get_ssl_mode());
            assert_eq!(mode, want, "{url}");
        }
        check("postgres://a@b/c?sslmode=require", Some(SslMode::Require));
        check("postgres://a@b/c?sslmode=verify-full", Some(SslMode::Require));
        check("postgres://a@b/c?sslmode=verify-full&connect_timeout=1", Some(SslMode::Require));
        check("postgres://a@b,d/c?sslmode=disable", Some(SslMode::Disable));
        check("postgres://a@b/c", Some(SslMode::Prefer));
        check("postgres://a@b/c?sslmode=verify-ca", None);
        check("postgres://a@b/c?sslmode=allow", None);
    }

    #[test]
    fn a_parameter_is_taken_out_of_a_url() {
        let (url, root) =
            take_parameter("postgres://a@b/c?sslmode=require&sslrootcert=/x", "sslrootcert");
        assert_eq!(
            (url.as_str(), root.as_deref()),
            ("postgres://a@b/c?sslmode=require", Some("/x"))
        );
        let (url, root) = take_parameter("postgres://a@b/c?sslrootcert=/x", "sslrootcert");
        assert_eq!((url.as_str(), root.as_deref()), ("postgres://a@b/c", Some("/x")));
    }

    #[test]
    fn every_host_is_a_way_of_its_own() {
        let ways = one_for_each_host("postgres://r:p/,w@a:1,[::1]:2,c/bursar?x=1,2");
        let expected =
            ["a:1", "[::1]:2", "c"].map(|host| format!("postgres://r:p/,w@{host}/bursar?x=1,2"));
        assert_eq!(ways, expected);
        assert_eq!(one_for_each_host("postgres:///b?host=/run"), ["postgres:///b?host=/run"]);
    }

    #[test]
    fn an_address_is_never_shown_with_its_password() {
        let address =
            Address::parse("postgres://role:hidden@127.0.0.1:5432/bursar?sslmode=disable");
        let shown = format!("{:?}", address.expect("an address"));
        assert!(!shown.contains("hidden"), "{shown}");
        let refused = Address::parse("postgres://role:hidden@host:notaport/bursar");
        let refused = format!("{:?}", refused.expect_err("no address"));
        assert!(!refused.contains("hidden"), "{refused}");
    }
}
