//! Connections: where to, by which TLS, and how long to wait.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::OpenPostgresError;

/// How long to wait for a connection: whoever asks meanwhile is told to come again.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long bytes may stay unacknowledged before a connection counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a quiet connection is asked whether it still stands.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where a database is and how to get there. Its password is never shown.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

impl Address {
    /// Reads a URL such as `postgres://role:password@host:5432/bursar?sslmode=require`.
    ///
    /// `sslrootcert=<file>` names the authority that the server's certificate is checked with;
    /// otherwise those that the system trusts are.
    pub(super) fn parse(url: &str) -> Result<Self, OpenPostgresError> {
        let (url, root) = take_parameter(url, "sslrootcert");
        let mut config =
            Config::from_str(&url).map_err(|_| OpenPostgresError::Url(ADDRESS_FORM))?;
        config
            .application_name("bursar")
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(KEEPALIVE);
        let roots = roots(root.map(PathBuf::from), config.get_ssl_mode())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| OpenPostgresError::Url("TLS cannot be set up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config, tls: MakeRustlsConnect::new(client) })
    }

    /// A connection whose traffic runs as a task of this runtime, until the client is dropped.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            // Whoever uses the client is told what happened to it.
            let _ = connection.await;
        });
        Ok(client)
    }
}

const ADDRESS_FORM: &str =
    "expected postgres://<role>[:<password>]@<host>[:<port>]/<database>[?sslmode=require]";

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
