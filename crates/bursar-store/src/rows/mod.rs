//! Stored rows and their decoding, shared by all databases.

pub(crate) mod codec;
pub(crate) mod columns;
pub(crate) mod decode;
pub(crate) mod protection;
pub(crate) mod rollup;
pub(crate) mod row;
