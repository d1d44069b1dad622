//! The decisions of protection, in the form that the store keeps.
//!
//! Deliberately absent: the thresholds and the rule. They concern requests and not money, so the
//! server has them.

/// What protection measures, in the order of its checks, and what an override can be about.
///
/// The first refusal ends the checks. [`Dimension::Cost`] is not among them: a limit measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Requests of a window owner to one route in the last 60 seconds.
    Rate,
    /// Requests of a window owner in the last second.
    Burst,
    /// What the tenant spent on this UTC day.
    Cost,
    /// Requests of the last five minutes compared with the tenant's usual rate; never refuses.
    Anomaly,
}

impl Dimension {
    /// All dimensions, in the order of their checks.
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

/// A threshold that a request exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach {
    pub dimension: Dimension,
    /// When a retry may succeed, in milliseconds from now; 0 if the request is not refused.
    pub retry_after_ms: i64,
    /// The measured value, in requests.
    pub current_value: i64,
    /// The threshold, in the same unit.
    pub allowed_value: i64,
}

/// The decision of protection about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectionDecision {
    Allow,
    /// The request is handled, and the breach is reported.
    Warn(Breach),
    /// The client sends requests too fast, and should retry in a moment.
    Throttle(Breach),
    /// The tenant exceeds what it may use.
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

    /// The threshold that was exceeded, if any.
    pub const fn breach(&self) -> Option<&Breach> {
        match self {
            Self::Allow => None,
            Self::Warn(breach) | Self::Throttle(breach) | Self::Reject(breach) => Some(breach),
        }
    }
}
