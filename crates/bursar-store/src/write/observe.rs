//! The trait [`Observer`], which reports the write path to metrics.
//!
//! Facts are reported after they are durable.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bursar_core::{
    Book, CostSource, Hold, HoldChange, IntegrationId, Nanos, ReservationState, TenantId,
};

use crate::error::StoreError;
use crate::read::tenant_sums::bytes_of_integrations;
use crate::rows::rollup::RollupFacts;
use crate::rows::rollup_columns::Rollup;

/// An observer of the writers, such as metrics.
///
/// The writer waits for every method. An implementation must neither block nor panic.
pub trait Observer: Send + Sync {
    /// The writer took commands from the queue, and is about to write them.
    fn dequeued(&self, _dequeued: Dequeued) {}

    /// A transaction is durable: a group, a part of one, or a change of the control plane.
    fn committed(&self, _timing: TransactionTiming) {}

    /// The facts of a durable transaction.
    ///
    /// They are reported once, even if the transaction was retried, and never if the result of the
    /// commit is unknown.
    fn written(&self, _facts: &Facts<'_>) {}

    /// An attempt at a transaction failed; the writer may retry it.
    fn failed(&self, _error: &StoreError) {}
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug)]
pub struct NoopObserver;

impl Observer for NoopObserver {}

/// What the writer took from the queue at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dequeued {
    /// The number of commands; each record of a batch is one.
    pub commands: usize,
    /// How long the oldest of them had waited.
    pub waited: Duration,
}

/// How long a durable transaction took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionTiming {
    /// From the begin to the end of the commit.
    pub transaction: Duration,
    /// The commit alone, which is mostly the sync of the disk.
    pub commit: Duration,
}

/// The facts that a transaction stored.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// The sums of the new entries by tenant and model, without negative corrections.
    pub models: HashMap<ModelKey<'a>, Rollup>,
    /// The costs of the same entries by source.
    pub costs: CostFacts,
    /// Changes of reservations.
    pub holds: HoldFacts,
    /// Holds that expired without a record, by integration.
    pub expired: BTreeMap<(TenantId, IntegrationId), ExpiredHolds>,
    /// Bytes of new entries by tenant, as the daily cap counts them.
    pub bytes: HashMap<TenantId, i64>,
}

/// Holds of an integration that expired, because their calls were neither recorded nor released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredHolds {
    pub holds: u64,
    pub cost_nanos: i64,
    pub tokens: i64,
}

/// A model of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelKey<'a> {
    pub tenant_id: TenantId,
    pub provider: &'a str,
    pub model: &'a str,
}

/// Costs by source, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostFacts([i64; CostFacts::SOURCES.len()]);

impl CostFacts {
    const SOURCES: [CostSource; 4] =
        [CostSource::Reported, CostSource::Computed, CostSource::Held, CostSource::Unknown];

    /// All sources with their costs in nano-dollars.
    pub fn iter(&self) -> impl Iterator<Item = (CostSource, i64)> {
        Self::SOURCES.into_iter().zip(self.0)
    }

    fn add(&mut self, source: CostSource, cost: Nanos) {
        let index = Self::SOURCES.into_iter().position(|known| known == source);
        if let Some(sum) = index.and_then(|index| self.0.get_mut(index)) {
            *sum = sum.saturating_add(cost.get());
        }
    }
}

/// The number of reservations that changed, by change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldFacts {
    pub made: u64,
    pub extended: u64,
    pub settled: u64,
    pub released: u64,
    pub expired: u64,
}

impl ExpiredHolds {
    fn add(&mut self, hold: &Hold) {
        count(&mut self.holds);
        self.cost_nanos = self.cost_nanos.saturating_add(hold.amount.cost.get());
        self.tokens = self.tokens.saturating_add(hold.amount.tokens);
    }
}

/// Adds one; a transaction never has enough changes to saturate.
const fn count(figure: &mut u64) {
    *figure = figure.saturating_add(1);
}

impl<'a> Facts<'a> {
    /// The facts of a book, before it is saved.
    ///
    /// # Errors
    /// [`StoreError::TotalsOverflow`] if the sums of the group do not fit; those of half of the
    /// group may.
    pub(crate) fn of(book: &Book<'a>) -> Result<Self, StoreError> {
        let mut facts = Self::default();
        for ((tenant_id, _), bytes) in bytes_of_integrations(book.entries()) {
            let sum = facts.bytes.entry(tenant_id).or_default();
            *sum = sum.saturating_add(bytes);
        }
        // The counters of metrics only grow, so negative corrections are left out.
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
                        // The calls of holds that only expire are not loaded.
                        Some(ReservationState::Expired | ReservationState::Open) | None => {
                            count(&mut facts.holds.expired);
                            // If a late record is in the same group, its call was recorded, and the hold is not
                            // counted.
                            if call.is_none_or(|call| book.entry_id(call).is_none()) {
                                let key = (hold.tenant_id, hold.integration_id);
                                facts.expired.entry(key).or_default().add(hold);
                            }
                        }
                    }
                }
            }
        }
        Ok(facts)
    }
}
