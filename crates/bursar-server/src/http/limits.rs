//! The limits and deadlines of connections and requests.

use std::time::Duration;

use crate::http::client_address::TrustedProxies;

/// The largest request head in bytes, over HTTP/1.1 and HTTP/2.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most headers of a request.
pub(crate) const HEADERS_MAX: usize = 100;
/// The longest path with query in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 8 * 1024;
/// The largest body of any route in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The limits and deadlines of connections and requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most open connections of all addresses.
    pub connections_max: usize,
    /// The most open connections of one address.
    pub(crate) connections_per_address_max: usize,
    /// The most concurrent requests of one HTTP/2 connection.
    pub streams_max: u32,
    /// How long a client may take.
    pub deadlines: Deadlines,
    /// How long the body of a request may take to arrive.
    pub(crate) body: Duration,
    /// How long requests may take to finish during shutdown.
    pub drain: Duration,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub(crate) trusted_proxies: TrustedProxies,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a request head to the last; also for a TLS handshake.
    pub header: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// Without reading any of a response.
    pub(crate) write: Duration,
}
