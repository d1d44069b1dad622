//! The real binary in a folder of its own, clients that remember what they were told, and the sums
//! that must agree with it.

pub mod books;
pub mod canary;
pub mod clock;
pub mod descriptors;
pub mod disk;
pub mod folder;
pub mod http;
pub mod server;
pub mod strace;
pub mod tenant;
pub mod through;
pub mod writer;
