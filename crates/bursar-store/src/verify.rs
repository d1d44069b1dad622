//! The ledger counted a second time: counters and rollups are compared with the entries they stand
//! for. Reads one snapshot and changes nothing.

use std::collections::{HashMap, HashSet};

use bursar_core::{
    Counter, CounterKey, EntryId, IntegrationId, Month, Overflow, TenantId, Timestamp, Totals,
};

use crate::error::StoreError;
use crate::rollup::{Grain, LabelKind, OTHER, Rollup, RollupFacts};

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

/// An entry as far as it is counted.
#[derive(Debug)]
pub(crate) struct CountedEntry<'a> {
    pub(crate) entry_id: EntryId,
    pub(crate) tenant_id: TenantId,
    pub(crate) integration_id: IntegrationId,
    pub(crate) occurred_at: Timestamp,
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) agent_id: Option<&'a str>,
    pub(crate) facts: RollupFacts,
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

/// What the entries and open reservations add up to.
#[derive(Default)]
pub(crate) struct Recount {
    counters: HashMap<CounterKey, (Totals, Totals)>,
    rollups: HashMap<CountedRollup, Rollup>,
    /// Which models and agents have rollups of their own.
    pub(crate) labels: HashSet<(TenantId, i64, String, String)>,
}

impl Recount {
    pub(crate) fn add_entry(&mut self, entry: &CountedEntry<'_>) -> Result<(), StoreError> {
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
        let (provider, model) =
            self.own(entry.tenant_id, LabelKind::Model, entry.provider, entry.model);
        let by_hour = CountedRollup {
            tenant_id: entry.tenant_id,
            integration_id: entry.integration_id,
            grain: Grain::Hour.code(),
            start: entry.occurred_at.hour().number(),
            provider,
            label: model,
        };
        let day = entry.occurred_at.day().number();
        let by_day = CountedRollup { grain: Grain::Day.code(), start: day, ..by_hour.clone() };
        if let Some(agent) = entry.agent_id {
            let (_, label) = self.own(entry.tenant_id, LabelKind::Agent, "", agent);
            let grain = Grain::AgentDay.code();
            let by_agent =
                CountedRollup { grain, provider: String::new(), label, ..by_day.clone() };
            self.rollups.entry(by_agent).or_default().add(&entry.facts);
        }
        self.rollups.entry(by_hour).or_default().add(&entry.facts);
        self.rollups.entry(by_day).or_default().add(&entry.facts);
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

    /// The provider and label under which a label's sums are kept.
    fn own(
        &self,
        tenant_id: TenantId,
        kind: LabelKind,
        provider: &str,
        label: &str,
    ) -> (String, String) {
        let key = (tenant_id, kind.code(), provider.to_owned(), label.to_owned());
        if self.labels.contains(&key) {
            return (key.2, key.3);
        }
        (OTHER.to_owned(), OTHER.to_owned())
    }
}
