//! A file for each concern: its settings with their types, defaults and documentation.
//!
//! A new section is its file and two lines here.

pub mod caps;
pub mod credentials;
pub mod listener;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod oidc;
pub mod postgres;
pub mod protection;
pub mod secrets;
pub mod server;
pub mod storage;
pub mod tenant;
pub mod tls;

use super::section::section;

section! {
    /// A configuration that was read and checked, by concern.
    pub struct Config {}
    nested {
        pub listener: listener::ListenerSettings,
        pub storage: storage::StorageSettings,
        pub secrets: secrets::SecretSettings,
        pub log: log::LogSettings,
        pub metrics: metrics::MetricsSettings,
        pub server: server::ServerSettings,
        pub memory: memory::MemorySettings,
        pub tls: tls::TlsSettings,
        pub postgres: postgres::PostgresSettings,
        pub oidc: oidc::OidcSettings,
        pub tenant: tenant::TenantSettings,
        pub protection: protection::ProtectionSettings,
        pub caps: caps::CapSettings,
        pub credentials: credentials::CredentialSettings,
    }
}
