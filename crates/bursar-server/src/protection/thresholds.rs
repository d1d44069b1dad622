//! What requests of a tenant are held to.

use bursar_core::{Dimension, OnboardingState};

/// How many times its thresholds a tenant has while it is being set up.
const SETUP_FACTOR: u32 = 10;

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

    pub(super) const fn pace(&self, class: RequestClass) -> Pace {
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
