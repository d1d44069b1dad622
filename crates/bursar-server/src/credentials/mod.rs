//! References to credentials, and detection of raw keys.

pub mod raw_key;
pub mod reference;
