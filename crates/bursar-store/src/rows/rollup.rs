//! Rollups: sums by hour and day for reports, aggregated once for each group.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bursar_core::{
    CostSource, Entry, EntryKind, IntegrationId, Nanos, PolicyResult, TenantId, Timestamp,
    TokenBuckets,
};

use crate::error::StoreError;
use crate::rows::rollup_columns::{LATENCY_BOUNDS_MS, LATENCY_BUCKETS, Rollup};

/// The limit on the models of a tenant that have rollups of their own.
pub(crate) const MODELS_MAX: i64 = 1_000;
/// The limit on the agents. It is larger, because platforms create an agent for each of their users.
pub(crate) const AGENTS_MAX: i64 = 10_000;
/// The label of the rollups of all other models or agents.
pub const OTHER: &str = "other";

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

/// The kind of a label.
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

/// The figures of one entry that its rollups need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollupFacts {
    pub(crate) kind: EntryKind,
    pub(crate) tokens: TokenBuckets,
    pub(crate) cost: Nanos,
    pub(crate) cost_source: CostSource,
    pub(crate) latency_ms: Option<i64>,
    pub(crate) policy_result: PolicyResult,
    pub(crate) failed: bool,
}

impl RollupFacts {
    pub(crate) fn of(entry: &Entry<'_>) -> Self {
        let usage = entry.usage;
        Self {
            kind: entry.kind,
            tokens: usage.tokens,
            cost: entry.cost,
            cost_source: entry.cost_source,
            latency_ms: usage.latency_ms,
            policy_result: usage.policy_result,
            failed: usage.error_code.is_some(),
        }
    }
}

impl Rollup {
    /// The rollup of a single entry.
    pub(crate) fn of(facts: &RollupFacts) -> Self {
        let is_call = match facts.kind {
            EntryKind::Usage => 1,
            EntryKind::Correction => 0,
        };
        let blocked = facts.policy_result == PolicyResult::Blocked;
        let counted_if = |is_so: bool| if is_so { is_call } else { 0 };
        let mut latency_buckets = [0; LATENCY_BUCKETS];
        if let Some(latency_ms) = facts.latency_ms {
            let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| *bound < latency_ms);
            if let Some(count) = latency_buckets.get_mut(bucket) {
                *count = is_call;
            }
        }
        Self {
            calls: is_call,
            succeeded: counted_if(!facts.failed && !blocked),
            errors: counted_if(facts.failed),
            blocked: counted_if(blocked),
            unpriced: counted_if(facts.cost_source == CostSource::Unknown),
            tokens_in: facts.tokens.tokens_in(),
            tokens_out: facts.tokens.tokens_out(),
            tokens_cache_read: facts.tokens.counts().cache_read,
            tokens_cache_write: facts.tokens.counts().cache_write,
            tokens_reasoning: facts.tokens.counts().reasoning,
            cost_nanos: facts.cost.get(),
            latency_calls: counted_if(facts.latency_ms.is_some()),
            latency_sum_ms: facts.latency_ms.unwrap_or(0),
            latency_buckets,
        }
    }
}

/// A label of a tenant: a model of a provider, or an agent.
pub(crate) type Label<'a> = (TenantId, LabelKind, &'a str, &'a str);

/// Decides which labels have rollups of their own.
pub(crate) trait Labels {
    /// Returns the labels among `wanted` that are known or are added now, within the limits.
    ///
    /// It is called once for each group.
    fn admit<'a>(
        &mut self,
        wanted: &BTreeSet<Label<'a>>,
    ) -> Result<BTreeSet<Label<'a>>, StoreError>;
}

/// The key of entries that count in the same rollups, whichever labels are admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct EntryGroup<'a> {
    tenant_id: TenantId,
    integration_id: IntegrationId,
    /// Hours since 1970. An hour is within one day.
    hour: i32,
    provider: &'a str,
    model: &'a str,
    agent_id: Option<&'a str>,
}

/// The part of an entry that rollups need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollupEntry<'a> {
    pub(crate) tenant_id: TenantId,
    pub(crate) integration_id: IntegrationId,
    pub(crate) occurred_at: Timestamp,
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) agent_id: Option<&'a str>,
    pub(crate) facts: RollupFacts,
}

impl<'a> RollupEntry<'a> {
    fn of(entry: &Entry<'a>) -> Self {
        let usage = entry.usage;
        Self {
            tenant_id: entry.tenant_id,
            integration_id: usage.integration_id,
            occurred_at: entry.occurred_at,
            provider: &usage.provider,
            model: &usage.model,
            agent_id: usage.agent_id.as_deref(),
            facts: RollupFacts::of(entry),
        }
    }

    fn group(&self) -> EntryGroup<'a> {
        EntryGroup {
            tenant_id: self.tenant_id,
            integration_id: self.integration_id,
            hour: self.occurred_at.hour().number(),
            provider: self.provider,
            model: self.model,
            agent_id: self.agent_id,
        }
    }

    fn model_label(&self) -> Label<'a> {
        (self.tenant_id, LabelKind::Model, self.provider, self.model)
    }

    fn agent_label(&self) -> Option<Label<'a>> {
        self.agent_id.map(|agent| (self.tenant_id, LabelKind::Agent, "", agent))
    }

    /// The rollups in which the entry counts. A label that is not admitted counts as [`OTHER`].
    pub(crate) fn keys(
        &self,
        is_admitted: impl Fn(Label<'a>) -> bool,
    ) -> impl Iterator<Item = RollupKey<'a>> {
        let model = self.model_label();
        let own = is_admitted(model);
        let (provider, label) = if own { (model.2, model.3) } else { (OTHER, OTHER) };
        let by_hour = RollupKey {
            tenant_id: self.tenant_id,
            integration_id: self.integration_id,
            grain: Grain::Hour,
            start: self.occurred_at.hour().number(),
            provider,
            label,
        };
        let day = self.occurred_at.day().number();
        let by_day = RollupKey { grain: Grain::Day, start: day, ..by_hour };
        let by_agent = self.agent_label().map(|agent| {
            let label = if is_admitted(agent) { agent.3 } else { OTHER };
            RollupKey { grain: Grain::AgentDay, provider: "", label, ..by_day }
        });
        [Some(by_hour), Some(by_day), by_agent].into_iter().flatten()
    }
}

/// Adds up the entries of a group, in key order.
///
/// Most of these sums cannot overflow, because the counters of the months were checked before. Sums
/// of latencies can, and are refused here.
pub(crate) fn aggregate<'a>(
    entries: &[Entry<'a>],
    labels: &mut dyn Labels,
) -> Result<BTreeMap<RollupKey<'a>, Rollup>, StoreError> {
    // Most entries of a group count in the same few rollups. They are added up first, so that the
    // keys of their rollups are compared only once.
    let mut groups: HashMap<EntryGroup<'a>, (RollupEntry<'a>, Rollup)> = HashMap::new();
    for entry in entries.iter().map(RollupEntry::of) {
        let (_, sum) = groups.entry(entry.group()).or_insert((entry, Rollup::default()));
        sum.add(&Rollup::of(&entry.facts))?;
    }
    let mut wanted = BTreeSet::new();
    for (entry, _) in groups.values() {
        wanted.insert(entry.model_label());
        wanted.extend(entry.agent_label());
    }
    let admitted = labels.admit(&wanted)?;
    let mut rollups: BTreeMap<RollupKey<'a>, Rollup> = BTreeMap::new();
    for (entry, sum) in groups.values() {
        for key in entry.keys(|label| admitted.contains(&label)) {
            rollups.entry(key).or_default().add(sum)?;
        }
    }
    Ok(rollups)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are small")]
mod tests {
    use bursar_core::{CallId, EntryId, Usage};

    use super::*;

    /// Admits all labels except one model and one agent.
    struct AllButTwo;

    impl Labels for AllButTwo {
        fn admit<'a>(
            &mut self,
            wanted: &BTreeSet<Label<'a>>,
        ) -> Result<BTreeSet<Label<'a>>, StoreError> {
            let is_admitted = |label: &&Label<'a>| label.3 != "model-1" && label.3 != "agent-1";
            Ok(wanted.iter().filter(is_admitted).copied().collect())
        }
    }

    fn usage(number: i64) -> Usage {
        let cost = Some(Nanos::new(number * 7));
        let provider = if number % 5 == 0 { "anthropic" } else { "openai" };
        let integration_id = IntegrationId::from_number(number % 2 + 1).expect("in range");
        let call_id = CallId::new(format!("call-{number}")).expect("a call id");
        let model = format!("model-{}", number % 3);
        Usage {
            agent_id: (number % 4 > 0).then(|| format!("agent-{}", number % 4).into()),
            tokens: TokenBuckets::new(number, 2 * number, 0, 0, 0).expect("tokens"),
            cost,
            latency_ms: (number % 7 > 0).then_some(number * 100),
            error_code: (number % 11 == 0).then(|| "timeout".into()),
            ..Usage::new(integration_id, call_id, provider.into(), model.into())
        }
    }

    fn entry(number: i64, usage: &Usage) -> Entry<'_> {
        // Half an hour apart, across the end of a day.
        let occurred_at = Timestamp::from_micros(number % 60 * 1_800_000_000).expect("in range");
        Entry {
            entry_id: EntryId::from_number(number + 1).expect("in range"),
            tenant_id: TenantId::from_number(number % 3 + 1).expect("in range"),
            kind: EntryKind::Usage,
            usage,
            occurred_at,
            created_at: occurred_at,
            cost: usage.cost.unwrap_or(Nanos::ZERO),
            cost_source: CostSource::Reported,
            computed_cost: None,
            price_version: None,
        }
    }

    #[test]
    fn a_group_adds_the_same_as_its_entries_one_by_one() {
        let usages: Vec<Usage> = (0..500).map(usage).collect();
        let entries: Vec<Entry<'_>> =
            (0..).zip(&usages).map(|(number, usage)| entry(number, usage)).collect();
        let mut one_by_one: BTreeMap<RollupKey<'_>, Rollup> = BTreeMap::new();
        for entry in &entries {
            let alone = aggregate(std::slice::from_ref(entry), &mut AllButTwo);
            for (key, rollup) in alone.expect("small sums") {
                one_by_one.entry(key).or_default().add(&rollup).expect("small sums");
            }
        }
        assert_eq!(aggregate(&entries, &mut AllButTwo).expect("small sums"), one_by_one);
        assert!(one_by_one.keys().any(|key| key.label == OTHER && key.provider == OTHER));
    }
}
