//! The built-in protection: it counts requests in sliding windows.
//!
//! Its memory is bounded however many tenants there are.

mod activity;
mod lru_map;
mod slots;

use std::collections::HashMap;
use std::time::Duration;

use bursar_core::{Breach, Dimension, ProtectionDecision, TenantId};

use self::activity::Activity;
use self::lru_map::{Key, LruMap};
use self::slots::Slots;
use crate::protection::rule::{ProtectedRequest, Protection, RouteNumber, WindowOwner};
use crate::protection::thresholds::{Pace, RequestClass};

const MICROS_PER_MILLI: i64 = 1_000;
/// The minute of a rate is counted in seconds.
const RATE_SLOT_MICROS: i64 = 1_000_000;
const RATE_SLOTS: usize = 60;
/// The second of a burst is counted in tenths.
const BURST_SLOT_MICROS: i64 = 100_000;
const BURST_SLOTS: usize = 10;
/// This many times the usual activity counts as an anomaly.
const ANOMALY_FACTOR: i64 = 10;
/// The integrations of one tenant use at most this fraction of the capacity.
const SHARE: u32 = 8;

/// The capacity of the windows. Beyond it the least recently used one is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tenants with their usual activity; about 150 bytes each.
    pub tenants: u32,
    /// Window owners with their bursts; about 200 bytes each.
    pub owners: u32,
    /// Routes of window owners with their rate; about 350 bytes each.
    pub routes: u32,
}

impl Capacity {
    /// The most windows of all tenants.
    pub const fn windows_max(self) -> u32 {
        let Self { tenants, owners, routes } = self;
        tenants.saturating_add(owners).saturating_add(routes)
    }

    /// The most windows of one tenant with this many routes.
    ///
    /// One per route, one for all routes, its activity, and the share of its integrations.
    pub const fn tenant_windows_max(self, routes: u32) -> u32 {
        let shared = self.owners / SHARE + self.routes / SHARE;
        shared.saturating_add(routes).saturating_add(2)
    }
}

/// The built-in protection with sliding windows.
///
/// In any 60 whole seconds no more requests pass than the rate threshold, and in any ten tenths of
/// a second no more than the burst threshold. The integrations of one tenant use at most an eighth
/// of the capacity; beyond that they replace each other.
#[derive(Debug)]
pub struct SlidingWindows {
    minutes: LruMap<(WindowOwner, RouteNumber), Slots<RATE_SLOTS>>,
    seconds: LruMap<WindowOwner, Seconds>,
    tenants: LruMap<TenantId, Activity>,
}

/// The counts of a window owner over all routes of a class.
#[derive(Debug, Default)]
struct Seconds {
    management: Slots<BURST_SLOTS>,
    traffic: Slots<BURST_SLOTS>,
}

impl Key for TenantId {
    fn sharer(&self) -> Option<TenantId> {
        None
    }
}

impl Key for WindowOwner {
    fn sharer(&self) -> Option<TenantId> {
        self.integration_id.map(|_| self.tenant_id)
    }
}

impl Key for (WindowOwner, RouteNumber) {
    fn sharer(&self) -> Option<TenantId> {
        self.0.sharer()
    }
}

/// The windows that apply to one request, advanced to its time.
struct Counts<'a> {
    minute: Option<&'a mut Slots<RATE_SLOTS>>,
    second: Option<&'a mut Slots<BURST_SLOTS>>,
    activity: &'a mut Activity,
}

impl Protection for SlidingWindows {
    fn decide(&mut self, request: &ProtectedRequest) -> ProtectionDecision {
        let Some(mut counts) = self.counts(request) else { return ProtectionDecision::Allow };
        counts.refusal(request).unwrap_or_else(|| counts.count(request))
    }

    fn count(&mut self, request: &ProtectedRequest) -> ProtectionDecision {
        let Some(mut counts) = self.counts(request) else { return ProtectionDecision::Allow };
        counts.count(request)
    }

    fn windows(&self) -> Vec<(TenantId, usize)> {
        let of_tenants = self.tenants.keys().copied();
        let of_owners = self.seconds.keys().map(|owner| owner.tenant_id);
        let of_routes = self.minutes.keys().map(|(owner, _)| owner.tenant_id);
        let mut windows: HashMap<TenantId, usize> = HashMap::new();
        for tenant_id in of_tenants.chain(of_owners).chain(of_routes) {
            *windows.entry(tenant_id).or_default() += 1;
        }
        windows.into_iter().collect()
    }

    fn clear(&mut self, tenant_id: Option<TenantId>) -> usize {
        let is_gone = |of: TenantId| tenant_id.is_none_or(|gone| gone == of);
        self.tenants.forget(|of| is_gone(*of))
            + self.seconds.forget(|owner| is_gone(owner.tenant_id))
            + self.minutes.forget(|(owner, _)| is_gone(owner.tenant_id))
    }
}

impl SlidingWindows {
    pub fn new(capacity: Capacity) -> Self {
        let Capacity { tenants, owners, routes } = capacity;
        Self {
            minutes: LruMap::new(routes, routes / SHARE),
            seconds: LruMap::new(owners, owners / SHARE),
            tenants: LruMap::new(tenants, tenants),
        }
    }

    /// The number of tenants, window owners and routes in memory.
    pub const fn remembered(&self) -> (usize, usize, usize) {
        (self.tenants.len(), self.seconds.len(), self.minutes.len())
    }

    fn counts(&mut self, request: &ProtectedRequest) -> Option<Counts<'_>> {
        let &ProtectedRequest { owner, route, class, thresholds, elapsed, .. } = request;
        let elapsed_micros = micros(elapsed);
        let mut minute = None;
        // A route without a limit needs no window.
        if thresholds.pace(class).requests_per_minute > 0 {
            let slots = self.minutes.touch((owner, route))?;
            slots.advance(elapsed_micros / RATE_SLOT_MICROS);
            minute = Some(slots);
        }
        let Seconds { management, traffic } = self.seconds.touch(owner)?;
        let mut second = match class {
            RequestClass::Management => Some(management),
            RequestClass::Traffic => Some(traffic),
            RequestClass::Gateway => None,
        };
        if let Some(slots) = &mut second {
            slots.advance(elapsed_micros / BURST_SLOT_MICROS);
        }
        let activity = self.tenants.touch(owner.tenant_id)?;
        activity.advance(elapsed);
        Some(Counts { minute, second, activity })
    }
}

impl Counts<'_> {
    fn refusal(&self, request: &ProtectedRequest) -> Option<ProtectionDecision> {
        let Pace { requests_per_minute, requests_per_second } =
            request.thresholds.pace(request.class);
        let over_rate = self.minute.as_deref().and_then(|slots| {
            over(slots, Dimension::Rate, requests_per_minute, RATE_SLOT_MICROS, request.elapsed)
        });
        let over_burst = || {
            self.second.as_deref().and_then(|slots| {
                over(
                    slots,
                    Dimension::Burst,
                    requests_per_second,
                    BURST_SLOT_MICROS,
                    request.elapsed,
                )
            })
        };
        over_rate
            .map(ProtectionDecision::Reject)
            .or_else(|| over_burst().map(ProtectionDecision::Throttle))
    }

    fn count(&mut self, request: &ProtectedRequest) -> ProtectionDecision {
        if let Some(minute) = &mut self.minute {
            minute.add();
        }
        if let Some(second) = &mut self.second {
            second.add();
        }
        self.activity.add();
        let floor = i64::from(request.thresholds.anomaly_floor);
        let allowed_value = self.activity.mean().max(floor).saturating_mul(ANOMALY_FACTOR);
        let current_value = self.activity.current();
        if floor == 0 || current_value < allowed_value || !self.activity.raise() {
            return ProtectionDecision::Allow;
        }
        let dimension = Dimension::Anomaly;
        ProtectionDecision::Warn(Breach {
            dimension,
            retry_after_ms: 0,
            current_value,
            allowed_value,
        })
    }
}

/// Whether a window is full, and when one more request fits.
fn over<const N: usize>(
    slots: &Slots<N>,
    dimension: Dimension,
    allowed: u32,
    slot_micros: i64,
    elapsed: Duration,
) -> Option<Breach> {
    let (current_value, allowed_value) = (slots.total(), i64::from(allowed));
    if allowed == 0 || current_value < allowed_value {
        return None;
    }
    let fits_at_micros = slots.below(allowed_value).saturating_mul(slot_micros);
    Some(Breach {
        dimension,
        retry_after_ms: millis_up(fits_at_micros - micros(elapsed)),
        current_value,
        allowed_value,
    })
}

fn micros(elapsed: Duration) -> i64 {
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds, rounded up, and at least one.
fn millis_up(micros: i64) -> i64 {
    let ahead = micros.max(1);
    ahead.div_euclid(MICROS_PER_MILLI) + i64::from(ahead % MICROS_PER_MILLI > 0)
}
