//! The interface of the decision whether a request may pass.
//!
//! `SlidingWindows` is the built-in implementation; another one can replace it behind
//! [`Protection`]. Deliberately absent: authentication and authorization, the source of thresholds,
//! and the response to a client.

use std::time::Duration;

use bursar_core::{IntegrationId, ProtectionDecision, TenantId, Timestamp};

use crate::protection::thresholds::{RequestClass, Thresholds};

/// The number of a protected route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteNumber(pub u16);

/// The owner of the windows in which a request counts.
///
/// Requests with an integration key count for that integration only, so that one application cannot
/// lock out the others or the administrators who would stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowOwner {
    pub tenant_id: TenantId,
    /// The integration of an integration key. `None` for other credentials.
    pub integration_id: Option<IntegrationId>,
}

/// A request as protection sees it.
#[derive(Clone, Copy, Debug)]
pub struct ProtectedRequest {
    pub owner: WindowOwner,
    pub route: RouteNumber,
    pub class: RequestClass,
    /// The tenant's thresholds.
    pub thresholds: Thresholds,
    /// The store's time, which is shown with a signal.
    pub now: Timestamp,
    /// The monotonic time by which windows move.
    pub elapsed: Duration,
}

/// Decides whether requests may pass.
///
/// An implementation must depend only on the request and its own memory, and must bound that
/// memory. It must not count a request that it refuses: a client that repeats a refused request
/// would never be admitted again.
pub trait Protection: Send {
    /// Decides about a request, and counts it if it passes.
    fn decide(&mut self, request: &ProtectedRequest) -> ProtectionDecision;

    /// Counts a request that passes whatever its thresholds say. The decision is a warning at most.
    fn count(&mut self, request: &ProtectedRequest) -> ProtectionDecision;

    /// The number of windows of each tenant, in no particular order.
    fn windows(&self) -> Vec<(TenantId, usize)>;

    /// Removes the windows of one tenant or of all. Returns their number.
    ///
    /// Later requests are decided as if none had come before.
    fn clear(&mut self, tenant_id: Option<TenantId>) -> usize;
}
