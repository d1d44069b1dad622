//! What became of a request that met a threshold of protection: what the store keeps of it.
//!
//! Deliberately absent: the thresholds and the rule. They are about requests and not about money, so
//! the server has them.

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

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Burst => "burst",
            Self::Cost => "cost",
            Self::Anomaly => "anomaly",
        }
    }
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
    /// The word on the wire.
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
