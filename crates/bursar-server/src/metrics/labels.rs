//! Which tenants and models have label sets of their own: memory and scrapes stay bounded whatever
//! clients send.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bursar_core::TenantId;
use bursar_store::{ModelKey, OTHER};

use super::usage::FAMILIES;
use crate::raw_key;

/// Models of a tenant that have label sets of their own (contract, section 6).
const MODELS_MAX: usize = 200;
/// Label sets of a family, of all tenants, the one in which everything ends included.
const SETS_MAX: usize = 10_000;

/// The label sets that were given out. They are never taken back: a counter that vanished and came
/// again would look like one that was reset.
#[derive(Default)]
pub(super) struct LabelSets {
    tenants: HashMap<TenantId, TenantSets>,
    all: Vec<Arc<LabelSet>>,
    /// In which everything ends that there is no room for.
    rest: Option<Arc<LabelSet>>,
}

/// The labels of a model of a tenant, and what is counted of it.
pub(super) struct LabelSet {
    /// As the text format has them: `{tenant_id="...",provider="...",model="..."}`.
    pub(super) labels: Box<str>,
    pub(super) counts: [AtomicU64; FAMILIES],
}

#[derive(Default)]
struct TenantSets {
    models: HashMap<Box<str>, HashMap<Box<str>, Arc<LabelSet>>>,
    /// Without the set of the other ones.
    own: usize,
}

impl LabelSet {
    fn new(tenant_id: &str, provider: &str, model: &str) -> Arc<Self> {
        let (provider, model) = (escaped(provider), escaped(model));
        let labels =
            format!(r#"{{tenant_id="{tenant_id}",provider="{provider}",model="{model}"}}"#);
        Arc::new(Self { labels: labels.into(), counts: Default::default() })
    }
}

impl LabelSets {
    /// The label set in which a model is counted.
    pub(super) fn place(&mut self, key: ModelKey<'_>) -> Arc<LabelSet> {
        let ModelKey { tenant_id, provider, model } = key;
        self.admit(tenant_id, provider, model)
            .or_else(|| self.admit(tenant_id, OTHER, OTHER))
            .unwrap_or_else(|| self.rest())
    }

    /// Every label set, in the order in which they were given out.
    pub(super) fn all(&self) -> Vec<Arc<LabelSet>> {
        self.all.clone()
    }

    /// The label set that is known, or becomes known now.
    fn admit(&mut self, tenant_id: TenantId, provider: &str, model: &str) -> Option<Arc<LabelSet>> {
        let tenant = self.tenants.get(&tenant_id);
        let known = tenant.and_then(|tenant| tenant.models.get(provider)?.get(model));
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let is_own = provider != OTHER || model != OTHER;
        let is_full = is_own && tenant.is_some_and(|tenant| tenant.own >= MODELS_MAX);
        let no_room = is_full || self.all.len() + 1 >= SETS_MAX;
        if no_room || is_secret(provider) || is_secret(model) {
            return None;
        }
        let made = LabelSet::new(&tenant_id.to_string(), provider, model);
        let tenant = self.tenants.entry(tenant_id).or_default();
        tenant.own += usize::from(is_own);
        let models = tenant.models.entry(provider.into()).or_default();
        models.insert(model.into(), Arc::clone(&made));
        self.all.push(Arc::clone(&made));
        Some(made)
    }

    fn rest(&mut self) -> Arc<LabelSet> {
        let all = &mut self.all;
        let rest = self.rest.get_or_insert_with(|| {
            let made = LabelSet::new(OTHER, OTHER, OTHER);
            all.push(Arc::clone(&made));
            made
        });
        Arc::clone(rest)
    }
}

/// A label's value as the text format has it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// Whether a name from outside is a key by mistake, which no metric may show.
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

    fn place(sets: &mut LabelSets, tenant_id: TenantId, model: &str) -> String {
        sets.place(ModelKey { tenant_id, provider: "openai", model }).labels.to_string()
    }

    fn labels(tenant_id: impl ToString, provider: &str, model: &str) -> String {
        let tenant_id = tenant_id.to_string();
        format!(r#"{{tenant_id="{tenant_id}",provider="{provider}",model="{model}"}}"#)
    }

    #[test]
    fn a_model_keeps_its_labels() {
        let mut sets = LabelSets::default();
        let first = place(&mut sets, tenant(1), "gpt");
        assert_eq!(first, labels(tenant(1), "openai", "gpt"));
        assert_eq!(place(&mut sets, tenant(1), "gpt"), first);
        assert_eq!(sets.all().len(), 1);
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut sets = LabelSets::default();
        let odd = place(&mut sets, tenant(1), "a\"b\\c\nd");
        assert_eq!(odd, labels(tenant(1), "openai", r#"a\"b\\c\nd"#));
    }

    #[test]
    fn a_hundred_thousand_models_of_a_tenant_are_two_hundred_and_the_others() {
        let mut sets = LabelSets::default();
        let mut seen = HashSet::new();
        for number in 0..100_000 {
            seen.insert(place(&mut sets, tenant(1), &format!("model {number}")));
        }
        assert_eq!(seen.len(), MODELS_MAX + 1);
        assert!(seen.contains(&labels(tenant(1), OTHER, OTHER)));
        // Those that came first stay, and another tenant has its own.
        let first = place(&mut sets, tenant(1), "model 7");
        assert_eq!(first, labels(tenant(1), "openai", "model 7"));
        let elsewhere = place(&mut sets, tenant(2), "model 99999");
        assert_eq!(elsewhere, labels(tenant(2), "openai", "model 99999"));
    }

    #[test]
    fn a_hundred_thousand_tenants_are_bounded_too() {
        let mut sets = LabelSets::default();
        let mut seen = HashSet::new();
        for number in 1..=100_000 {
            seen.insert(place(&mut sets, tenant(number), "gpt"));
        }
        assert_eq!((seen.len(), sets.all().len()), (SETS_MAX, SETS_MAX));
        assert_eq!(sets.tenants.len(), SETS_MAX - 1);
        assert_eq!(place(&mut sets, tenant(100_000), "gpt"), labels(OTHER, OTHER, OTHER));
        assert_eq!(place(&mut sets, tenant(5), "gpt"), labels(tenant(5), "openai", "gpt"));
    }

    #[test]
    fn a_key_in_the_place_of_a_model_is_not_shown() {
        let mut sets = LabelSets::default();
        let key = format!("sk-{}", "a1B2".repeat(8));
        assert_eq!(place(&mut sets, tenant(1), &key), labels(tenant(1), OTHER, OTHER));
    }
}
