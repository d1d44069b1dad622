//! Memory limits for requests and responses.

use crate::config::section::section;
use crate::config::values::Count;

section! {
    /// Memory limits for requests and responses.
    pub(crate) struct MemorySettings in "server" {
        /// Memory limit for request bodies, in bytes (compressed plus decompressed). One tenant
        /// may use a quarter of it. Requests above the limit get 503.
        pub(crate) body_bytes_max_total: Count = 50_331_648,
        /// Memory limit for responses above 64 KiB, in bytes, from the first row read until the
        /// client has received them. One tenant may use a quarter of it. Requests above the limit
        /// get 503. A request that alone needs more than a quarter gets 422.
        pub(crate) answer_bytes_max_total: Count = 33_554_432,
    }
}
