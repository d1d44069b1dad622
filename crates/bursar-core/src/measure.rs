//! Measures as types, so that a cost is never compared with a number of calls.

use std::fmt;
use std::marker::PhantomData;

use crate::totals::Totals;

/// What a limit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Money, in nano-dollars.
    Cost,
    /// Input and output tokens.
    Tokens,
    Calls,
    /// Open reservations.
    Concurrent,
}

impl Measure {
    /// All measures, in the order in which decisions check them.
    pub const ALL: [Self; 4] = [Self::Cost, Self::Tokens, Self::Calls, Self::Concurrent];
}

/// The type of [`Measure::Cost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cost;
/// The type of [`Measure::Tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tokens;
/// The type of [`Measure::Calls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Calls;
/// The type of [`Measure::Concurrent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Concurrent;

/// A type that stands for a measure.
pub(crate) trait Measured {
    const MEASURE: Measure;
}

impl Measured for Cost {
    const MEASURE: Measure = Measure::Cost;
}

impl Measured for Tokens {
    const MEASURE: Measure = Measure::Tokens;
}

impl Measured for Calls {
    const MEASURE: Measure = Measure::Calls;
}

impl Measured for Concurrent {
    const MEASURE: Measure = Measure::Concurrent;
}

/// An amount in the unit of its measure.
///
/// 128 bits, because a limit in cents can exceed 64 bits of nano-dollars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity<M> {
    amount: i128,
    measure: PhantomData<M>,
}

impl<M> Quantity<M> {
    /// More than any sum, as the amount of a limit that refuses nothing.
    pub const UNLIMITED: Self = Self::new(i64::MAX as i128);

    pub const fn new(amount: i128) -> Self {
        Self { amount, measure: PhantomData }
    }

    pub const fn get(self) -> i128 {
        self.amount
    }

    pub(crate) const fn is_unlimited(&self) -> bool {
        self.amount >= Self::UNLIMITED.amount
    }
}

impl<M> fmt::Debug for Quantity<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.amount.fmt(f)
    }
}

/// Sums that contain a measure.
pub(crate) trait Sums<M> {
    fn quantity(&self) -> Quantity<M>;
}

impl Sums<Cost> for Totals {
    fn quantity(&self) -> Quantity<Cost> {
        Quantity::new(self.cost.get().into())
    }
}

impl Sums<Tokens> for Totals {
    fn quantity(&self) -> Quantity<Tokens> {
        Quantity::new(self.tokens.into())
    }
}

impl Sums<Calls> for Totals {
    fn quantity(&self) -> Quantity<Calls> {
        Quantity::new(self.calls.into())
    }
}

impl<M: Copy> Sums<M> for Quantity<M> {
    fn quantity(&self) -> Self {
        *self
    }
}
