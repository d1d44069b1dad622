//! What protection asks of a route: its class, whether its cost is guarded, and what a refusal does to it.

use crate::protection::rule::RouteNumber;
use crate::protection::thresholds::RequestClass;

/// When a request that is over a threshold is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalMode {
    /// Before anything of it is read.
    AtOnce,
    /// By the ledger, and only records of calls that are neither reserved nor recorded.
    UnlessKnown,
    /// Not at all: it gives back what is held, or ends what someone must not use any more.
    Never,
}

/// A route as protection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteProtection {
    pub endpoint: &'static str,
    pub operation: &'static str,
    pub route: RouteNumber,
    /// Which thresholds hold.
    pub class: RequestClass,
    /// Whether it leads to cost.
    pub is_cost_guarded: bool,
    /// When it is refused.
    pub refusal: RefusalMode,
}
