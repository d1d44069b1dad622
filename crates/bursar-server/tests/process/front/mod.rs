//! The front door of the real binary over real sockets: deadlines, caps, HTTP/2, TLS, listeners.
//!
//! Deliberately absent: what a crowd of hostile clients does to an honest one, which is measured
//! alone (tests/load).

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::indexing_slicing, reason = "a proof stops at the first thing that does not hold")]

mod bounds;
mod crowding;
mod deadlines;
mod decoding;
mod drain;
mod floods;
mod hosts;
mod listeners;
mod refusals;
mod tls;
