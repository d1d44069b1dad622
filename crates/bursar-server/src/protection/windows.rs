//! The windows of all tenants, split into shards so that requests seldom wait for a lock.

use bursar_core::{ProtectionDecision, TenantId};
use bursar_store::{Cache, CacheUse};
use parking_lot::Mutex;

use crate::protection::counting::{Capacity, SlidingWindows};
use crate::protection::rule::{ProtectedRequest, Protection};

/// The number of shards, each with a lock.
const SHARDS: u32 = 16;
/// The capacity of all shards together: about 35 MiB when full.
const CAPACITY: Capacity = Capacity { tenants: 32_768, owners: 32_768, routes: 65_536 };
/// The capacity of one shard, and so of one tenant.
const OF_SHARD: Capacity = {
    let Capacity { tenants, owners, routes } = CAPACITY;
    Capacity { tenants: tenants / SHARDS, owners: owners / SHARDS, routes: routes / SHARDS }
};

/// One [`Protection`] per shard. A tenant always uses the same one.
pub(super) struct Windows {
    shards: Vec<Mutex<Box<dyn Protection>>>,
    /// The number of routes that a tenant can be counted on.
    routes: u32,
}

impl Windows {
    /// Empty windows of the built-in protection.
    pub(super) fn counting(routes: u32) -> Self {
        Self::new(routes, |capacity| Box::new(SlidingWindows::new(capacity)))
    }

    /// Empty windows, with one protection per shard.
    fn new(routes: u32, make: impl Fn(Capacity) -> Box<dyn Protection>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(make(OF_SHARD))).collect();
        Self { shards, routes }
    }

    /// Asks the protection of a tenant's shard.
    pub(super) fn ask(
        &self,
        request: &ProtectedRequest,
        ask: impl FnOnce(&mut dyn Protection, &ProtectedRequest) -> ProtectionDecision,
    ) -> ProtectionDecision {
        match self.shards.get(shard_of(request.owner.tenant_id)) {
            Some(shard) => ask(shard.lock().as_mut(), request),
            None => ProtectionDecision::Allow,
        }
    }
}

impl Cache for Windows {
    fn name(&self) -> &'static str {
        "protection-windows"
    }

    fn in_use(&self) -> CacheUse {
        let tenants: Vec<_> = self.shards.iter().flat_map(|shard| shard.lock().windows()).collect();
        CacheUse {
            entries: tenants.iter().map(|(_, windows)| windows).sum(),
            entries_max: CAPACITY.windows_max() as usize,
            tenant_entries_max: OF_SHARD.tenant_windows_max(self.routes) as usize,
            tenants,
            ..CacheUse::default()
        }
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        match tenant_id {
            Some(one) => {
                self.shards.get(shard_of(one)).map_or(0, |shard| shard.lock().clear(tenant_id))
            }
            None => self.shards.iter().map(|shard| shard.lock().clear(None)).sum(),
        }
    }
}

/// Ids are times: their last bits alone would be distributed badly.
fn shard_of(tenant_id: TenantId) -> usize {
    let mixed = (tenant_id.number() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed % u64::from(SHARDS)) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bursar_core::{Breach, Dimension, Timestamp};

    use super::*;
    use crate::protection::rule::{RouteNumber, WindowOwner};
    use crate::protection::thresholds::{RequestClass, Thresholds};

    #[test]
    fn tenants_are_spread_over_all_locks() {
        // Created one after the other, some microseconds apart.
        let mut tenants = [0_u32; SHARDS as usize];
        for number in 0..16_000_i64 {
            let tenant_id = TenantId::from_number(1_763_600_000_000_000 + number * 64);
            tenants[shard_of(tenant_id.expect("in range"))] += 1;
        }
        assert!(tenants.iter().all(|count| (500..1_500).contains(count)), "{tenants:?}");
    }

    /// A protection that admits nothing.
    struct Never;

    impl Protection for Never {
        fn decide(&mut self, _: &ProtectedRequest) -> ProtectionDecision {
            let (dimension, retry_after_ms) = (Dimension::Rate, 1);
            let (current_value, allowed_value) = (1, 1);
            let breach = Breach { dimension, retry_after_ms, current_value, allowed_value };
            ProtectionDecision::Reject(breach)
        }

        fn count(&mut self, _: &ProtectedRequest) -> ProtectionDecision {
            ProtectionDecision::Allow
        }

        fn windows(&self) -> Vec<(TenantId, usize)> {
            Vec::new()
        }

        fn clear(&mut self, _: Option<TenantId>) -> usize {
            0
        }
    }

    fn request(tenant: i64) -> ProtectedRequest {
        let tenant_id = TenantId::from_number(tenant).expect("in range");
        ProtectedRequest {
            owner: WindowOwner { tenant_id, integration_id: None },
            route: RouteNumber(1),
            class: RequestClass::Management,
            thresholds: Thresholds::default(),
            now: Timestamp::MIN,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn another_rule_can_take_the_place_of_the_one_that_is_built_in() {
        let own = Windows::counting(40);
        let other = Windows::new(40, |_| Box::new(Never));
        for tenant in 1..100 {
            let asked = request(tenant);
            let decision = own.ask(&asked, |rule, request| rule.decide(request));
            assert_eq!(decision, ProtectionDecision::Allow);
            let decision = other.ask(&asked, |rule, request| rule.decide(request));
            assert_eq!(decision.as_str(), "reject");
            let decision = other.ask(&asked, |rule, request| rule.count(request));
            assert_eq!(decision, ProtectionDecision::Allow);
        }
    }
}
