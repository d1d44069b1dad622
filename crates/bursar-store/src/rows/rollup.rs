//! Rollups: figures by quarter hour and day for reports, aggregated once for each group.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bursar_core::{
    CostSource, Entry, EntryKind, IntegrationId, KeyId, Nanos, PolicyResult, TenantId, Timestamp,
    TokenBuckets, UsageStatus,
};

use crate::error::StoreError;
use crate::rows::counted_tags::CountedTags;
use crate::rows::rollup_columns::{LATENCY_BOUNDS_MS, LATENCY_BUCKETS, Rollup};
use crate::rows::rollup_labels::{Admitted, KeyLabel, KeyedModel, Label, LabelKind, Labels, OTHER};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    /// A quarter hour by model.
    Quarter,
    /// A day by model and key.
    Day,
    /// A day by agent.
    AgentDay,
    /// A day by value of a tag.
    TagDay,
}

impl Grain {
    /// The stored code.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Quarter => 1,
            Self::Day => 2,
            Self::AgentDay => 3,
            Self::TagDay => 4,
        }
    }
}

/// The key of a rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RollupKey<'a> {
    pub(crate) tenant_id: TenantId,
    pub(crate) integration_id: IntegrationId,
    pub(crate) grain: Grain,
    /// Quarter hours or days since 1970.
    pub(crate) start: i32,
    /// The provider of a model, or the name of a tag.
    pub(crate) provider: &'a str,
    pub(crate) label: &'a str,
    pub(crate) key: KeyLabel,
}

/// The figures of one entry that its rollups need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollupFacts {
    pub(crate) kind: EntryKind,
    pub(crate) tokens: TokenBuckets,
    pub(crate) cost: Nanos,
    pub(crate) cost_source: CostSource,
    pub(crate) usage_status: UsageStatus,
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
            usage_status: usage.usage_status,
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
        let with_status = |status| counted_if(facts.usage_status == status);
        let from_source = |source| counted_if(facts.cost_source == source);
        let mut latency_buckets = [0; LATENCY_BUCKETS];
        if let Some(latency_ms) = facts.latency_ms {
            let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| *bound < latency_ms);
            if let Some(count) = latency_buckets.get_mut(bucket) {
                *count = is_call;
            }
        }
        let counts = facts.tokens.counts();
        Self {
            calls: is_call,
            succeeded: counted_if(!facts.failed && !blocked),
            errors: counted_if(facts.failed),
            blocked: counted_if(blocked),
            status_final: with_status(UsageStatus::Final),
            status_partial: with_status(UsageStatus::Partial),
            status_estimated: with_status(UsageStatus::Estimated),
            status_missing: with_status(UsageStatus::Missing),
            cost_reported: from_source(CostSource::Reported),
            cost_computed: from_source(CostSource::Computed),
            cost_held: from_source(CostSource::Held),
            cost_unknown: from_source(CostSource::Unknown),
            tokens_in: counts.tokens_in,
            tokens_out: counts.tokens_out,
            tokens_cache_read: counts.cache_read,
            tokens_cache_write: counts.cache_write,
            tokens_cache_write_long: counts.cache_write_long,
            tokens_audio_in: counts.audio_in,
            tokens_image_in: counts.image_in,
            tokens_reasoning: counts.reasoning,
            tokens_audio_out: counts.audio_out,
            tokens_image_out: counts.image_out,
            cost_nanos: facts.cost.get(),
            latency_calls: counted_if(facts.latency_ms.is_some()),
            latency_sum_ms: facts.latency_ms.unwrap_or(0),
            latency_max_ms: match facts.kind {
                EntryKind::Usage => facts.latency_ms.unwrap_or(0),
                EntryKind::Correction => 0,
            },
            latency_buckets,
        }
    }
}

/// The admitted labels and keys of a group.
#[derive(Default)]
struct OfGroup<'a> {
    labels: BTreeSet<Label<'a>>,
    keys: BTreeSet<KeyedModel<'a>>,
}

impl Admitted for OfGroup<'_> {
    fn has_label(&self, label: Label<'_>) -> bool {
        self.labels.contains(&label)
    }

    fn has_key(&self, key: KeyedModel<'_>) -> bool {
        self.keys.contains(&key)
    }
}

/// The key of entries that count in the same rollups by model and agent, whichever are admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct EntryGroup<'a> {
    tenant_id: TenantId,
    integration_id: IntegrationId,
    /// Quarter hours since 1970. A quarter hour is within one day.
    quarter: i32,
    provider: &'a str,
    model: &'a str,
    agent_id: Option<&'a str>,
    key_id: Option<KeyId>,
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
    pub(crate) key_id: Option<KeyId>,
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
            key_id: usage.key_id,
            facts: RollupFacts::of(entry),
        }
    }

    fn group(&self) -> EntryGroup<'a> {
        EntryGroup {
            tenant_id: self.tenant_id,
            integration_id: self.integration_id,
            quarter: self.occurred_at.quarter_hour().number(),
            provider: self.provider,
            model: self.model,
            agent_id: self.agent_id,
            key_id: self.key_id,
        }
    }

    fn model_label(&self) -> Label<'a> {
        let Self { tenant_id, provider, model, .. } = *self;
        Label { tenant_id, kind: LabelKind::Model, provider, label: model }
    }

    fn agent_label(&self) -> Option<Label<'a>> {
        let tenant_id = self.tenant_id;
        let kind = LabelKind::Agent;
        self.agent_id.map(|label| Label { tenant_id, kind, provider: "", label })
    }

    fn tag_label(&self, (name, value): (&'a str, &'a str)) -> Label<'a> {
        let tenant_id = self.tenant_id;
        Label { tenant_id, kind: LabelKind::Tag, provider: name, label: value }
    }

    /// The provider and the model in the rollups of the entry.
    fn shown_model(&self, admitted: &impl Admitted) -> (&'a str, &'a str) {
        let Label { provider, label, .. } = self.model_label();
        if admitted.has_label(self.model_label()) { (provider, label) } else { (OTHER, OTHER) }
    }

    /// The key of the entry, if it has one.
    fn keyed_model(&self, admitted: &impl Admitted) -> Option<KeyedModel<'a>> {
        let Self { tenant_id, integration_id, key_id, .. } = *self;
        let (provider, model) = self.shown_model(admitted);
        let day = self.occurred_at.day().number();
        key_id.map(|key_id| KeyedModel { tenant_id, integration_id, day, provider, model, key_id })
    }

    fn key_label(&self, admitted: &impl Admitted) -> KeyLabel {
        match self.keyed_model(admitted) {
            None => KeyLabel::NoKey,
            Some(key) if admitted.has_key(key) => KeyLabel::Own(key.key_id),
            Some(_) => KeyLabel::Other,
        }
    }

    /// The rollups by model and agent in which the entry counts.
    ///
    /// A label that is not admitted counts as [`OTHER`].
    pub(crate) fn keys(&self, admitted: &impl Admitted) -> impl Iterator<Item = RollupKey<'a>> {
        let (provider, label) = self.shown_model(admitted);
        let by_quarter = RollupKey {
            tenant_id: self.tenant_id,
            integration_id: self.integration_id,
            grain: Grain::Quarter,
            start: self.occurred_at.quarter_hour().number(),
            provider,
            label,
            key: KeyLabel::NoKey,
        };
        let day = self.occurred_at.day().number();
        let key = self.key_label(admitted);
        let by_day = RollupKey { grain: Grain::Day, start: day, key, ..by_quarter };
        let by_agent = self.agent_label().map(|agent| {
            let label = if admitted.has_label(agent) { agent.label } else { OTHER };
            let key = KeyLabel::NoKey;
            RollupKey { grain: Grain::AgentDay, provider: "", label, key, ..by_day }
        });
        [Some(by_quarter), Some(by_day), by_agent].into_iter().flatten()
    }

    /// The rollup of one of the entry's tags.
    pub(crate) fn tag_key(
        &self,
        tag: (&'a str, &'a str),
        admitted: &impl Admitted,
    ) -> RollupKey<'a> {
        let label = self.tag_label(tag);
        RollupKey {
            tenant_id: self.tenant_id,
            integration_id: self.integration_id,
            grain: Grain::TagDay,
            start: self.occurred_at.day().number(),
            provider: label.provider,
            label: if admitted.has_label(label) { label.label } else { OTHER },
            key: KeyLabel::NoKey,
        }
    }
}

/// Adds up the entries of a group, in key order. `tags` has the counted tags of each entry.
///
/// Most of these sums cannot overflow, because the counters of the months were checked before. Sums
/// of latencies can, and are refused here.
pub(crate) fn aggregate<'a>(
    entries: &[Entry<'a>],
    tags: &[CountedTags],
    labels: &mut dyn Labels,
) -> Result<BTreeMap<RollupKey<'a>, Rollup>, StoreError> {
    // Most entries of a group count in the same few rollups. They are added up first, so that the
    // keys of their rollups are compared only once.
    let mut groups: HashMap<EntryGroup<'a>, (RollupEntry<'a>, Rollup)> = HashMap::new();
    let mut tagged: Vec<(RollupEntry<'a>, (&'a str, &'a str))> = Vec::new();
    for (entry, counted) in entries.iter().zip(tags) {
        let of_entry = RollupEntry::of(entry);
        tagged.extend(counted.of_tags(&entry.usage.tags).map(|tag| (of_entry, tag)));
        let (_, sum) = groups.entry(of_entry.group()).or_insert((of_entry, Rollup::default()));
        sum.add(&Rollup::of(&of_entry.facts))?;
    }
    let mut wanted = BTreeSet::new();
    for (entry, _) in groups.values() {
        wanted.insert(entry.model_label());
        wanted.extend(entry.agent_label());
    }
    wanted.extend(tagged.iter().map(|(entry, tag)| entry.tag_label(*tag)));
    let mut admitted = OfGroup { labels: labels.admit(&wanted)?, ..OfGroup::default() };
    let keys = groups.values().filter_map(|(entry, _)| entry.keyed_model(&admitted)).collect();
    admitted.keys = labels.admit_keys(&keys)?;
    let mut rollups: BTreeMap<RollupKey<'a>, Rollup> = BTreeMap::new();
    for (entry, sum) in groups.values() {
        for key in entry.keys(&admitted) {
            rollups.entry(key).or_default().add(sum)?;
        }
    }
    for (entry, tag) in tagged {
        let key = entry.tag_key(tag, &admitted);
        rollups.entry(key).or_default().add(&Rollup::of(&entry.facts))?;
    }
    Ok(rollups)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are small")]
mod tests {
    use bursar_core::{CallId, EntryId, TagNames, Tags, Usage};

    use super::*;
    use crate::rows::counted_tags::counted_tags;

    /// Lists the tag "team", and admits all labels and keys except one of each kind.
    struct AllButOne;

    impl Labels for AllButOne {
        fn tag_names(&mut self, _: TenantId) -> Result<TagNames, StoreError> {
            Ok(TagNames::new(["team"]).expect("a valid name"))
        }

        fn admit<'a>(
            &mut self,
            wanted: &BTreeSet<Label<'a>>,
        ) -> Result<BTreeSet<Label<'a>>, StoreError> {
            let is_admitted = |label: &&Label<'a>| !label.label.ends_with("-1");
            Ok(wanted.iter().filter(is_admitted).copied().collect())
        }

        fn admit_keys<'a>(
            &mut self,
            wanted: &BTreeSet<KeyedModel<'a>>,
        ) -> Result<BTreeSet<KeyedModel<'a>>, StoreError> {
            let is_admitted = |key: &&KeyedModel<'a>| key.key_id.number() != 1;
            Ok(wanted.iter().filter(is_admitted).copied().collect())
        }
    }

    fn usage(number: i64) -> Usage {
        let cost = Some(Nanos::new(number * 7));
        let provider = if number % 5 == 0 { "anthropic" } else { "openai" };
        let integration_id = IntegrationId::from_number(number % 2 + 1).expect("in range");
        let call_id = CallId::new(format!("call-{number}")).expect("a call id");
        let model = format!("model-{}", number % 3);
        let mut tags = Tags::default();
        for (name, value) in [("team", number % 6), ("unlisted", number % 2)] {
            assert!(number % 8 == 0 || tags.add(name, &format!("value-{value}")));
        }
        Usage {
            tags,
            key_id: KeyId::from_number(number % 3).filter(|_| number % 3 > 0),
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
            account_key_id: None,
            limits_version: 0,
        }
    }

    #[test]
    fn a_group_adds_the_same_as_its_entries_one_by_one() {
        let usages: Vec<Usage> = (0..500).map(usage).collect();
        let entries: Vec<Entry<'_>> =
            (0..).zip(&usages).map(|(number, usage)| entry(number, usage)).collect();
        let sums = |entries: &[Entry<'_>]| {
            let tags = counted_tags(entries, &mut AllButOne).expect("known names");
            let sums = aggregate(entries, &tags, &mut AllButOne).expect("small sums");
            let key = |key: RollupKey<'_>| {
                let (provider, label) = (key.provider.to_owned(), key.label.to_owned());
                (key.tenant_id, key.integration_id, key.grain, key.start, provider, label, key.key)
            };
            sums.into_iter().map(|(of, sum)| (key(of), sum)).collect::<BTreeMap<_, _>>()
        };
        let mut one_by_one = BTreeMap::new();
        for entry in &entries {
            for (key, rollup) in sums(std::slice::from_ref(entry)) {
                let sum: &mut Rollup = one_by_one.entry(key).or_default();
                sum.add(&rollup).expect("small sums");
            }
        }
        assert_eq!(sums(&entries), one_by_one);
        assert!(one_by_one.keys().any(|key| key.4 == OTHER && key.5 == OTHER));
        for label in
            [KeyLabel::Other, KeyLabel::NoKey, KeyLabel::Own(KeyId::from_number(2).unwrap())]
        {
            assert!(one_by_one.keys().any(|key| key.2 == Grain::Day && key.6 == label));
        }
        let tags = one_by_one.keys().filter(|key| key.2 == Grain::TagDay);
        let tags: BTreeSet<(&str, &str)> = tags.map(|key| (&*key.4, &*key.5)).collect();
        let values = [OTHER, "value-0", "value-2", "value-3", "value-4", "value-5"];
        assert_eq!(tags, values.map(|value| ("team", value)).into());
    }
}
