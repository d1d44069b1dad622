//! Decisions, checks and reservations.

pub(crate) mod checks;
pub(crate) mod decision_view;
pub(crate) mod decisions;
pub(crate) mod estimate;
pub(crate) mod reservations;

use crate::api::route::Routes;

pub(crate) fn routes() -> Routes {
    checks::routes().with(decisions::routes()).with(reservations::routes())
}
