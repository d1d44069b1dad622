//! How protection treats a route.

use crate::protection::rule::RouteNumber;
use crate::protection::thresholds::RequestClass;

/// When a request above a threshold is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalMode {
    /// Before it is read.
    AtOnce,
    /// In the ledger, and only records of calls that are neither reserved nor recorded.
    UnlessKnown,
    /// Never: the request releases a hold or ends access.
    Never,
}

/// How protection treats a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteProtection {
    pub(crate) endpoint: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) route: RouteNumber,
    /// The class, which selects the thresholds.
    pub(crate) class: RequestClass,
    pub(crate) refusal: RefusalMode,
}
