//! A file for each concern: its settings with their types, defaults and documentation.
//!
//! A new section is a new file and two lines here.

pub(crate) mod caps;
pub(crate) mod credentials;
pub(crate) mod listener;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod oidc;
pub(crate) mod postgres;
pub(crate) mod protection;
pub(crate) mod secrets;
pub(crate) mod server;
pub(crate) mod storage;
pub(crate) mod tenant;
pub(crate) mod tls;

use super::section::section;

section! {
    /// The validated configuration, by concern.
    pub struct Config {}
    nested {
        pub(crate) listener: listener::ListenerSettings,
        pub(crate) storage: storage::StorageSettings,
        pub secrets: secrets::SecretSettings,
        pub(crate) log: log::LogSettings,
        pub metrics: metrics::MetricsSettings,
        pub server: server::ServerSettings,
        pub(crate) memory: memory::MemorySettings,
        pub(crate) tls: tls::TlsSettings,
        pub(crate) postgres: postgres::PostgresSettings,
        pub oidc: oidc::OidcSettings,
        pub(crate) tenant: tenant::TenantSettings,
        pub(crate) protection: protection::ProtectionSettings,
        pub(crate) caps: caps::CapSettings,
        pub(crate) credentials: credentials::CredentialSettings,
    }
}
