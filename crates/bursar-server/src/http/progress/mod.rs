//! The progress of a connection, and the deadlines and the idleness that follow from it.
//!
//! The stream, the service and the response bodies report events. The task that drives the
//! connection asks for the next deadline, and the pool asks how idle the connection is.
//! Deliberately absent: timers and sockets.

mod deadline;
mod idleness;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use self::deadline::CutReason;
pub(crate) use self::idleness::Idleness;
pub(crate) use self::state::Progress;
