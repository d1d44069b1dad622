//! Bounds the label sets of tenants and models, whatever clients send.
//!
//! The weight of a set is the size of its line in a scrape. Each tenant has a share of the weight.
//! When all of it is used, the tenant with most gives up its least recently used set to one with
//! less. A set without a count for hours is dropped, too. A counter that comes back starts at zero,
//! which Prometheus handles like a restart.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bursar_core::TenantId;
use bursar_store::{CacheUse, ModelKey, OTHER};

use crate::credentials::raw_key;

/// The number of usage metrics, each of which has a count in every set.
pub(super) const FAMILIES: usize = 10;
/// The models of a tenant with a label set of their own (docs/operating.md, "Metrics").
const MODELS_MAX: usize = 200;
/// The weight of a tenant: 200 sets of 176 bytes, as with Bedrock's profiles.
const TENANT_WEIGHT_MAX: usize = 48 * 1024;
/// The weight of all sets: 20,000 with ordinary names.
pub(super) const WEIGHT_MAX: usize = 3 * 1024 * 1024;
/// The size of a line without its labels: the longest metric name and a number.
pub(super) const LINE_BYTES: usize = 56;
/// How long a set without a new count is kept.
pub(super) const LIFE_SECONDS: u64 = 6 * 3_600;

/// The label sets in use.
pub(super) struct LabelSets {
    tenants: HashMap<TenantId, TenantSets>,
    /// The tenants by the weight of their sets.
    by_weight: BTreeSet<(usize, TenantId)>,
    weight: usize,
    weight_max: usize,
    /// Counts everything that has no set of its own.
    rest: Option<Arc<LabelSet>>,
    forgotten: Forgotten,
}

/// The number of dropped sets by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Not counted for a long time.
    pub(super) aged: u64,
    /// Dropped for a tenant with less.
    pub(super) crowded: u64,
    /// Cleared by the operator.
    pub(super) cleared: u64,
}

/// The labels and counts of one model of a tenant.
pub(super) struct LabelSet {
    /// In the text format: `{tenant_id="...",provider="...",model="..."}`.
    pub(super) labels: Box<str>,
    pub(super) counts: [AtomicU64; FAMILIES],
    /// When it was last counted, in seconds since the start.
    counted_at: AtomicU64,
}

#[derive(Default)]
struct TenantSets {
    models: HashMap<Box<str>, HashMap<Box<str>, Arc<LabelSet>>>,
    /// Without the set for the tenant's other models.
    own: usize,
    weight: usize,
}

impl LabelSet {
    fn new(tenant_id: &str, provider: &str, model: &str) -> Arc<Self> {
        let (provider, model) = (escaped(provider), escaped(model));
        let labels =
            format!(r#"{{tenant_id="{tenant_id}",provider="{provider}",model="{model}"}}"#);
        let counted_at = AtomicU64::new(0);
        Arc::new(Self { labels: labels.into(), counts: Default::default(), counted_at })
    }

    fn weight(&self) -> usize {
        self.labels.len() + LINE_BYTES
    }

    fn is_aged(&self, now: u64) -> bool {
        now.saturating_sub(self.counted_at.load(Ordering::Relaxed)) >= LIFE_SECONDS
    }
}

impl TenantSets {
    fn find(&self, provider: &str, model: &str) -> Option<&Arc<LabelSet>> {
        self.models.get(provider)?.get(model)
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<LabelSet>> {
        self.models.values().flat_map(HashMap::values)
    }

    fn insert(&mut self, provider: &str, model: &str, set: Arc<LabelSet>) {
        self.own += usize::from(is_own(provider, model));
        self.weight += set.weight();
        self.models.entry(provider.into()).or_default().insert(model.into(), set);
    }

    /// Keeps the sets for which `keeps` holds. Returns the number of removed sets.
    fn retain(&mut self, keeps: impl Fn(&Arc<LabelSet>) -> bool) -> u64 {
        let mut gone = 0;
        let (own, weight) = (&mut self.own, &mut self.weight);
        for (provider, models) in &mut self.models {
            models.retain(|model, set| {
                let stays = keeps(set);
                if !stays {
                    gone += 1;
                    *own -= usize::from(is_own(provider, model));
                    *weight -= set.weight();
                }
                stays
            });
        }
        self.models.retain(|_, models| !models.is_empty());
        gone
    }
}

impl Default for LabelSets {
    fn default() -> Self {
        Self::of_weight(WEIGHT_MAX)
    }
}

impl LabelSets {
    /// An empty collection with this limit.
    fn of_weight(weight_max: usize) -> Self {
        Self {
            tenants: HashMap::new(),
            by_weight: BTreeSet::new(),
            weight: 0,
            weight_max,
            rest: None,
            forgotten: Forgotten::default(),
        }
    }

    /// The label set in which a model is counted.
    pub(super) fn place(&mut self, key: ModelKey<'_>, now: u64) -> Arc<LabelSet> {
        let ModelKey { tenant_id, provider, model } = key;
        let set = self
            .admit(tenant_id, provider, model)
            .or_else(|| self.admit(tenant_id, OTHER, OTHER))
            .unwrap_or_else(|| self.rest());
        set.counted_at.store(now, Ordering::Relaxed);
        set
    }

    pub(super) fn all(&self) -> Vec<Arc<LabelSet>> {
        let of_tenants = self.tenants.values().flat_map(TenantSets::sets);
        of_tenants.chain(&self.rest).map(Arc::clone).collect()
    }

    /// Drops the sets without a recent count.
    pub(super) fn expire(&mut self, now: u64) {
        let tenants: Vec<TenantId> = self.tenants.keys().copied().collect();
        for tenant_id in tenants {
            self.forgotten.aged += self.retain(tenant_id, |set| !set.is_aged(now));
        }
        self.rest = self.rest.take().filter(|rest| !rest.is_aged(now));
    }

    /// Drops the sets of a tenant, or all. Returns the number.
    pub(super) fn clear(&mut self, tenant_id: Option<TenantId>) -> usize {
        let gone = match tenant_id {
            Some(tenant_id) => self.retain(tenant_id, |_| false),
            None => {
                let gone = self.all().len() as u64;
                *self = Self { forgotten: self.forgotten, ..Self::of_weight(self.weight_max) };
                gone
            }
        };
        self.forgotten.cleared += gone;
        gone as usize
    }

    /// The dropped sets since the last call.
    pub(super) fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }

    /// How full it is.
    pub(super) fn in_use(&self) -> CacheUse {
        let of_tenant =
            |(tenant_id, tenant): (&TenantId, &TenantSets)| (*tenant_id, tenant.sets().count());
        let tenants: Vec<_> = self.tenants.iter().map(of_tenant).collect();
        let entries = tenants.iter().map(|(_, sets)| sets).sum();
        CacheUse {
            entries,
            entries_max: self.weight_max / LINE_BYTES,
            tenant_entries_max: MODELS_MAX + 1,
            bytes: Some(self.weight),
            bytes_max: Some(self.weight_max),
            tenants,
        }
    }

    /// The known label set, or a new one.
    fn admit(&mut self, tenant_id: TenantId, provider: &str, model: &str) -> Option<Arc<LabelSet>> {
        let tenant = self.tenants.get(&tenant_id);
        if let Some(known) = tenant.and_then(|tenant| tenant.find(provider, model)) {
            return Some(Arc::clone(known));
        }
        let (own, held) = tenant.map_or((0, 0), |tenant| (tenant.own, tenant.weight));
        let is_own = is_own(provider, model);
        if is_own && own >= MODELS_MAX {
            return None;
        }
        let made = LabelSet::new(&tenant_id.to_string(), provider, model);
        let weight = made.weight();
        let is_full = is_own && held + weight > TENANT_WEIGHT_MAX;
        if is_full || is_secret(provider) || is_secret(model) {
            return None;
        }
        if !self.make_room(tenant_id, held, weight) {
            return None;
        }
        let tenant = self.tenants.entry(tenant_id).or_default();
        self.by_weight.remove(&(tenant.weight, tenant_id));
        tenant.insert(provider, model, Arc::clone(&made));
        self.by_weight.insert((tenant.weight, tenant_id));
        self.weight += weight;
        Some(made)
    }

    /// Frees weight for a tenant from the one that has most, as long as that has more.
    fn make_room(&mut self, tenant_id: TenantId, held: usize, weight: usize) -> bool {
        while self.weight + weight > self.weight_max {
            let Some(&(most, crowding)) = self.by_weight.last() else { return false };
            if crowding == tenant_id || most <= held + weight {
                return false;
            }
            let sets = self.tenants.get(&crowding).map(TenantSets::sets);
            let at = |set: &Arc<LabelSet>| set.counted_at.load(Ordering::Relaxed);
            let Some(oldest) = sets.and_then(|sets| sets.min_by_key(|set| at(set)).cloned()) else {
                return false;
            };
            self.forgotten.crowded += self.retain(crowding, |set| !Arc::ptr_eq(set, &oldest));
        }
        true
    }

    /// Keeps the sets of a tenant for which `keeps` holds. Returns the number of removed sets.
    fn retain(&mut self, tenant_id: TenantId, keeps: impl Fn(&Arc<LabelSet>) -> bool) -> u64 {
        let Some(tenant) = self.tenants.get_mut(&tenant_id) else { return 0 };
        let before = tenant.weight;
        let gone = tenant.retain(keeps);
        if gone > 0 {
            self.weight -= before - tenant.weight;
            self.by_weight.remove(&(before, tenant_id));
            if tenant.weight > 0 {
                self.by_weight.insert((tenant.weight, tenant_id));
            } else {
                self.tenants.remove(&tenant_id);
            }
        }
        gone
    }

    fn rest(&mut self) -> Arc<LabelSet> {
        let rest = self.rest.get_or_insert_with(|| LabelSet::new(OTHER, OTHER, OTHER));
        Arc::clone(rest)
    }
}

/// Whether a set belongs to one model and is not a collective one.
fn is_own(provider: &str, model: &str) -> bool {
    provider != OTHER || model != OTHER
}

/// The value of a label, escaped for the text format.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// Whether a name looks like a key, which no metric may show.
fn is_secret(name: &str) -> bool {
    raw_key::redact(name).is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("in range")
    }

    fn place(sets: &mut LabelSets, tenant_id: TenantId, model: &str, now: u64) -> String {
        sets.place(ModelKey { tenant_id, provider: "openai", model }, now).labels.to_string()
    }

    fn labels(tenant_id: impl ToString, provider: &str, model: &str) -> String {
        let tenant_id = tenant_id.to_string();
        format!(r#"{{tenant_id="{tenant_id}",provider="{provider}",model="{model}"}}"#)
    }

    #[test]
    fn a_model_keeps_its_labels() {
        let mut sets = LabelSets::default();
        let first = place(&mut sets, tenant(1), "gpt", 0);
        assert_eq!(first, labels(tenant(1), "openai", "gpt"));
        assert_eq!(place(&mut sets, tenant(1), "gpt", 0), first);
        assert_eq!(sets.all().len(), 1);
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut sets = LabelSets::default();
        let odd = place(&mut sets, tenant(1), "a\"b\\c\nd", 0);
        assert_eq!(odd, labels(tenant(1), "openai", r#"a\"b\\c\nd"#));
    }

    #[test]
    fn a_hundred_thousand_models_of_a_tenant_are_two_hundred_and_the_others() {
        let mut sets = LabelSets::default();
        let mut seen = HashSet::new();
        for number in 0..100_000 {
            seen.insert(place(&mut sets, tenant(1), &format!("model {number}"), 0));
        }
        assert_eq!(seen.len(), MODELS_MAX + 1);
        assert!(seen.contains(&labels(tenant(1), OTHER, OTHER)));
        // The first ones stay, and another tenant has its own.
        let first = place(&mut sets, tenant(1), "model 7", 0);
        assert_eq!(first, labels(tenant(1), "openai", "model 7"));
        let elsewhere = place(&mut sets, tenant(2), "model 99999", 0);
        assert_eq!(elsewhere, labels(tenant(2), "openai", "model 99999"));
    }

    #[test]
    fn names_of_the_greatest_length_take_a_tenants_share_and_no_more() {
        let mut sets = LabelSets::default();
        for number in 0..400 {
            place(&mut sets, tenant(1), &format!("{:\"<252}{number:04}", ""), 0);
        }
        assert!(sets.weight <= TENANT_WEIGHT_MAX + 256, "{}", sets.weight);
        assert!(sets.all().len() > 50, "{}", sets.all().len());
    }

    #[test]
    fn a_hundred_thousand_tenants_are_bounded_too() {
        let mut sets = LabelSets::default();
        for number in 1..=100_000 {
            place(&mut sets, tenant(number), "gpt", 0);
        }
        assert!(sets.weight <= WEIGHT_MAX);
        assert_eq!(sets.all().len(), sets.tenants.len() + 1);
        assert_eq!(place(&mut sets, tenant(100_000), "gpt", 0), labels(OTHER, OTHER, OTHER));
        assert_eq!(place(&mut sets, tenant(5), "gpt", 0), labels(tenant(5), "openai", "gpt"));
    }

    #[test]
    fn a_fleet_of_2_000_tenants_with_five_models_has_a_set_for_each() {
        let mut sets = LabelSets::default();
        for number in 1..=2_000 {
            for model in 0..5 {
                place(&mut sets, tenant(number), &format!("claude-sonnet-4-{model}"), 0);
            }
        }
        assert_eq!(sets.all().len(), 10_000);
        assert_eq!(sets.take_forgotten(), Forgotten::default());
    }

    #[test]
    fn who_has_most_gives_way_to_who_has_less() {
        let mut sets = LabelSets::of_weight(64 * 1024);
        for loud in 1..=10 {
            for number in 0..200 {
                place(&mut sets, tenant(loud), &format!("model {number}"), number);
            }
        }
        for model in ["a", "b", "c", "d", "e"] {
            let own = place(&mut sets, tenant(99), model, 300);
            assert_eq!(own, labels(tenant(99), "openai", model));
        }
        assert!(sets.weight <= 64 * 1024);
        let counts: Vec<usize> = sets.in_use().tenants.into_iter().map(|(_, sets)| sets).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least >= Some(&5) && most <= Some(&48), "{counts:?}");
        // A tenant with as much as the others takes nothing from them.
        let crowded = sets.take_forgotten().crowded;
        for number in 500..1_000 {
            place(&mut sets, tenant(1), &format!("model {number}"), 400);
        }
        assert!(crowded > 0 && sets.take_forgotten().crowded <= 2);
    }

    #[test]
    fn a_set_that_nothing_is_counted_in_goes_and_may_come_back() {
        let mut sets = LabelSets::default();
        let key = |model| ModelKey { tenant_id: tenant(1), provider: "openai", model };
        sets.place(key("old"), 0).counts[0].store(7, Ordering::Relaxed);
        sets.place(key("new"), 10);
        sets.expire(LIFE_SECONDS - 1);
        assert_eq!(sets.all().len(), 2);
        sets.expire(LIFE_SECONDS);
        assert_eq!(sets.all().len(), 1);
        let again = sets.place(key("old"), LIFE_SECONDS);
        assert_eq!(again.counts[0].load(Ordering::Relaxed), 0);
        sets.expire(3 * LIFE_SECONDS);
        assert!(sets.all().is_empty() && sets.tenants.is_empty() && sets.by_weight.is_empty());
        assert_eq!((sets.weight, sets.take_forgotten().aged), (0, 3));
    }

    #[test]
    fn the_operator_clears_one_tenant_or_all() {
        let mut sets = LabelSets::default();
        for number in 1..=3 {
            place(&mut sets, tenant(number), "gpt", 0);
        }
        assert_eq!((sets.clear(Some(tenant(2))), sets.clear(Some(tenant(2)))), (1, 0));
        assert_eq!((sets.clear(None), sets.in_use().entries, sets.weight), (2, 0, 0));
        assert_eq!(sets.take_forgotten().cleared, 3);
    }

    #[test]
    fn a_key_in_the_place_of_a_model_is_not_shown() {
        let mut sets = LabelSets::default();
        let key = format!("sk-{}", "a1B2".repeat(8));
        assert_eq!(place(&mut sets, tenant(1), &key, 0), labels(tenant(1), OTHER, OTHER));
    }
}
