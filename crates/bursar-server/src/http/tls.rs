//! TLS: loads the certificate and its key from files, and reloads them when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, ServerConfig};
use rustls::{CertificateError, RootCertStore};
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::jobs::background::TaskFailed;

/// How long before its expiry a certificate is logged.
const RENEW_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// The files of the certificate and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and its chain, as PEM.
    pub certificate: PathBuf,
    /// The private key, as PEM.
    pub key: PathBuf,
    /// How often the files are checked.
    pub reload_every: Duration,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// A file does not contain what it should.
    #[error("{path} contains no {what} in PEM format")]
    NotPem {
        path: PathBuf,
        /// What is missing in the file.
        what: &'static str,
    },
    /// The certificate and the key do not match, or their type is not supported.
    #[error("{certificate} and {key} cannot be used together: {cause}")]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        /// The error of the library.
        cause: rustls::Error,
    },
}

/// The certificate for new connections.
#[derive(Debug)]
pub struct Certificates {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<ServerConfig>>,
    /// The contents at the last check, valid or not.
    seen: Mutex<Fingerprint>,
}

/// A hash of both files, so that no copy of the key is kept for comparison.
type Fingerprint = Option<blake3::Hash>;

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (pair, fingerprint) = read(&files)?;
        let config = configure(&files, &pair, &provider)?;
        Ok(Self {
            files,
            provider,
            current: RwLock::new(config),
            seen: Mutex::new(Some(fingerprint)),
        })
    }

    /// An acceptor with the current certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read()))
    }

    /// Checks the files periodically and whenever `hangup` fires.
    pub async fn follow(self: Arc<Self>, mut hangup: Signal) {
        let mut ticks = tokio::time::interval(self.files.reload_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = hangup.recv() => {}
            }
            let certificates = Arc::clone(&self);
            // File access can block.
            let looked = tokio::task::spawn_blocking(move || certificates.refresh()).await;
            if let Err(error) = looked.map_err(TaskFailed::from) {
                tracing::error!(%error, "the check for a new certificate failed");
            }
        }
    }

    /// Loads a changed pair. An unusable pair is logged once, and the old one stays in use.
    fn refresh(&self) {
        let read = read(&self.files);
        let fingerprint = read.as_ref().ok().map(|(_, fingerprint)| *fingerprint);
        let seen = std::mem::replace(&mut *self.seen.lock(), fingerprint);
        if seen == fingerprint {
            return;
        }
        let configured = read.and_then(|(pair, _)| configure(&self.files, &pair, &self.provider));
        match configured {
            Ok(config) => {
                *self.current.write() = config;
                tracing::info!("the new certificate is in use for new connections");
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate is unusable; the old one stays in use")
            }
        }
    }
}

struct Pair {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

fn read(files: &TlsFiles) -> Result<(Pair, blake3::Hash), TlsError> {
    let content = |path: &Path| {
        std::fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.to_owned(), cause })
    };
    let certificate = content(&files.certificate)?;
    let key = Zeroizing::new(content(&files.key)?);
    let mut hasher = blake3::Hasher::new();
    hasher.update(blake3::hash(&certificate).as_bytes()).update(&key);
    Ok((Pair { certificate, key }, hasher.finalize()))
}

fn configure(
    files: &TlsFiles,
    pair: &Pair,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let not_pem = |path: &Path, what| TlsError::NotPem { path: path.to_owned(), what };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.certificate).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| not_pem(&files.certificate, "certificate"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| not_pem(&files.key, "private key"))?;
    if let Some(leaf) = chain.first() {
        warn_of_end(&files.certificate, leaf, provider);
    }
    let unusable = |cause| {
        let (certificate, key) = (files.certificate.clone(), files.key.clone());
        TlsError::Unusable { certificate, key, cause }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Warns about a certificate that expires. It is still served: some clients accept it.
fn warn_of_end(path: &Path, leaf: &CertificateDer<'_>, provider: &CryptoProvider) {
    let now = UnixTime::now();
    let path = path.display();
    if has_ended(leaf, now, provider) {
        tracing::warn!(%path, "the certificate has expired");
        return;
    }
    let soon = Duration::from_secs(now.as_secs()) + RENEW_BEFORE;
    if has_ended(leaf, UnixTime::since_unix_epoch(soon), provider) {
        tracing::warn!(%path, "the certificate expires within 14 days");
    }
}

/// Whether a certificate has expired at an instant.
///
/// The library reports expiry before it looks for an issuer, and here it is given none.
fn has_ended(leaf: &CertificateDer<'_>, at: UnixTime, provider: &CryptoProvider) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(leaf) else { return false };
    let algorithms = provider.signature_verification_algorithms.all;
    let nobody = RootCertStore::empty();
    let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], at, algorithms);
    matches!(
        verified,
        Err(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn files(&self) -> TlsFiles {
            let path = |name| self.0.path().join(name);
            let reload_every = Duration::from_secs(10);
            TlsFiles { certificate: path("certificate.pem"), key: path("key.pem"), reload_every }
        }

        fn write(&self, certificate: &str, key: &str) {
            let files = self.files();
            std::fs::write(files.certificate, certificate).expect("written");
            std::fs::write(files.key, key).expect("written");
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[track_caller]
    fn check(certificate: &str, key: &str, expected: &str) {
        let folder = Folder::new();
        folder.write(certificate, key);
        let error = Certificates::load(folder.files()).err().map(|error| error.to_string());
        assert!(error.as_deref().is_some_and(|error| error.contains(expected)), "{error:?}");
    }

    #[test]
    fn a_pair_that_cannot_be_used_is_named() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        check("", &key, "certificate.pem contains no certificate");
        check(&certificate, "", "key.pem contains no private key");
        check(&certificate, &certificate, "key.pem contains no private key");
        check(&certificate, &other, "cannot be used together");
        let nowhere = Certificates::load(Folder::new().files()).err();
        assert!(matches!(nowhere, Some(TlsError::Unreadable { .. })), "{nowhere:?}");
    }

    #[test]
    fn a_new_pair_is_taken_over_and_a_bad_one_is_not() {
        let folder = Folder::new();
        let (certificate, key) = pair();
        folder.write(&certificate, &key);
        let certificates = Certificates::load(folder.files()).expect("a pair");
        let first = Arc::clone(&certificates.current.read());
        certificates.refresh();
        assert!(Arc::ptr_eq(&first, &certificates.current.read()), "nothing changed");
        let (other, other_key) = pair();
        folder.write(&other, &key);
        certificates.refresh();
        assert!(Arc::ptr_eq(&first, &certificates.current.read()), "the two do not match");
        folder.write(&other, &other_key);
        certificates.refresh();
        assert!(!Arc::ptr_eq(&first, &certificates.current.read()), "a good pair");
    }

    #[test]
    fn the_end_of_a_certificate_is_seen() {
        let mut parameters =
            rcgen::CertificateParams::new(["localhost".to_owned()]).expect("sound");
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = parameters.self_signed(&key).expect("made");
        let at = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
        let provider = ring::default_provider();
        assert!(!has_ended(made.der(), at(1_893_455_999), &provider));
        assert!(has_ended(made.der(), at(1_893_456_001), &provider));
    }
}
