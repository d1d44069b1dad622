//! The configuration, the data folder and the database that it names.

pub mod data_dir;
pub mod database;
pub mod settings;
