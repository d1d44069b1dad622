//! Limits on the number of a tenant's integrations and keys.

use bursar_store::TenantCaps;

use crate::config::section::section;
use crate::config::values::Count;

section! {
    /// Limits on the number of a tenant's integrations and keys.
    pub(crate) struct TenantSettings in "tenant" {
        /// Maximum number of integrations of a tenant. Five times as many deleted ones are kept.
        pub(crate) integrations_max: Count = 10_000,
        /// Maximum number of API keys of a tenant that are neither revoked nor expired. The same
        /// number of ended keys is kept, the latest ones.
        pub(crate) api_keys_max: Count = 1_000,
        /// Maximum number of keys of an integration that are neither revoked nor expired. The same
        /// number of ended keys is kept, the latest ones.
        pub(crate) integration_keys_max: Count = 200,
    }
}

impl TenantSettings {
    /// The same, as the store asks.
    pub(crate) fn caps(&self) -> TenantCaps {
        TenantCaps {
            integrations: self.integrations_max.to_u32(),
            api_keys: self.api_keys_max.to_u32(),
            integration_keys: self.integration_keys_max.to_u32(),
        }
    }
}
