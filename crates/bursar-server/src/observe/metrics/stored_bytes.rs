//! Bytes of stored records by tenant, with a bounded number of label sets.
//!
//! When all sets are taken, the tenant that stored nothing for longest gives up its set. Bytes that
//! no scrape has shown yet are added to `other`, so no byte is lost or shown twice. A set without a
//! count for hours is dropped, too; a counter that comes back starts at zero, which Prometheus
//! handles like a restart.

use std::collections::HashMap;
use std::time::Instant;

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse, OTHER};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Registry, Result};

use super::labels::LIFE_SECONDS;
use super::table;
use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// The tenants with a label set of their own (docs/operating.md, "Metrics").
const TENANTS_MAX: usize = 1_000;
/// The approximate size of a set with its counter and label.
const PLACE_BYTES: usize = 600;
const BOUNDS: CacheBounds = CacheBounds {
    entries_max: TENANTS_MAX,
    tenant_entries_max: 1,
    bytes_max: TENANTS_MAX * PLACE_BYTES,
};

/// The bytes that tenants stored since the start.
pub(super) struct StoredBytes {
    counters: IntCounterVec,
    active: Mutex<ActiveTenants>,
    began: Instant,
}

/// The tenants with a label set of their own.
struct ActiveTenants {
    /// In the order of their last write.
    of_tenants: TenantCache<TenantId, TenantBytes>,
    /// The number of scrapes so far.
    scrapes: u64,
}

struct TenantBytes {
    /// The last write, in seconds since the start.
    stored_at: u64,
    /// The number of scrapes when `bytes` was recorded.
    scrapes: u64,
    bytes: u64,
}

impl StoredBytes {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let active = ActiveTenants { of_tenants: TenantCache::new(BOUNDS), scrapes: 0 };
        Ok(Self {
            counters: table::STORED_BYTES.counters(registry)?,
            active: Mutex::new(active),
            began: Instant::now(),
        })
    }

    pub(super) fn count(&self, stored: &HashMap<TenantId, i64>) {
        self.count_at(stored, self.now());
    }

    /// Drops old sets. Call it before the counters are shown.
    pub(super) fn scrape(&self) {
        self.scrape_at(self.now());
    }

    fn count_at(&self, stored: &HashMap<TenantId, i64>, now: u64) {
        let mut active = self.active.lock();
        for (tenant_id, bytes) in stored {
            let bytes = u64::try_from(*bytes).unwrap_or(0);
            if let Some(unshown) = active.count(*tenant_id, bytes, now) {
                self.remove(unshown.tenant_id);
                self.counters.with_label_values(&[OTHER]).inc_by(unshown.bytes);
            }
            self.counters.with_label_values(&[tenant_id.to_string().as_str()]).inc_by(bytes);
        }
    }

    fn scrape_at(&self, now: u64) {
        let mut active = self.active.lock();
        let is_aged = |tenant: &TenantBytes| now.saturating_sub(tenant.stored_at) >= LIFE_SECONDS;
        while let Some((tenant_id, _)) = active.of_tenants.take_oldest(is_aged) {
            self.remove(tenant_id);
        }
        active.scrapes += 1;
    }

    fn remove(&self, tenant_id: TenantId) {
        // Fails only for a label set that does not exist.
        let _removed = self.counters.remove_label_values(&[tenant_id.to_string().as_str()]);
    }

    /// Seconds since the start.
    fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

/// The bytes of a dropped set that no scrape has shown.
struct Unshown {
    tenant_id: TenantId,
    bytes: u64,
}

impl ActiveTenants {
    /// Counts bytes of a tenant. Returns the tenant whose set was dropped for it.
    fn count(&mut self, tenant_id: TenantId, more: u64, now: u64) -> Option<Unshown> {
        let known = self.of_tenants.remove(&tenant_id);
        let bytes = known.as_ref().map_or(0, |tenant| self.unshown(tenant)).saturating_add(more);
        let is_full = self.of_tenants.len() >= TENANTS_MAX;
        let idle = is_full.then(|| self.of_tenants.take_oldest(|_| true)).flatten();
        let tenant = TenantBytes { stored_at: now, scrapes: self.scrapes, bytes };
        self.of_tenants.insert(Some(tenant_id), tenant_id, tenant, PLACE_BYTES);
        idle.map(|(tenant_id, tenant)| Unshown { tenant_id, bytes: self.unshown(&tenant) })
    }

    const fn unshown(&self, tenant: &TenantBytes) -> u64 {
        if tenant.scrapes == self.scrapes { tenant.bytes } else { 0 }
    }
}

impl Cache for StoredBytes {
    fn name(&self) -> &'static str {
        "stored-bytes"
    }

    fn in_use(&self) -> CacheUse {
        self.active.lock().of_tenants.in_use()
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        let mut active = self.active.lock();
        let Some(one) = tenant_id else {
            self.counters.reset();
            return active.of_tenants.clear();
        };
        self.remove(one);
        active.of_tenants.forget(tenant_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric() -> (Registry, StoredBytes) {
        let registry = Registry::new();
        let metric = StoredBytes::new(&registry).expect("a metric");
        (registry, metric)
    }

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("in range")
    }

    fn store(metric: &StoredBytes, number: i64, bytes: i64, now: u64) {
        metric.count_at(&HashMap::from([(tenant(number), bytes)]), now);
    }

    /// The series that a scrape shows, by label.
    fn series(registry: &Registry) -> HashMap<String, u64> {
        let families = registry.gather();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let shown = metrics.map(|metric| {
            let value = metric.get_counter().get_value() as u64;
            (metric.get_label()[0].value().to_owned(), value)
        });
        shown.collect()
    }

    #[test]
    fn a_thousand_tenants_have_label_sets_of_their_own_and_no_byte_is_left_out() {
        let (registry, metric) = metric();
        for number in (1..=1_200).chain(1..=1_200) {
            store(&metric, number, 5, 0);
        }
        let shown = series(&registry);
        assert_eq!(shown.len(), 1_001);
        assert_eq!(shown.values().sum::<u64>(), 2 * 1_200 * 5);
        assert_eq!((shown[OTHER], shown[&tenant(1_200).to_string()]), (1_400 * 5, 5));
    }

    #[test]
    fn a_new_tenant_takes_the_place_of_the_one_that_stored_nothing_for_the_longest() {
        let (registry, metric) = metric();
        for number in 1..=1_000 {
            store(&metric, number, 5, 0);
        }
        metric.scrape_at(0);
        // The bytes of the first tenant were shown; of the second some are new.
        store(&metric, 2, 3, 1);
        store(&metric, 2_001, 1_000_000, 2);
        let shown = series(&registry);
        assert_eq!((shown.get(&tenant(1).to_string()), shown[OTHER]), (None, 0));
        assert_eq!(shown[&tenant(2_001).to_string()], 1_000_000);
        for number in 3_000..3_999 {
            store(&metric, number, 1, 3);
        }
        let shown = series(&registry);
        assert_eq!((shown.get(&tenant(2).to_string()), shown[OTHER]), (None, 3));
        // A tenant that keeps storing keeps its set.
        for number in 4_000..9_000 {
            store(&metric, 2_001, 1, 4);
            store(&metric, number, 1, 4);
        }
        assert_eq!(series(&registry)[&tenant(2_001).to_string()], 1_005_000);
    }

    #[test]
    fn a_tenant_that_stored_nothing_for_six_hours_goes_and_may_come_back() {
        let (registry, metric) = metric();
        store(&metric, 1, 5, 0);
        store(&metric, 2, 5, 0);
        store(&metric, 1, 5, 10);
        metric.scrape_at(LIFE_SECONDS - 1);
        assert_eq!(series(&registry).len(), 2);
        metric.scrape_at(LIFE_SECONDS);
        assert_eq!(series(&registry), HashMap::from([(tenant(1).to_string(), 10)]));
        store(&metric, 2, 7, LIFE_SECONDS);
        assert_eq!(series(&registry)[&tenant(2).to_string()], 7);
        metric.scrape_at(3 * LIFE_SECONDS);
        assert!(series(&registry).is_empty());
        assert_eq!(metric.in_use().entries, 0);
    }

    #[test]
    fn the_operator_clears_one_tenant_or_all() {
        let (registry, metric) = metric();
        for number in 1..=1_003 {
            store(&metric, number, 5, 0);
        }
        assert_eq!((metric.clear(Some(tenant(9))), metric.clear(Some(tenant(9)))), (1, 0));
        assert!(!series(&registry).contains_key(&tenant(9).to_string()));
        assert_eq!((metric.clear(None), metric.in_use().entries), (999, 0));
        assert!(series(&registry).is_empty());
    }
}
