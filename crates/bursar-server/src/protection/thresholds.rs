//! The thresholds of tenants.

use bursar_core::{Dimension, OnboardingState};

/// The factor on the thresholds of a tenant during onboarding.
const SETUP_FACTOR: u32 = 10;

/// The class of a request, which selects its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// Management and reads.
    Management,
    /// Usage records and decisions, sent along with a tenant's own traffic.
    Traffic,
    /// Calls through the gateway, which the integration's limits control.
    Gateway,
}

/// The rate thresholds of one class. 0 means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// To one route, in 60 seconds.
    pub requests_per_minute: u32,
    /// To all routes of the class, in one second.
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

/// The thresholds of a tenant. 0 means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// For management and reads.
    pub management: Pace,
    /// For usage records and decisions.
    pub traffic: Pace,
    /// The least usual activity in five minutes.
    ///
    /// It keeps the first busy minute of a quiet tenant from being an anomaly.
    pub anomaly_floor: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            management: Pace { requests_per_minute: 1_000, requests_per_second: 100 },
            traffic: Pace { requests_per_minute: 60_000, requests_per_second: 5_000 },
            anomaly_floor: 10_000,
        }
    }
}

impl Thresholds {
    /// The thresholds of a tenant: these, adjusted for onboarding and overrides.
    ///
    /// During onboarding they are ten times as high. An override is absolute and not multiplied.
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
        let Self { management, traffic, anomaly_floor } = self;
        Self {
            management: management.of_setup(),
            traffic: traffic.of_setup(),
            anomaly_floor: anomaly_floor.saturating_mul(SETUP_FACTOR),
        }
    }

    /// Copies the thresholds of one dimension.
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
            // The ledger has it: an override of the cost is that of a limit.
            Dimension::Cost => {}
            Dimension::Anomaly => self.anomaly_floor = from.anomaly_floor,
        }
    }

    /// Applies an override of one dimension. 0 means unlimited.
    ///
    /// For rate and burst, `allowed` replaces the threshold of management. If that lowers it, or if
    /// management was unlimited, the tenant is to be slowed down, and traffic gets the same
    /// threshold. Otherwise traffic is only raised: to `allowed`, if that is more than it has. For
    /// anomaly it is the floor. For cost nothing changes: the ledger applies it.
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
            // The ledger has it.
            Dimension::Cost => {}
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

/// The threshold of traffic when `allowed` replaces the threshold of management.
const fn overridden_traffic(management: u32, traffic: u32, allowed: u32) -> u32 {
    let is_slowed_down = allowed > 0 && (management == 0 || allowed < management);
    let is_raised = allowed == 0 || traffic > 0 && traffic < allowed;
    if is_slowed_down || is_raised { allowed } else { traffic }
}
