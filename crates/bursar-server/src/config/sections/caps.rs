//! Limits on the open reservations and stored bytes of a tenant.

use bursar_core::Caps;

use crate::config::section::section;
use crate::config::values::{Count, Whole};

section! {
    /// Limits on the open reservations and stored bytes of a tenant.
    pub(crate) struct CapSettings in "limits" {
        /// Maximum number of open reservations of an integration. Further ones get 409.
        pub(crate) reservations_per_integration: Count = 50_000,
        /// Maximum number of open reservations of a tenant. Further ones get 409.
        pub(crate) reservations_per_tenant: Count = 200_000,
        /// Bytes of usage records that a tenant may store on one UTC day. Further records get 429,
        /// unless their call was reserved. 0: unlimited.
        pub(crate) stored_bytes_per_day: Whole<0, { i64::MAX }> = 0,
    }
}

impl CapSettings {
    /// The caps as the core takes them.
    pub(crate) fn caps(&self) -> Caps {
        Caps {
            reservations_per_integration: self.reservations_per_integration.to_i64(),
            reservations_per_tenant: self.reservations_per_tenant.to_i64(),
            stored_bytes_per_day: self.stored_bytes_per_day.to_i64(),
            ..Caps::DEFAULT
        }
    }
}
