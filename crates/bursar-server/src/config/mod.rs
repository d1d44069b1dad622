//! The configuration, the data folder and the database that it names.
//!
//! `sections/` declares the settings, a file for each concern ([`section!`](section)). The file and
//! the environment are read (given.rs) before a type takes its value (values.rs, setting_text.rs), so that
//! an error knows the line or the variable. listing.rs makes the example and the table of the docs
//! of the same declarations. Deliberately absent: the command line, which gives a few settings as
//! variables of the environment.

pub mod data_dir;
pub mod database;
mod environment;
pub mod error;
pub(crate) mod given;
pub(crate) mod listing;
pub(crate) mod section;
pub(crate) mod sections;
pub(crate) mod setting;
pub(crate) mod setting_text;
pub mod settings;
pub mod values;
