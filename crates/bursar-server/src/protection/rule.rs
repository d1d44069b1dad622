//! Whether a request should go on now, whoever sends it: what a rule is asked and answers.
//!
//! `SlidingWindows` is the rule that is built in; another one can take its
//! place behind [`Protection`]. Deliberately absent: who calls and what they may, where thresholds
//! come from, and what a refusal looks like to a client.

use std::time::Duration;

use bursar_core::{IntegrationId, ProtectionDecision, TenantId, Timestamp};

use crate::protection::thresholds::{RequestClass, Thresholds};

/// A route of the API, by a number that the server gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteNumber(pub u16);

/// In whose windows a request counts.
///
/// What is sent with the key of an integration counts in the windows of that integration alone, so
/// that one application cannot keep out the others, or the people who would stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowOwner {
    pub tenant_id: TenantId,
    /// The integration whose key the request came with; none when it came with another credential.
    pub integration_id: Option<IntegrationId>,
}

/// A request as protection sees it.
#[derive(Clone, Copy, Debug)]
pub struct ProtectedRequest {
    /// In whose windows it counts.
    pub owner: WindowOwner,
    /// To which route.
    pub route: RouteNumber,
    /// Of which class.
    pub class: RequestClass,
    /// What the tenant is held to.
    pub thresholds: Thresholds,
    /// What the tenant spent on this UTC day, in nano-dollars; nothing where no cost is guarded.
    pub cost_nanos_day: Option<i128>,
    /// The time that tells which day it is.
    pub now: Timestamp,
    /// When, by a monotonic clock: windows move by it, whatever becomes of the time.
    pub elapsed: Duration,
}

/// What decides whether a request should go on now.
///
/// An implementation must not look at anything but the request and its own memory, must bound that
/// memory, and must not count a request that it refuses: a client that repeats a refused request
/// would never be let in again.
pub trait Protection: Send {
    /// Decides about a request, and counts it if it goes on.
    fn decide(&mut self, request: &ProtectedRequest) -> ProtectionDecision;

    /// Counts a request that goes on whatever its thresholds say; at most it warns.
    fn count(&mut self, request: &ProtectedRequest) -> ProtectionDecision;

    /// How many windows it remembers of each tenant that has some, in no order.
    fn windows(&self) -> Vec<(TenantId, usize)>;

    /// Forgets the windows of one tenant, or all of them, and says how many there were. What comes
    /// next is decided as if nothing had come before.
    fn clear(&mut self, tenant_id: Option<TenantId>) -> usize;
}
