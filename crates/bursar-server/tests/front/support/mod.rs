//! A server, and clients that send any bytes they like.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/clock.rs"]
pub(crate) mod clock;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/folder.rs"]
pub(crate) mod folder;
pub(crate) mod frames;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/http.rs"]
pub(crate) mod http;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/server.rs"]
pub(crate) mod server;
#[path = "../../process/support/tenant.rs"]
pub(crate) mod tenant;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/waiting.rs"]
pub(crate) mod waiting;
pub(crate) mod wire;

pub(crate) use waiting::within;
