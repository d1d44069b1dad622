//! The server under test, honest clients of it, and raw connections.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/clock.rs"]
pub(crate) mod clock;
#[path = "../process/support/descriptors.rs"]
pub(crate) mod descriptors;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/folder.rs"]
pub(crate) mod folder;
#[expect(dead_code, reason = "the proofs of the front door use more of it")]
#[path = "../front/support/frames.rs"]
pub(crate) mod frames;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/http.rs"]
pub(crate) mod http;
#[expect(dead_code, reason = "the proof of overload uses more of it")]
#[path = "../overload/line.rs"]
pub(crate) mod line;
#[path = "../overload/memory.rs"]
pub(crate) mod memory;
#[expect(dead_code, reason = "the tests of the store use more of it")]
#[path = "../../../bursar-store/tests/support/postgres/mod.rs"]
pub(crate) mod postgres;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/server.rs"]
pub(crate) mod server;
#[path = "../process/support/tenant.rs"]
pub(crate) mod tenant;
#[path = "../process/support/waiting.rs"]
pub(crate) mod waiting;

pub(crate) use descriptors::raise_descriptors;
pub(crate) use waiting::{scale, within};
