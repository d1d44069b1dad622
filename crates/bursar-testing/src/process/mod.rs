//! A server in a folder of its own, clients that remember what they were told, and the sums that
//! must agree with it.

pub(crate) mod books;
pub(crate) mod canary;
pub(crate) mod chance;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod folder;
pub(crate) mod http;
pub(crate) mod server;
pub(crate) mod strace;
pub(crate) mod tenant;
pub(crate) mod through;
pub(crate) mod waiting;
pub(crate) mod writer;

pub(crate) use waiting::{scale, within};
