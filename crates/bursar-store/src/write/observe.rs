//! What an observer is told of the write path: facts once they are durable, and what it took.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::time::Duration;

use bursar_core::{Book, CostSource, HoldChange, Nanos, ReservationState, TenantId};

use crate::error::StoreError;
use crate::read::tenant_sums::bytes_of_integrations;
use crate::rows::rollup::{Rollup, RollupFacts};

/// Someone who watches the writer, such as metrics.
///
/// The writer waits for every method, so an observer must neither block nor panic.
pub trait Observer: Send + Sync {
    /// The writer took commands from the queue, which it goes on to write.
    fn dequeued(&self, _dequeued: Dequeued) {}

    /// A transaction is durable: of a group, a part of one, or a change of the control plane.
    fn committed(&self, _timing: TransactionTiming) {}

    /// What the commands of a durable transaction came to. Told once, however often the
    /// transaction was tried; never told when it is unknown whether it is durable.
    fn written(&self, _facts: &Facts<'_>) {}

    /// An attempt at a transaction failed; it may be tried again.
    fn failed(&self, _error: &StoreError) {}
}

/// An observer that does not look.
#[derive(Clone, Copy, Debug)]
pub struct NoopObserver;

impl Observer for NoopObserver {}

/// What the writer took from the queue in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dequeued {
    /// How many commands; a record of a batch is one.
    pub commands: usize,
    /// For how long the oldest of them had waited.
    pub waited: Duration,
}

/// How long a durable transaction took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionTiming {
    /// From its begin to the end of its commit.
    pub transaction: Duration,
    /// The commit alone, which is mostly the disk's sync.
    pub commit: Duration,
}

/// What the commands of a transaction came to.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// The sums of the new entries by tenant and model; without corrections below zero.
    pub models: HashMap<ModelKey<'a>, Rollup>,
    /// The same entries by where their cost comes from.
    pub costs: CostFacts,
    /// What happened to reservations.
    pub holds: HoldFacts,
    /// Bytes of new entries by tenant, as the cap of a day counts them.
    pub bytes: HashMap<TenantId, i64>,
}

/// A model of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelKey<'a> {
    pub tenant_id: TenantId,
    pub provider: &'a str,
    pub model: &'a str,
}

/// Costs by whose figure they are, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostFacts([i64; CostFacts::SOURCES.len()]);

impl CostFacts {
    const SOURCES: [CostSource; 4] =
        [CostSource::Reported, CostSource::Computed, CostSource::Held, CostSource::Unknown];

    /// Every source with its nano-dollars.
    pub fn iter(&self) -> impl Iterator<Item = (CostSource, i64)> {
        Self::SOURCES.into_iter().zip(self.0)
    }

    fn add(&mut self, source: CostSource, cost: Nanos) {
        let place = Self::SOURCES.into_iter().position(|known| known == source);
        if let Some(sum) = place.and_then(|place| self.0.get_mut(place)) {
            *sum = sum.saturating_add(cost.get());
        }
    }
}

/// How many reservations came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldFacts {
    pub made: u64,
    pub extended: u64,
    pub settled: u64,
    pub released: u64,
    pub expired: u64,
}

/// Counts one more; there are never as many as its integer holds.
const fn count(figure: &mut u64) {
    *figure = figure.saturating_add(1);
}

impl<'a> Facts<'a> {
    /// The facts of a book whose commands were applied and are about to be saved.
    ///
    /// # Errors
    /// [`StoreError::TotalsOverflow`] of a group whose sums do not fit; half of it may.
    pub(crate) fn of(book: &Book<'a>) -> Result<Self, StoreError> {
        let mut facts = Self::default();
        for ((tenant_id, _), bytes) in bytes_of_integrations(book.entries()) {
            let sum = facts.bytes.entry(tenant_id).or_default();
            *sum = sum.saturating_add(bytes);
        }
        // Counters of an observer only grow; a correction below zero has no place in them.
        for entry in book.entries().iter().filter(|entry| entry.cost >= Nanos::ZERO) {
            let usage = entry.usage;
            let key = ModelKey {
                tenant_id: entry.tenant_id,
                provider: &usage.provider,
                model: &usage.model,
            };
            facts.models.entry(key).or_default().add(&Rollup::of(&RollupFacts::of(entry)))?;
            facts.costs.add(entry.cost_source, entry.cost);
        }
        for change in book.holds() {
            match change {
                HoldChange::Made(_) => count(&mut facts.holds.made),
                HoldChange::Extended { .. } => count(&mut facts.holds.extended),
                HoldChange::Ended(hold) => {
                    let call = book.calls().get(&(hold.tenant_id, hold.call));
                    let reservation = call.and_then(|call| call.reservation.as_ref());
                    match reservation.map(|reservation| reservation.state) {
                        Some(ReservationState::Settled) => count(&mut facts.holds.settled),
                        Some(ReservationState::Released) => count(&mut facts.holds.released),
                        // Nobody loads the calls of holds that only expire. An ended one is not
                        // open, unless the book is wrong, and then it is not saved.
                        Some(ReservationState::Expired | ReservationState::Open) | None => {
                            count(&mut facts.holds.expired);
                        }
                    }
                }
            }
        }
        Ok(facts)
    }
}
