//! Whether a request should go on now, whoever sends it.
//!
//! Here are the dimensions of protection, what they are held to, and the rule that is built in
//! ([`Counting`]); another one can take its place behind [`Protection`]. Deliberately absent: who
//! calls and what they may, where thresholds come from, and what a refusal looks like to a client.
//! It changes nothing elsewhere, and what it remembers is bounded however many tenants come.

mod activity;
mod recent;
mod slots;

use core::time::Duration;
use std::collections::HashMap;

use activity::Activity;
use recent::{Key, Recent};
use slots::Slots;

use crate::money::{NANOS_PER_CENT, cents_half_up};
use crate::{Day, IntegrationId, OnboardingState, TenantId, Timestamp};

const MICROS_PER_MILLI: i64 = 1_000;
/// The minute of a rate is looked at by whole seconds.
const RATE_SLOT_MICROS: i64 = 1_000_000;
const RATE_SLOTS: usize = 60;
/// The second of a burst is looked at by tenths.
const BURST_SLOT_MICROS: i64 = 100_000;
const BURST_SLOTS: usize = 10;
/// So many times what is usual is no accident.
const ANOMALY_FACTOR: i64 = 10;
/// How many times its thresholds a tenant has while it is being set up.
const SETUP_FACTOR: u32 = 10;
/// One tenant's integrations take at most this part of what is remembered.
const SHARE: u32 = 8;

/// What is looked at, in this order; the first refusal ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Requests of a window owner to one route in the last 60 seconds.
    Rate,
    /// Requests of a window owner in the last second.
    Burst,
    /// What the tenant spent on this UTC day.
    Cost,
    /// Requests of the last five minutes beside what is usual for the tenant; never refuses.
    Anomaly,
}

impl Dimension {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Rate, Self::Burst, Self::Cost, Self::Anomaly];

    /// The contract's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Burst => "burst",
            Self::Cost => "cost",
            Self::Anomaly => "anomaly",
        }
    }
}

/// What a request is, as far as thresholds tell requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// Management and reads.
    Management,
    /// Telemetry and decisions: the traffic of a tenant's own customers.
    Traffic,
    /// Calls through the gateway, whose pace its integration's limits hold.
    Gateway,
}

/// How fast requests of one class may come; 0 is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// To one route, in 60 seconds.
    pub requests_per_minute: u32,
    /// To all routes of the class, in a second.
    pub requests_per_second: u32,
}

impl Pace {
    const fn of_setup(self) -> Self {
        let Self { requests_per_minute, requests_per_second } = self;
        Self {
            requests_per_minute: requests_per_minute.saturating_mul(SETUP_FACTOR),
            requests_per_second: requests_per_second.saturating_mul(SETUP_FACTOR),
        }
    }
}

/// What a tenant is held to; 0 is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The pace of management and reads.
    pub management: Pace,
    /// The pace of telemetry and decisions.
    pub traffic: Pace,
    /// What may be spent on a UTC day, in cents, before decisions are refused.
    pub cost_cents_day: u32,
    /// Fewer requests than this in five minutes are never taken for usual, so that the first busy
    /// minute of a quiet tenant is no anomaly.
    pub anomaly_floor: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            management: Pace { requests_per_minute: 1_000, requests_per_second: 100 },
            traffic: Pace { requests_per_minute: 60_000, requests_per_second: 5_000 },
            cost_cents_day: 0,
            anomaly_floor: 10_000,
        }
    }
}

impl Thresholds {
    /// What a tenant is held to, when these are configured and it has these overrides.
    ///
    /// While it is being set up it has ten times the rate, the burst and the anomaly floor; a daily
    /// amount of money is never raised. An override is absolute: in its dimension the tenant has
    /// what it will have when it is set up.
    #[must_use]
    pub fn of_tenant(
        self,
        onboarding: OnboardingState,
        overrides: impl IntoIterator<Item = (Dimension, u32)>,
    ) -> Self {
        let mut in_force =
            if onboarding == OnboardingState::Complete { self } else { self.of_setup() };
        for (dimension, allowed) in overrides {
            in_force.take(dimension, &self.overridden(dimension, allowed));
        }
        in_force
    }

    const fn of_setup(self) -> Self {
        let Self { management, traffic, cost_cents_day, anomaly_floor } = self;
        Self {
            management: management.of_setup(),
            traffic: traffic.of_setup(),
            cost_cents_day,
            anomaly_floor: anomaly_floor.saturating_mul(SETUP_FACTOR),
        }
    }

    /// Takes the thresholds of one dimension from others.
    const fn take(&mut self, dimension: Dimension, from: &Self) {
        match dimension {
            Dimension::Rate => {
                self.management.requests_per_minute = from.management.requests_per_minute;
                self.traffic.requests_per_minute = from.traffic.requests_per_minute;
            }
            Dimension::Burst => {
                self.management.requests_per_second = from.management.requests_per_second;
                self.traffic.requests_per_second = from.traffic.requests_per_second;
            }
            Dimension::Cost => self.cost_cents_day = from.cost_cents_day,
            Dimension::Anomaly => self.anomaly_floor = from.anomaly_floor,
        }
    }

    /// The same, but for one dimension of this tenant; 0 is unlimited.
    ///
    /// Of rate and burst `allowed` takes the place of what management has. Below that, or when
    /// management has no threshold, the tenant is to be slowed down, and traffic gets the same;
    /// from there on traffic is only raised: what is allowed, or what traffic has if that is more.
    /// Of cost it is the cents a day, of anomaly the floor.
    #[must_use]
    pub const fn overridden(mut self, dimension: Dimension, allowed: u32) -> Self {
        let Self { management, traffic, .. } = &mut self;
        match dimension {
            Dimension::Rate => {
                let (before, other) = (management.requests_per_minute, traffic.requests_per_minute);
                traffic.requests_per_minute = overridden_traffic(before, other, allowed);
                management.requests_per_minute = allowed;
            }
            Dimension::Burst => {
                let (before, other) = (management.requests_per_second, traffic.requests_per_second);
                traffic.requests_per_second = overridden_traffic(before, other, allowed);
                management.requests_per_second = allowed;
            }
            Dimension::Cost => self.cost_cents_day = allowed,
            Dimension::Anomaly => self.anomaly_floor = allowed,
        }
        self
    }

    const fn pace(&self, class: RequestClass) -> Pace {
        match class {
            RequestClass::Management => self.management,
            RequestClass::Traffic => self.traffic,
            RequestClass::Gateway => Pace { requests_per_minute: 0, requests_per_second: 0 },
        }
    }
}

/// What traffic is held to when `allowed` takes the place of the threshold of management.
const fn overridden_traffic(management: u32, traffic: u32, allowed: u32) -> u32 {
    let is_slowed_down = allowed > 0 && (management == 0 || allowed < management);
    let is_raised = allowed == 0 || traffic > 0 && traffic < allowed;
    if is_slowed_down || is_raised { allowed } else { traffic }
}

/// A route of the API, by a number that the server gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route(pub u16);

/// In whose windows a request counts.
///
/// What is sent with the key of an integration counts in the windows of that integration alone, so
/// that one application cannot keep out the others, or the people who would stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowOwner {
    /// The tenant.
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
    pub route: Route,
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

/// A threshold that a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Of which dimension.
    pub dimension: Dimension,
    /// When to come again, in milliseconds from now; 0 for what is no refusal.
    pub retry_after_ms: i64,
    /// What was there: requests, of cost cents.
    pub current_value: i64,
    /// What is allowed, in the same unit.
    pub allowed_value: i64,
}

/// Whether a request should go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectionDecision {
    /// It goes on.
    Allow,
    /// It goes on, and someone should look.
    Warn(Breach),
    /// It comes too close to the one before, and should be sent again in a moment.
    Throttle(Breach),
    /// It is more than the tenant may.
    Reject(Breach),
}

impl ProtectionDecision {
    /// The contract's word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn(_) => "warn",
            Self::Throttle(_) => "throttle",
            Self::Reject(_) => "reject",
        }
    }

    /// Which threshold was met.
    pub const fn breach(&self) -> Option<&Breach> {
        match self {
            Self::Allow => None,
            Self::Warn(breach) | Self::Throttle(breach) | Self::Reject(breach) => Some(breach),
        }
    }
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

/// How much the rule that is built in remembers; beyond that the one idle the longest is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tenants, with what is usual for them; about 150 bytes each.
    pub tenants: u32,
    /// Window owners, with their bursts; about 200 bytes each.
    pub owners: u32,
    /// Routes of a window owner, with their minute; about 350 bytes each.
    pub routes: u32,
}

impl Capacity {
    /// How many windows there are at most.
    pub const fn windows_max(self) -> u32 {
        let Self { tenants, owners, routes } = self;
        tenants.saturating_add(owners).saturating_add(routes)
    }

    /// How many windows one tenant has at most, when it has so many routes: one for each, one over
    /// all of them, what is usual for it, and the shares of its integrations.
    pub const fn tenant_windows_max(self, routes: u32) -> u32 {
        let shared = self.owners / SHARE + self.routes / SHARE;
        shared.saturating_add(routes).saturating_add(2)
    }
}

/// The rule that is built in: it counts requests in sliding windows.
///
/// Never more than a rate's threshold go on in any 60 whole seconds, and never more than a burst's
/// in any ten tenths of a second; when a slot leaves, those that wait go on. However many
/// integrations a tenant has, they take an eighth of what is remembered, and then each other's
/// places.
#[derive(Debug)]
pub struct Counting {
    minutes: Recent<(WindowOwner, Route), Slots<RATE_SLOTS>>,
    seconds: Recent<WindowOwner, Seconds>,
    tenants: Recent<TenantId, Activity>,
}

/// What is counted of a window owner over all routes of a class.
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

impl Key for (WindowOwner, Route) {
    fn sharer(&self) -> Option<TenantId> {
        self.0.sharer()
    }
}

/// What one request is held to, moved on to its instant.
struct Counts<'a> {
    minute: Option<&'a mut Slots<RATE_SLOTS>>,
    second: Option<&'a mut Slots<BURST_SLOTS>>,
    activity: &'a mut Activity,
}

impl Protection for Counting {
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

impl Counting {
    /// A rule that remembers so much, and nothing yet.
    pub fn new(capacity: Capacity) -> Self {
        let Capacity { tenants, owners, routes } = capacity;
        Self {
            minutes: Recent::new(routes, routes / SHARE),
            seconds: Recent::new(owners, owners / SHARE),
            tenants: Recent::new(tenants, tenants),
        }
    }

    /// How many tenants, window owners, and routes of these it remembers.
    pub const fn remembered(&self) -> (usize, usize, usize) {
        (self.tenants.len(), self.seconds.len(), self.minutes.len())
    }

    /// Never nothing.
    fn counts(&mut self, request: &ProtectedRequest) -> Option<Counts<'_>> {
        let &ProtectedRequest { owner, route, class, thresholds, elapsed, .. } = request;
        let elapsed_micros = micros(elapsed);
        let mut minute = None;
        // A minute that nobody is held to takes no place.
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
            .or_else(|| over_cost(request).map(ProtectionDecision::Reject))
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

/// Whether a window is full, and when one more fits.
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

fn over_cost(request: &ProtectedRequest) -> Option<Breach> {
    let spent = request.cost_nanos_day?;
    let allowed = request.thresholds.cost_cents_day;
    if allowed == 0 || spent < i128::from(allowed) * i128::from(NANOS_PER_CENT) {
        return None;
    }
    let tomorrow = Day::from_number(request.now.day().number() + 1).start();
    Some(Breach {
        dimension: Dimension::Cost,
        retry_after_ms: millis_up(tomorrow.micros() - request.now.micros()),
        current_value: i64::try_from(cents_half_up(spent)).unwrap_or(i64::MAX),
        allowed_value: i64::from(allowed),
    })
}

fn micros(elapsed: Duration) -> i64 {
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds, rounded up; at least one.
fn millis_up(micros: i64) -> i64 {
    let ahead = micros.max(1);
    ahead.div_euclid(MICROS_PER_MILLI) + i64::from(ahead % MICROS_PER_MILLI > 0)
}
