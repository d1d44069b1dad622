//! Limits as data: what is measured, over which window, how much, and what happens beyond.

/// Whose calls a limit adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The calls of one integration.
    Integration,
}

/// What a limit adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Money, in nano-dollars.
    Cost,
    /// Tokens in and out.
    Tokens,
    Calls,
}

/// The time over which a limit adds up.
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
    /// Refused until the period ends, the limit is raised or holds go.
    Block,
    /// Refused for now; the decision says when to come again.
    Throttle,
}

/// One limit of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    pub scope: Scope,
    /// What is added up.
    pub measure: Measure,
    /// Over which time.
    pub window: Window,
    /// How much, in the unit of the measure; always above zero. Wider than an amount that is
    /// stored, because a limit in cents may exceed what nano-dollars hold in 64 bits.
    pub amount: i128,
    /// What happens beyond.
    pub action: Action,
    /// From this share of the amount on, in percent, a call is warned.
    pub warn_percent: Option<u8>,
}
