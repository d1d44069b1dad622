//! The sets of limits that a server keeps in memory.

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{LimitSet, TenantId};

/// The limit on the limits of all sets, each set counting as one more.
const LIMITS_MAX: usize = 100_000;

/// Sets of limits by tenant. If they are too large, all but the last one are dropped.
#[derive(Default)]
pub(crate) struct LimitSets {
    sets: HashMap<TenantId, Arc<LimitSet>>,
    /// The limits and sets in `sets`.
    size: usize,
}

impl LimitSets {
    pub(crate) fn get(&self, tenant_id: TenantId) -> Option<&Arc<LimitSet>> {
        self.sets.get(&tenant_id)
    }

    /// Keeps the set of a tenant. Returns whether the other sets were dropped.
    pub(crate) fn insert(&mut self, tenant_id: TenantId, set: Arc<LimitSet>) -> bool {
        self.remove(tenant_id);
        let is_full = self.size + size_of_set(&set) > LIMITS_MAX;
        if is_full {
            *self = Self::default();
        }
        self.size += size_of_set(&set);
        self.sets.insert(tenant_id, set);
        is_full
    }

    pub(crate) fn remove(&mut self, tenant_id: TenantId) {
        self.size -= self.sets.remove(&tenant_id).map_or(0, |set| size_of_set(&set));
    }
}

fn size_of_set(set: &LimitSet) -> usize {
    set.limits().len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: usize) -> TenantId {
        TenantId::from_number(number as i64).expect("in range")
    }

    #[test]
    fn all_sets_but_the_last_are_dropped_when_they_are_too_large() {
        let mut sets = LimitSets::default();
        for number in 1..=LIMITS_MAX {
            assert!(!sets.insert(tenant(number), Arc::default()));
        }
        // A later version of a set takes the place of the one before.
        assert!(!sets.insert(tenant(1), Arc::default()));
        sets.remove(tenant(2));
        assert!(!sets.insert(tenant(2), Arc::default()));
        assert!(sets.insert(tenant(LIMITS_MAX + 1), Arc::default()));
        assert!(sets.get(tenant(1)).is_none());
        assert!(sets.get(tenant(LIMITS_MAX + 1)).is_some());
        assert!(!sets.insert(tenant(1), Arc::default()));
    }
}
