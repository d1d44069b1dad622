//! The store: what every database answers, and what only one of them has.
//!
//! Deliberately absent: whole servers over a database, which `bursar-server` proves.

mod backup;
mod chains;
mod conformance;
mod faults;
mod observed;
mod postgres;
mod questions;
mod races;
mod random;
mod readers;
mod sqlite;
mod support;
mod sweeps;
mod writers;
