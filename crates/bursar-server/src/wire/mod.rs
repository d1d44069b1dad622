//! Types and parsers of the wire that handlers share. They need neither state nor storage.

pub mod body;
pub mod csv_cell;
pub(crate) mod cursor;
pub(crate) mod enums;
pub mod envelope;
pub mod error;
pub mod error_code;
pub(crate) mod format;
pub mod freeform_json;
pub(crate) mod json_depth;
pub mod json_line;
pub mod json_object;
pub(crate) mod label;
pub(crate) mod numbers;
pub(crate) mod params;
pub(crate) mod period;
pub(crate) mod request_id;
pub(crate) mod scalars;
pub mod schema;
pub(crate) mod text;
pub mod timestamps;
