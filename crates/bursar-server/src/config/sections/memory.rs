//! How much memory requests and answers may take.

use crate::config::section::section;
use crate::config::values::Count;

section! {
    /// How much memory requests and answers may take.
    pub(crate) struct MemorySettings in "server" {
        /// Memory limit for request bodies, in bytes (compressed plus decompressed). One tenant
        /// may use a quarter of it. Requests above the limit get 503.
        pub(crate) body_bytes_max_total: Count = 50_331_648,
        /// Memory limit for answers above 64 KiB, in bytes, from the first row that is read until
        /// the client has taken them. One tenant may use a quarter of it. Requests above the limit
        /// get 503, and those that need more than a quarter alone get 422.
        pub(crate) answer_bytes_max_total: Count = 33_554_432,
    }
}
