//! The thresholds of protection, which the operator can override for a tenant.

use crate::config::section::section;
use crate::config::values::Whole;
use crate::protection::thresholds::{Pace, Thresholds};

/// A threshold. No deployment has a reason for more than the maximum.
type Threshold = Whole<0, 1_000_000_000>;

section! {
    /// The thresholds of protection, which the operator can override for a tenant.
    pub(crate) struct ProtectionSettings in "protection" {
        /// Management requests and reads that a tenant, or an integration by its own key, may send
        /// to one route in 60 seconds. 0: unlimited.
        pub(crate) requests_per_minute: Threshold = 1_000,
        /// Management requests and reads that a tenant, or an integration by its own key, may send
        /// in a second. 0: unlimited.
        pub(crate) requests_per_second: Threshold = 100,
        /// Telemetry writes and decisions that a tenant, or an integration by its own key, may
        /// send to one route in 60 seconds. 0: unlimited.
        pub(crate) traffic_per_minute: Threshold = 60_000,
        /// Telemetry writes and decisions that a tenant, or an integration by its own key, may
        /// send in a second. 0: unlimited.
        pub(crate) traffic_per_second: Threshold = 5_000,
        /// Cents that each tenant may spend on a UTC day. It is a limit like a budget: exact, shared
        /// by all nodes, and a call that does not fit is `blocked` with `budget_exceeded`. While it
        /// is set, every reservation needs an estimate of its cost (422 `ESTIMATE_REQUIRED`). 0:
        /// unlimited.
        pub(crate) cost_cents_day: Threshold = 0,
        /// Lowest number of requests of a tenant in five minutes that counts as usual. Ten times
        /// the usual number is an anomaly. 0: anomalies are not detected.
        pub(crate) anomaly_floor: Threshold = 10_000,
    }
}

impl ProtectionSettings {
    /// What each tenant may spend on a UTC day, in cents; 0 means unlimited.
    pub(crate) fn cost_cents_per_day(&self) -> u32 {
        self.cost_cents_day.to_u32()
    }

    /// The thresholds as protection takes them.
    pub(crate) fn thresholds(&self) -> Thresholds {
        Thresholds {
            management: Pace {
                requests_per_minute: self.requests_per_minute.to_u32(),
                requests_per_second: self.requests_per_second.to_u32(),
            },
            traffic: Pace {
                requests_per_minute: self.traffic_per_minute.to_u32(),
                requests_per_second: self.traffic_per_second.to_u32(),
            },
            anomaly_floor: self.anomaly_floor.to_u32(),
        }
    }
}
