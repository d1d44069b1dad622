//! Tests of the rules, without storage.

mod book;
mod clock;
mod dependencies;
mod fuzz;
mod limit_periods;
mod limit_sequences;
mod limits;
mod model;
mod order;
mod records;
mod reservations;
mod settlements;
mod support;
