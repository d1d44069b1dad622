//! Rollups: what dashboards read, aggregated once a group.

use std::collections::BTreeMap;

use bursar_core::{CostSource, Entry, EntryKind, IntegrationId, PolicyResult, TenantId};

use crate::error::StoreError;

/// Buckets of the latency histogram.
pub const LATENCY_BUCKETS: usize = 16;

/// The upper bounds of the buckets in milliseconds, inclusive; the last bucket has none.
pub const LATENCY_BOUNDS_MS: [i64; LATENCY_BUCKETS - 1] =
    [50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 40_000];

/// Models of a tenant that have rollups of their own (contract, section 6).
pub(crate) const MODELS_MAX: i64 = 1_000;
/// Agents of a tenant that have rollups of their own: as bounded as models, but more, because
/// platforms make an agent for each of their users.
pub(crate) const AGENTS_MAX: i64 = 10_000;
/// Under which the others are added up.
pub const OTHER: &str = "other";

/// Which rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    /// An hour by model.
    Hour,
    /// A day by model.
    Day,
    /// A day by agent.
    AgentDay,
}

impl Grain {
    /// The stored code.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 2,
            Self::AgentDay => 3,
        }
    }
}

/// What a label names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LabelKind {
    Model,
    Agent,
}

impl LabelKind {
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Model => 1,
            Self::Agent => 2,
        }
    }

    pub(crate) const fn max(self) -> i64 {
        match self {
            Self::Model => MODELS_MAX,
            Self::Agent => AGENTS_MAX,
        }
    }
}

/// The key of a rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RollupKey<'a> {
    pub(crate) tenant_id: TenantId,
    pub(crate) integration_id: IntegrationId,
    pub(crate) grain: Grain,
    /// Hours or days since 1970.
    pub(crate) start: i32,
    pub(crate) provider: &'a str,
    pub(crate) label: &'a str,
}

/// The sums of a rollup. Every figure is exact; averages are taken when it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the contract's words")]
pub struct Rollup {
    pub calls: i64,
    /// Calls that neither failed nor were blocked.
    pub succeeded: i64,
    pub errors: i64,
    pub blocked: i64,
    /// Calls whose cost nobody knows.
    pub unpriced: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub tokens_cache_read: i64,
    pub tokens_cache_write: i64,
    pub tokens_reasoning: i64,
    pub cost_nanos: i64,
    /// Calls that came with a latency.
    pub latency_calls: i64,
    pub latency_sum_ms: i64,
    pub latency_buckets: [i64; LATENCY_BUCKETS],
}

impl Rollup {
    fn add(&mut self, entry: &Entry<'_>) {
        let usage = entry.usage;
        let is_call = match entry.kind {
            EntryKind::Usage => 1,
            EntryKind::Correction => 0,
        };
        let failed = usage.error_code.is_some();
        let blocked = usage.policy_result == PolicyResult::Blocked;
        self.calls += is_call;
        self.succeeded += if failed || blocked { 0 } else { is_call };
        self.errors += if failed { is_call } else { 0 };
        self.blocked += if blocked { is_call } else { 0 };
        self.unpriced += if entry.cost_source == CostSource::Unknown { is_call } else { 0 };
        self.tokens_in += usage.tokens.tokens_in();
        self.tokens_out += usage.tokens.tokens_out();
        self.tokens_cache_read += usage.tokens.cache_read();
        self.tokens_cache_write += usage.tokens.cache_write();
        self.tokens_reasoning += usage.tokens.reasoning();
        self.cost_nanos += entry.cost.get();
        if let Some(latency_ms) = usage.latency_ms {
            self.latency_calls += is_call;
            self.latency_sum_ms += latency_ms;
            let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| *bound < latency_ms);
            if let Some(count) = self.latency_buckets.get_mut(bucket) {
                *count += is_call;
            }
        }
    }
}

/// Whether a label has rollups of its own; asked once a group and label.
pub(crate) trait Labels {
    /// Whether this label is known, or may become known now.
    fn admit(
        &mut self,
        tenant_id: TenantId,
        kind: LabelKind,
        provider: &str,
        label: &str,
    ) -> Result<bool, StoreError>;
}

/// Adds the entries of a group up, in key order.
///
/// A group's sums cannot leave 64 bits: the counters of its months were checked before.
pub(crate) fn aggregate<'a>(
    entries: &[Entry<'a>],
    labels: &mut dyn Labels,
) -> Result<BTreeMap<RollupKey<'a>, Rollup>, StoreError> {
    let mut known: BTreeMap<(TenantId, LabelKind, &'a str, &'a str), bool> = BTreeMap::new();
    let mut admit = |tenant_id, kind, provider: &'a str, label: &'a str| {
        let key = (tenant_id, kind, provider, label);
        if let Some(known) = known.get(&key) {
            return Ok(*known);
        }
        let admitted = labels.admit(tenant_id, kind, provider, label)?;
        known.insert(key, admitted);
        Ok::<bool, StoreError>(admitted)
    };
    let mut rollups: BTreeMap<RollupKey<'a>, Rollup> = BTreeMap::new();
    for entry in entries {
        let usage = entry.usage;
        let (provider, model): (&str, &str) = (&usage.provider, &usage.model);
        let own = admit(entry.tenant_id, LabelKind::Model, provider, model)?;
        let (provider, model) = if own { (provider, model) } else { (OTHER, OTHER) };
        let by_hour = RollupKey {
            tenant_id: entry.tenant_id,
            integration_id: usage.integration_id,
            grain: Grain::Hour,
            start: entry.occurred_at.hour().number(),
            provider,
            label: model,
        };
        let day = entry.occurred_at.day().number();
        let by_day = RollupKey { grain: Grain::Day, start: day, ..by_hour };
        for key in [by_hour, by_day] {
            rollups.entry(key).or_default().add(entry);
        }
        if let Some(agent) = usage.agent_id.as_deref() {
            let own = admit(entry.tenant_id, LabelKind::Agent, "", agent)?;
            let label = if own { agent } else { OTHER };
            let by_agent = RollupKey { grain: Grain::AgentDay, provider: "", label, ..by_day };
            rollups.entry(by_agent).or_default().add(entry);
        }
    }
    Ok(rollups)
}
