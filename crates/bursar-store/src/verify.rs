//! The ledger counted a second time: counters and rollups are compared with the entries they stand
//! for. Reads one snapshot and changes nothing.

use std::collections::{HashMap, HashSet};

use bursar_core::{Counter, CounterKey, IntegrationId, Month, Overflow, TenantId, Totals};

use crate::error::StoreError;
use crate::rollup::{Label, Rollup, RollupEntry, RollupKey};

/// Differences that are told one by one; more are only counted.
const TOLD_MAX: usize = 1_000;

/// What a verification came to.
#[derive(Debug, Default)]
pub struct Verified {
    /// Entries that were counted.
    pub entries: u64,
    /// Open reservations that were counted.
    pub open_reservations: u64,
    /// Stored rows of counters that were compared.
    pub counters: u64,
    /// Stored rows of rollups that were compared.
    pub rollups: u64,
    /// All differences.
    pub differences: u64,
    /// The first of them, as sentences.
    pub told: Vec<String>,
}

impl Verified {
    pub(crate) fn differ(&mut self, sentence: impl FnOnce() -> String) {
        self.differences += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(sentence());
        }
    }
}

/// The key of a rollup, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CountedRollup {
    pub(crate) tenant_id: TenantId,
    pub(crate) integration_id: IntegrationId,
    pub(crate) grain: i64,
    pub(crate) start: i32,
    pub(crate) provider: String,
    pub(crate) label: String,
}

impl From<RollupKey<'_>> for CountedRollup {
    fn from(key: RollupKey<'_>) -> Self {
        let RollupKey { tenant_id, integration_id, grain, start, provider, label } = key;
        let (provider, label) = (provider.to_owned(), label.to_owned());
        Self { tenant_id, integration_id, grain: grain.code(), start, provider, label }
    }
}

/// What the entries and open reservations add up to.
#[derive(Default)]
pub(crate) struct Recount {
    counters: HashMap<CounterKey, (Totals, Totals)>,
    rollups: HashMap<CountedRollup, Rollup>,
    /// Which models and agents have rollups of their own.
    pub(crate) labels: HashSet<(TenantId, i64, String, String)>,
}

impl Recount {
    pub(crate) fn add_entry(&mut self, entry: &RollupEntry<'_>) -> Result<(), StoreError> {
        let key = CounterKey {
            tenant_id: entry.tenant_id,
            integration_id: entry.integration_id,
            month: entry.occurred_at.month(),
        };
        let calls = match entry.facts.kind {
            bursar_core::EntryKind::Usage => 1,
            bursar_core::EntryKind::Correction => 0,
        };
        let tokens = entry.facts.tokens.total();
        let amount = Totals { cost: entry.facts.cost, tokens, calls };
        let (used, _) = self.counters.entry(key).or_default();
        *used = used.plus(amount)?;
        let Self { rollups, labels, .. } = self;
        let is_admitted = |(tenant_id, kind, provider, label): Label<'_>| {
            labels.contains(&(tenant_id, kind.code(), provider.to_owned(), label.to_owned()))
        };
        for key in entry.keys(is_admitted) {
            rollups.entry(key.into()).or_default().add(&entry.facts);
        }
        Ok(())
    }

    pub(crate) fn add_hold(
        &mut self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
        amount: Totals,
    ) -> Result<(), Overflow> {
        let key = CounterKey { tenant_id, integration_id, month };
        let (_, held) = self.counters.entry(key).or_default();
        *held = held.plus(amount)?;
        Ok(())
    }

    /// Compares a stored counter, and takes it off the list.
    pub(crate) fn compare_counter(
        &mut self,
        key: CounterKey,
        stored: &Counter,
        verified: &mut Verified,
    ) {
        verified.counters += 1;
        let (used, held) = self.counters.remove(&key).unwrap_or_default();
        let of = || format!("{} of integration {}", key.month, key.integration_id);
        if stored.used != used {
            verified.differ(|| format!("{}: used is {:?}, counted {used:?}", of(), stored.used));
        }
        if stored.held != held {
            verified.differ(|| format!("{}: held is {:?}, counted {held:?}", of(), stored.held));
        }
    }

    /// Compares a stored rollup, and takes it off the list.
    pub(crate) fn compare_rollup(
        &mut self,
        key: &CountedRollup,
        stored: &Rollup,
        verified: &mut Verified,
    ) {
        verified.rollups += 1;
        let counted = self.rollups.remove(key).unwrap_or_default();
        if *stored != counted {
            verified.differ(|| format!("rollup {key:?} is {stored:?}, counted {counted:?}"));
        }
    }

    /// What was counted and is not stored at all.
    pub(crate) fn finish(self, verified: &mut Verified) {
        for (key, (used, held)) in self.counters {
            if (used, held) != (Totals::default(), Totals::default()) {
                verified.differ(|| {
                    let of = format!("{} of integration {}", key.month, key.integration_id);
                    format!("{of}: no counter, counted {used:?} and held {held:?}")
                });
            }
        }
        for (key, counted) in self.rollups {
            verified.differ(|| format!("no rollup {key:?}, counted {counted:?}"));
        }
    }
}
