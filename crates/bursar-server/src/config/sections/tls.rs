//! The certificate of the server.

use std::path::PathBuf;

use crate::config::error::ConfigError;
use crate::config::given::Given;
use crate::config::section::section;
use crate::config::values::Seconds;
use crate::http::tls::TlsFiles;

section! {
    /// The certificate of the server.
    pub(crate) struct TlsSettings in "tls" {
        /// PEM file with the certificate and its chain. Empty: no TLS.
        pub(crate) certificate: Option<PathBuf> = "",
        /// PEM file with the private key of the certificate.
        pub(crate) key: Option<PathBuf> = "",
        /// How often Bursar looks for a new certificate in these files. SIGHUP makes it look at
        /// once.
        pub(crate) reload_seconds: Seconds = 10,
    }
    check TlsSettings::check_pair
}

impl TlsSettings {
    fn check_pair(&self, given: &Given<'_>) -> Result<(), ConfigError> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err(given.wrong("tls.certificate", "requires tls.key")),
            (None, Some(_)) => Err(given.wrong("tls.key", "requires tls.certificate")),
            (None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }

    /// The files of the certificate, if the server speaks TLS.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let (certificate, key) = self.certificate.clone().zip(self.key.clone())?;
        Some(TlsFiles { certificate, key, reload_every: self.reload_seconds.seconds() })
    }
}
