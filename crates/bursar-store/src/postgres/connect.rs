//! Opens connections: hosts, TLS and time limits.

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

/// The time limit for a connection to one host. Meanwhile requests are answered 503.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long bytes may stay unacknowledged before a connection counts as lost.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// The idle time before the first TCP keepalive.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The address of a database. [`fmt::Debug`] does not show the password.
#[derive(Clone)]
pub(super) struct Address {
    /// One configuration for each host of the URL.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    /// The host of the last connection, which is tried first, so that a host that does not respond
    /// delays only one connection.
    preferred: Arc<AtomicUsize>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().flat_map(Config::get_hosts).collect();
        f.debug_struct("Address").field("hosts", &hosts).finish_non_exhaustive()
    }
}

impl Address {
    /// Parses a URL such as `postgres://role:password@host:5432/bursar?sslmode=require`.
    ///
    /// `sslrootcert=<file>` names the certificate authority for the server's certificate; without
    /// it, those that the system trusts are used. Every TLS connection checks the certificate and
    /// the host name, so libpq's `sslmode=verify-full` means the same as `require`.
    pub(super) fn parse(url: &str) -> Result<Self, OpenPostgresError> {
        let (url, root) = take_parameter(url, "sslrootcert");
        let url = with_known_mode(url)?;
        let host = |url: String| {
            let mut config =
                Config::from_str(&url).map_err(|_| OpenPostgresError::Url(ADDRESS_FORM))?;
            config
                .application_name("bursar")
                .connect_timeout(CONNECT_MAX)
                .tcp_user_timeout(UNACKNOWLEDGED_MAX)
                .keepalives_idle(KEEPALIVE);
            Ok::<_, OpenPostgresError>(config)
        };
        let hosts = url_per_host(&url).into_iter().map(host).collect::<Result<Vec<_>, _>>()?;
        let mode = hosts.first().map_or(SslMode::Prefer, Config::get_ssl_mode);
        let roots = roots(root.map(PathBuf::from), mode)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| OpenPostgresError::Url("TLS cannot be set up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { hosts, tls: MakeRustlsConnect::new(client), preferred: Arc::default() })
    }

    /// Opens a connection, which a task of this runtime drives until the client is dropped.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.open().await.map(|(client, _)| client)
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// The manager of a connection pool.
    pub(super) fn manager(&self, config: ManagerConfig) -> Manager {
        let any = self.hosts.first().cloned().unwrap_or_default();
        Manager::from_connect(any, self.clone(), config)
    }

    /// The time limit for a connection over all hosts.
    pub(super) fn connect_max(&self) -> Duration {
        CONNECT_MAX * u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }

    /// Connects to the first host that accepts, and returns the task that drives the connection.
    async fn open(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let hosts = self.hosts.iter().enumerate();
        let mut order: Vec<_> =
            hosts.clone().skip(preferred).chain(hosts.take(preferred)).collect();
        // The error of the last host is returned. The callers limit the wait for it.
        let last = order.pop();
        for (index, host) in order {
            if let Ok(Ok((client, connection))) =
                timeout(CONNECT_MAX, host.connect(self.tls.clone())).await
            {
                self.preferred.store(index, Ordering::Relaxed);
                return Ok((client, spawn(connection)));
            }
        }
        let (index, host) = last.map_or((0, Config::new()), |(index, host)| (index, host.clone()));
        let (client, connection) = host.connect(self.tls.clone()).await?;
        self.preferred.store(index, Ordering::Relaxed);
        Ok((client, spawn(connection)))
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

/// Drives a connection in a task. Its client gets the errors too, so they are ignored here.
fn spawn<T>(connection: Connection<Socket, T>) -> JoinHandle<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let _ = connection.await;
    })
}

const ADDRESS_FORM: &str =
    "expected postgres://<role>[:<password>]@<host>[:<port>]/<database>[?sslmode=require]";

/// The URL once for each of its hosts.
fn url_per_host(url: &str) -> Vec<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (login, rest) = match rest.split_once('@') {
        Some((login, rest)) => (format!("{login}@"), rest),
        None => (String::new(), rest),
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (hosts, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
    hosts.split(',').map(|host| format!("{scheme}://{login}{host}{after}")).collect()
}

/// The URL with an `sslmode` that the driver knows.
fn with_known_mode(url: String) -> Result<String, OpenPostgresError> {
    let (rest, mode) = take_parameter(&url, "sslmode");
    match mode.as_deref() {
        None | Some("disable" | "prefer" | "require") => Ok(url),
        Some("verify-full") => {
            let sign = if rest.contains('?') { '&' } else { '?' };
            Ok(format!("{rest}{sign}sslmode=require"))
        }
        // TLS here always checks more than `allow` and `verify-ca` promise.
        Some(_) => {
            Err(OpenPostgresError::Url("sslmode must be disable, prefer, require or verify-full"))
        }
    }
}

/// Removes a parameter from the query of a URL, and returns its value.
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

/// The certificate authorities for the server's certificate.
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
    fn verify_full_is_the_same_as_require() {
        #[track_caller]
        fn check(url: &str, want: Option<SslMode>) {
            let mode = Address::parse(url).ok().map(|address| address.hosts[0].get_ssl_mode());
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
    fn a_parameter_is_removed_from_a_url() {
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
    fn a_url_is_split_into_one_per_host() {
        let urls = url_per_host("postgres://r:p/,w@a:1,[::1]:2,c/bursar?x=1,2");
        let expected =
            ["a:1", "[::1]:2", "c"].map(|host| format!("postgres://r:p/,w@{host}/bursar?x=1,2"));
        assert_eq!(urls, expected);
        assert_eq!(url_per_host("postgres:///b?host=/run"), ["postgres:///b?host=/run"]);
    }

    #[test]
    fn debug_output_and_errors_do_not_show_the_password() {
        let address =
            Address::parse("postgres://role:hidden@127.0.0.1:5432/bursar?sslmode=disable");
        let shown = format!("{:?}", address.expect("an address"));
        assert!(!shown.contains("hidden"), "{shown}");
        let refused = Address::parse("postgres://role:hidden@host:notaport/bursar");
        let refused = format!("{:?}", refused.expect_err("no address"));
        assert!(!refused.contains("hidden"), "{refused}");
    }
}
