//! Decisions, checks and reservations.

pub mod checks;
pub mod decision_view;
pub mod decisions;
pub mod estimate;
pub mod reservations;

use crate::api::route::Routes;

pub fn routes() -> Routes {
    checks::routes().with(decisions::routes()).with(reservations::routes())
}
