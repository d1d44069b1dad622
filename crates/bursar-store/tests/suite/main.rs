//! Tests of the store: behaviour of both databases, and features of only one.
//!
//! Deliberately absent: whole servers over a database, which `bursar-server` tests.

mod backup;
mod chains;
mod conformance;
mod faults;
mod limit_churn;
mod limit_faults;
mod limit_races;
mod observed;
mod postgres;
mod postgres_reads;
mod races;
mod random;
mod readers;
mod sqlite;
mod support;
mod sweeps;
mod writers;
