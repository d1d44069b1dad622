//! Bytes of records by tenant, in label sets that no number of tenants can multiply.

use std::collections::{HashMap, HashSet};

use bursar_core::TenantId;
use bursar_store::OTHER;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Registry, Result};

use super::table;

/// Tenants that have a label set of their own.
const TENANTS_MAX: usize = 1_000;

/// What tenants stored since the start.
pub(super) struct StoredBytes {
    counters: IntCounterVec,
    own: Mutex<HashSet<TenantId>>,
}

impl StoredBytes {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self { counters: table::STORED_BYTES.counters(registry)?, own: Mutex::default() })
    }

    pub(super) fn count(&self, stored: &HashMap<TenantId, i64>) {
        let mut own = self.own.lock();
        for (tenant_id, bytes) in stored {
            let has_own =
                own.contains(tenant_id) || own.len() < TENANTS_MAX && own.insert(*tenant_id);
            let name = if has_own { tenant_id.to_string() } else { OTHER.to_owned() };
            let bytes = u64::try_from(*bytes).unwrap_or(0);
            self.counters.with_label_values(&[name.as_str()]).inc_by(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_past_the_first_thousand_share_a_label_set() {
        let registry = Registry::new();
        let metric = StoredBytes::new(&registry).expect("a metric");
        let tenants = || (1..=1_200).filter_map(TenantId::from_number);
        for tenant_id in tenants().chain(tenants()) {
            metric.count(&HashMap::from([(tenant_id, 5)]));
        }
        let families = registry.gather();
        let sets = families[0].get_metric();
        assert_eq!(sets.len(), 1_001);
        let is_other = |value: &&prometheus::proto::Metric| value.get_label()[0].value() == OTHER;
        let other = sets.iter().find(is_other).expect("the others");
        assert!((other.get_counter().get_value() - 2_000.0).abs() < f64::EPSILON);
    }
}
