//! Decisions, checks and reservations.

pub mod checks;
pub mod decision_view;
pub mod decisions;
pub mod estimate;
pub mod reservations;
