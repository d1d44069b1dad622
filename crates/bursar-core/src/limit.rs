//! Limits as data: measure, window, amount and action.

/// The calls that a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The calls of one integration.
    Integration,
}

/// What a limit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Money, in nano-dollars.
    Cost,
    /// Input and output tokens.
    Tokens,
    Calls,
}

/// The period over which a limit adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The UTC calendar month.
    Month,
    /// The last 60 seconds, to the second.
    Minute,
}

/// What happens to a call that would exceed the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Refuse it until the period ends, the limit is raised or holds end.
    Block,
    /// Refuse it for now; the decision says when to retry.
    Throttle,
}

/// One limit of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    pub scope: Scope,
    pub measure: Measure,
    pub window: Window,
    /// The amount, in the unit of the measure; 0 means unlimited.
    ///
    /// 128 bits, because a limit in cents can exceed 64 bits of nano-dollars.
    pub amount: i128,
    pub action: Action,
    /// The share of the amount, in percent, from which on calls get a warning.
    pub warn_percent: Option<u8>,
}
