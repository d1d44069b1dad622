//! The listeners of the real binary over real sockets: deadlines, limits, HTTP/2, TLS.
//!
//! The effect of many hostile clients on an honest one is measured in tests/load.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::indexing_slicing, reason = "a proof stops at the first thing that does not hold")]

mod bounds;
mod connection_reuse;
mod crowding;
mod deadlines;
mod decoding;
mod drain;
mod floods;
mod hosts;
mod listeners;
mod tls;

use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::Server;
use bursar_testing::raw_connection::RawConnection;

/// Starts a request whose 12 bytes of body the server waits for.
fn start_request(folder: &Folder, server: &Server) -> RawConnection {
    let token = folder.operator_token();
    let mut connection = RawConnection::open(server.address());
    connection.send(format!(
        "POST /api/v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Expect: 100-continue\r\nContent-Length: 12\r\n\r\n"
    ));
    connection.read_until(|bytes| bytes.starts_with(b"HTTP/1.1 100"));
    connection
}
