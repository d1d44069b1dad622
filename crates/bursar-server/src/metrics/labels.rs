//! Which tenants and models have label sets of their own: memory and scrapes stay bounded whatever
//! clients send.

use std::collections::{HashMap, HashSet};

use bursar_core::TenantId;
use bursar_store::{ModelKey, OTHER};

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
    sets: usize,
}

struct TenantSets {
    tenant_id: Box<str>,
    models: HashMap<Box<str>, HashSet<Box<str>>>,
    /// Without the set of the other ones.
    own: usize,
}

impl TenantSets {
    fn has(&self, provider: &str, model: &str) -> bool {
        self.models.get(provider).is_some_and(|models| models.contains(model))
    }
}

impl LabelSets {
    /// The values of `tenant_id`, `provider` and `model` under which a model is counted.
    pub(super) fn place<'a>(&'a mut self, key: ModelKey<'a>) -> [&'a str; 3] {
        let ModelKey { tenant_id, provider, model } = key;
        let (provider, model) = if self.admits(tenant_id, provider, model) {
            (provider, model)
        } else if self.admits(tenant_id, OTHER, OTHER) {
            (OTHER, OTHER)
        } else {
            return [OTHER; 3];
        };
        let known = self.tenants.get(&tenant_id);
        known.map_or([OTHER; 3], |tenant| [&tenant.tenant_id, provider, model])
    }

    /// Whether a label set is known, or becomes known now.
    fn admits(&mut self, tenant_id: TenantId, provider: &str, model: &str) -> bool {
        let tenant = self.tenants.get(&tenant_id);
        if tenant.is_some_and(|tenant| tenant.has(provider, model)) {
            return true;
        }
        let is_own = provider != OTHER || model != OTHER;
        let is_full = is_own && tenant.is_some_and(|tenant| tenant.own >= MODELS_MAX);
        if is_full || self.sets + 1 >= SETS_MAX || is_secret(provider) || is_secret(model) {
            return false;
        }
        let tenant = self.tenants.entry(tenant_id).or_insert_with(|| TenantSets {
            tenant_id: tenant_id.to_string().into(),
            models: HashMap::new(),
            own: 0,
        });
        tenant.models.entry(provider.into()).or_default().insert(model.into());
        tenant.own += usize::from(is_own);
        self.sets += 1;
        true
    }
}

/// Whether a name from outside is a key by mistake, which no metric may show.
fn is_secret(name: &str) -> bool {
    raw_key::redact(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("in range")
    }

    fn place(sets: &mut LabelSets, tenant_id: TenantId, model: &str) -> [String; 3] {
        let key = ModelKey { tenant_id, provider: "openai", model };
        sets.place(key).map(str::to_owned)
    }

    #[test]
    fn a_model_keeps_its_labels() {
        let mut sets = LabelSets::default();
        let first = place(&mut sets, tenant(1), "gpt");
        assert_eq!(first, [&tenant(1).to_string(), "openai", "gpt"]);
        assert_eq!(place(&mut sets, tenant(1), "gpt"), first);
        assert_eq!(sets.sets, 1);
    }

    #[test]
    fn a_hundred_thousand_models_of_a_tenant_are_two_hundred_and_the_others() {
        let mut sets = LabelSets::default();
        let mut seen = HashSet::new();
        for number in 0..100_000 {
            seen.insert(place(&mut sets, tenant(1), &format!("model {number}")));
        }
        assert_eq!(seen.len(), MODELS_MAX + 1);
        assert!(seen.contains(&[tenant(1).to_string(), OTHER.into(), OTHER.into()]));
        // Those that came first stay, and another tenant has its own.
        assert_eq!(place(&mut sets, tenant(1), "model 7")[2], "model 7");
        assert_eq!(place(&mut sets, tenant(2), "model 99999")[2], "model 99999");
    }

    #[test]
    fn a_hundred_thousand_tenants_are_bounded_too() {
        let mut sets = LabelSets::default();
        let mut seen = HashSet::new();
        for number in 1..=100_000 {
            seen.insert(place(&mut sets, tenant(number), "gpt"));
        }
        assert_eq!(seen.len(), SETS_MAX);
        assert_eq!(sets.tenants.len(), SETS_MAX - 1);
        assert_eq!(place(&mut sets, tenant(100_000), "gpt"), [OTHER, OTHER, OTHER]);
        assert_eq!(place(&mut sets, tenant(5), "gpt")[0], tenant(5).to_string());
    }

    #[test]
    fn a_key_in_the_place_of_a_model_is_not_shown() {
        let mut sets = LabelSets::default();
        let key = format!("sk-{}", "a1B2".repeat(8));
        assert_eq!(place(&mut sets, tenant(1), &key)[1..], [OTHER, OTHER]);
    }
}
