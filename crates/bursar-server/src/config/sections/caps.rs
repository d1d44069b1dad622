//! How much open and stored data a tenant may leave.

use bursar_core::Caps;

use crate::config::section::section;
use crate::config::values::{Count, Whole};

section! {
    /// How much open and stored data a tenant may leave.
    pub(crate) struct CapSettings in "limits" {
        /// Maximum number of open reservations of one integration. Further ones get 409.
        pub(crate) reservations_per_integration: Count = 50_000,
        /// Maximum number of open reservations of one tenant. Further ones get 409.
        pub(crate) reservations_per_tenant: Count = 200_000,
        /// Bytes of usage records that a tenant may store on one UTC day. Further records get 429,
        /// unless their call was reserved. 0: unlimited.
        pub(crate) stored_bytes_per_day: Whole<0, { i64::MAX }> = 0,
    }
}

impl CapSettings {
    /// The same, as the core decides.
    pub(crate) fn caps(&self) -> Caps {
        Caps {
            reservations_per_integration: self.reservations_per_integration.to_i64(),
            reservations_per_tenant: self.reservations_per_tenant.to_i64(),
            stored_bytes_per_day: self.stored_bytes_per_day.to_i64(),
        }
    }
}
