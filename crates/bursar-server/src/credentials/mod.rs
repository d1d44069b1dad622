//! References to credentials, and the search for raw keys.

pub mod raw_key;
pub mod reference;
