//! What the front door lets in, and how long it waits.

use std::time::Duration;

use crate::http::client_address::TrustedProxies;

/// The most that a request's line and headers may have together, over HTTP/1.1 and HTTP/2.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The headers that a request may have.
pub const HEADERS_MAX: usize = 100;
/// The longest path with its query.
pub const PATH_BYTES_MAX: usize = 8 * 1024;
/// The largest body that any route reads.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the front door lets in, and how long it waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections that are open at once, of all addresses.
    pub connections_max: usize,
    /// Connections that are open at once from one address.
    pub connections_per_address_max: usize,
    /// Requests that are open at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long a client may take.
    pub deadlines: Deadlines,
    /// How long the body of a request may take to arrive.
    pub body: Duration,
    /// How long requests may take to end after the end was asked for.
    pub drain: Duration,
    /// The proxies whose word about the client's address is taken.
    pub trusted_proxies: TrustedProxies,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a request's head to its last; also a TLS handshake.
    pub header: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Without taking anything of an answer.
    pub write: Duration,
}
