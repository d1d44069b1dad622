//! Types and parsers of the wire that handlers share. They need neither state nor storage.

pub mod body;
pub mod csv_cell;
pub mod cursor;
pub mod enums;
pub mod envelope;
pub mod error;
pub mod error_code;
pub mod format;
pub mod freeform_json;
pub(crate) mod json_depth;
pub mod json_line;
pub mod json_object;
pub mod params;
pub mod period;
pub mod request_id;
pub mod scalars;
pub mod schema;
pub mod text;
pub mod timestamps;
