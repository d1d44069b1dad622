//! Limits on the number and the duration of connections and requests.

use crate::config::section::section;
use crate::config::setting::SettingValue;
use crate::config::values::{Count, Seconds, Whole};
use crate::http::client_address::TrustedProxies;
use crate::http::limits::{Deadlines, Limits};

impl SettingValue for TrustedProxies {}

section! {
    /// Limits on the number and the duration of connections and requests.
    pub struct ServerSettings in "server" {
        /// Maximum number of open connections. Above it, each new connection closes the one that
        /// has been idle longest.
        pub(crate) connections_max: Count = 10_000,
        /// Maximum number of open connections from one address (for IPv6, from one /56). Further
        /// ones are closed. Trusted proxies are not counted.
        pub(crate) connections_per_address_max: Count = 1_000,
        /// Maximum number of open requests on one HTTP/2 connection.
        pub(crate) streams_max: Count = 128,
        /// Time limit for the head of a request, from its first byte, and for a TLS handshake.
        pub(crate) header_seconds: Seconds = 10,
        /// Time limit for the body of a request.
        pub(crate) body_seconds: Seconds = 30,
        /// Time limit for a connection without a request.
        pub(crate) idle_seconds: Seconds = 75,
        /// Time limit for a client that receives no bytes of a response.
        pub(crate) write_seconds: Seconds = 30,
        /// Time limit for reading a list or a total, including the wait for a reader. A read that
        /// takes longer gets 422 READ_TOO_LARGE.
        pub(crate) read_seconds: Whole<1, 600> = 10,
        /// Networks (10.0.0.0/8) and addresses of proxies whose X-Forwarded-For is trusted.
        pub(crate) trusted_proxies: TrustedProxies = [],
        /// Time limit for open requests after SIGTERM.
        pub(crate) drain_seconds: Seconds = 20,
    }
}

impl ServerSettings {
    /// The limits as listeners take them.
    pub fn limits(&self) -> Limits {
        Limits {
            connections_max: self.connections_max.to_usize(),
            connections_per_address_max: self.connections_per_address_max.to_usize(),
            streams_max: self.streams_max.to_u32(),
            deadlines: Deadlines {
                header: self.header_seconds.seconds(),
                idle: self.idle_seconds.seconds(),
                write: self.write_seconds.seconds(),
            },
            body: self.body_seconds.seconds(),
            drain: self.drain_seconds.seconds(),
            trusted_proxies: self.trusted_proxies.clone(),
        }
    }
}
