//! The real binary in its own folder, clients that record what the server acknowledged, and checks
//! of the stored sums.

pub mod bodies;
pub mod books;
pub mod canary;
pub mod clock;
pub mod clock_jump;
pub mod descriptors;
pub mod disk;
pub mod folder;
pub mod http;
pub mod memory;
pub mod server;
pub mod strace;
pub mod tenant;
pub mod writer;
