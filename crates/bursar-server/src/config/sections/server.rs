//! How many connections and requests are let in, and how long each may take.

use crate::config::section::section;
use crate::config::setting::SettingValue;
use crate::config::values::{Count, Seconds, Whole};
use crate::http::client_address::TrustedProxies;
use crate::http::limits::{Deadlines, Limits};

impl SettingValue for TrustedProxies {}

section! {
    /// How many connections and requests are let in, and how long each may take.
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
        /// How long a connection may be open without a request.
        pub(crate) idle_seconds: Seconds = 75,
        /// How long a client may take nothing of an answer.
        pub(crate) write_seconds: Seconds = 30,
        /// Time limit for reading a list or a sum of a tenant, and for waiting for a turn to read.
        /// A read that takes longer gets 422 READ_TOO_LARGE.
        pub(crate) read_seconds: Whole<1, 600> = 10,
        /// Networks (10.0.0.0/8) and addresses of proxies whose X-Forwarded-For is trusted.
        pub(crate) trusted_proxies: TrustedProxies = [],
        /// How long open requests may take to end after SIGTERM.
        pub(crate) drain_seconds: Seconds = 20,
    }
}

impl ServerSettings {
    /// What listeners hold connections and requests to.
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
