//! A map with a limit for all tenants and for each, in entries and bytes.
//!
//! A tenant at its limit loses its own oldest entry; if the whole map is full, the oldest entry of
//! all is dropped. Deliberately absent: locks and clocks. Age is the order of insertion.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use bursar_core::TenantId;
use bursar_store::CacheUse;

/// The tenant of an entry. `None` for entries that belong to no tenant, which share one limit.
pub(crate) type EntryOwner = Option<TenantId>;

/// The limits of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheBounds {
    /// The most entries of all tenants.
    pub(crate) entries_max: usize,
    /// The most entries of one tenant.
    pub(crate) tenant_entries_max: usize,
    /// The most bytes of all entries, as counted by the caller. One tenant may have a quarter.
    pub(crate) bytes_max: usize,
}

/// A map that drops its oldest entries when it is full.
#[derive(Debug)]
pub(crate) struct TenantCache<K, V> {
    bounds: CacheBounds,
    slots: HashMap<K, Slot<V>>,
    /// The entries by age, oldest first.
    by_age: BTreeMap<u64, K>,
    shares: HashMap<EntryOwner, Share>,
    bytes: usize,
    next_age: u64,
}

#[derive(Debug)]
struct Slot<V> {
    age: u64,
    owner: EntryOwner,
    bytes: usize,
    value: V,
}

/// The entries of one tenant.
#[derive(Debug, Default)]
struct Share {
    ages: BTreeSet<u64>,
    bytes: usize,
}

impl<K: Copy + Eq + Hash, V> TenantCache<K, V> {
    pub(crate) fn new(bounds: CacheBounds) -> Self {
        Self {
            bounds,
            slots: HashMap::new(),
            by_age: BTreeMap::new(),
            shares: HashMap::new(),
            bytes: 0,
            next_age: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// A mutable value. This does not make the entry younger.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.slots.get_mut(key).map(|slot| &mut slot.value)
    }

    /// Inserts or replaces an entry, and drops the oldest ones if needed.
    ///
    /// An entry larger than a tenant's share is not stored.
    pub(crate) fn insert(&mut self, owner: EntryOwner, key: K, value: V, bytes: usize) {
        self.remove(&key);
        let CacheBounds { entries_max, tenant_entries_max, bytes_max } = self.bounds;
        let tenant_bytes_max = bytes_max / 4;
        if bytes > tenant_bytes_max || tenant_entries_max == 0 || entries_max == 0 {
            return;
        }
        while let Some(share) = self.shares.get(&owner)
            && (share.ages.len() >= tenant_entries_max || share.bytes + bytes > tenant_bytes_max)
            && let Some(oldest) = share.ages.first().copied()
        {
            self.remove_aged(oldest);
        }
        while (self.slots.len() >= entries_max || self.bytes + bytes > bytes_max)
            && let Some((oldest, _)) = self.by_age.first_key_value()
        {
            self.remove_aged(*oldest);
        }
        let age = self.next_age;
        self.next_age += 1;
        self.slots.insert(key, Slot { age, owner, bytes, value });
        self.by_age.insert(age, key);
        let share = self.shares.entry(owner).or_default();
        share.ages.insert(age);
        share.bytes += bytes;
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let Slot { age, owner, bytes, value } = self.slots.remove(key)?;
        self.by_age.remove(&age);
        self.bytes -= bytes;
        if let Some(share) = self.shares.get_mut(&owner) {
            share.ages.remove(&age);
            share.bytes -= bytes;
            if share.ages.is_empty() {
                self.shares.remove(&owner);
            }
        }
        Some(value)
    }

    /// Removes the oldest entries as long as `is_over` holds.
    pub(crate) fn expire(&mut self, is_over: impl Fn(&V) -> bool) {
        while self.take_oldest(&is_over).is_some() {}
    }

    /// Removes and returns the oldest entry if `is_over` holds.
    pub(crate) fn take_oldest(&mut self, is_over: impl Fn(&V) -> bool) -> Option<(K, V)> {
        let (_, key) = self.by_age.first_key_value()?;
        let key = *key;
        if !self.get(&key).is_some_and(is_over) {
            return None;
        }
        self.remove(&key).map(|value| (key, value))
    }

    /// Removes all entries of a tenant. Returns their number.
    pub(crate) fn forget(&mut self, owner: EntryOwner) -> usize {
        let ages = self.shares.get(&owner).map(|share| share.ages.clone()).unwrap_or_default();
        for age in &ages {
            self.remove_aged(*age);
        }
        ages.len()
    }

    /// Removes all entries. Returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        let entries = self.slots.len();
        *self = Self { next_age: self.next_age, ..Self::new(self.bounds) };
        entries
    }

    /// Removes and returns all entries.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        let slots = std::mem::take(&mut self.slots);
        self.clear();
        slots.into_iter().map(|(key, slot)| (key, slot.value))
    }

    /// How full the cache is.
    pub(crate) fn in_use(&self) -> CacheUse {
        let CacheBounds { entries_max, tenant_entries_max, bytes_max } = self.bounds;
        let of_tenant = |(owner, share): (&EntryOwner, &Share)| Some(((*owner)?, share.ages.len()));
        CacheUse {
            entries: self.slots.len(),
            entries_max,
            tenant_entries_max,
            bytes: Some(self.bytes),
            bytes_max: Some(bytes_max),
            tenants: self.shares.iter().filter_map(of_tenant).collect(),
        }
    }

    fn remove_aged(&mut self, age: u64) {
        if let Some(key) = self.by_age.get(&age).copied() {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: CacheBounds =
        CacheBounds { entries_max: 10, tenant_entries_max: 4, bytes_max: 400 };

    fn tenant(number: i64) -> EntryOwner {
        Some(TenantId::from_number(number).expect("in range"))
    }

    fn keys(cache: &TenantCache<u32, u32>) -> Vec<u32> {
        cache.by_age.values().copied().collect()
    }

    #[test]
    fn a_tenant_at_its_share_loses_its_own_oldest_entry() {
        let mut cache = TenantCache::new(BOUNDS);
        cache.insert(tenant(1), 5_000, 0, 1);
        for key in 0..1_000 {
            cache.insert(tenant(2), key, 0, 1);
        }
        assert_eq!(keys(&cache), [5_000, 996, 997, 998, 999]);
        assert_eq!((cache.len(), cache.bytes), (5, 5));
    }

    #[test]
    fn bytes_are_a_share_too() {
        let mut cache = TenantCache::new(BOUNDS);
        for key in 0..3 {
            cache.insert(tenant(1), key, 0, 50);
        }
        assert_eq!(keys(&cache), [1, 2]);
        cache.insert(tenant(1), 9, 0, 101);
        assert_eq!(keys(&cache), [1, 2], "more than the share of a tenant");
        for (key, owner) in (10..18).zip(2..) {
            cache.insert(tenant(owner), key, 0, 50);
        }
        assert_eq!((cache.len(), cache.bytes), (8, 400));
        assert_eq!(keys(&cache), (10..18).collect::<Vec<_>>());
    }

    #[test]
    fn when_all_is_full_the_oldest_of_all_goes() {
        let mut cache = TenantCache::new(BOUNDS);
        for key in 0..12 {
            cache.insert(tenant(i64::from(key) + 1), key, 0, 1);
        }
        assert_eq!(keys(&cache), (2..12).collect::<Vec<_>>());
    }

    #[test]
    fn what_comes_again_takes_its_own_place() {
        let mut cache = TenantCache::new(BOUNDS);
        cache.insert(tenant(1), 1, 5, 60);
        cache.insert(tenant(1), 2, 6, 40);
        cache.insert(tenant(1), 1, 7, 50);
        assert_eq!((cache.get(&1), keys(&cache)), (Some(&7), vec![2, 1]));
        assert_eq!(cache.bytes, 90);
        cache.expire(|value| *value == 6);
        assert_eq!(keys(&cache), [1]);
    }

    #[test]
    fn forgetting_leaves_nothing_behind() {
        let mut cache = TenantCache::new(BOUNDS);
        cache.insert(tenant(1), 1, 0, 1);
        cache.insert(tenant(2), 2, 0, 1);
        cache.insert(None, 3, 0, 1);
        assert_eq!(cache.forget(tenant(2)), 1);
        assert_eq!(cache.in_use().tenants.len(), 1);
        assert_eq!((cache.forget(tenant(2)), cache.clear()), (0, 2));
        assert!(cache.slots.is_empty() && cache.shares.is_empty() && cache.by_age.is_empty());
        cache.insert(tenant(1), 1, 8, 1);
        assert_eq!(cache.drain().collect::<Vec<_>>(), [(1, 8)]);
        assert!(cache.shares.is_empty() && cache.by_age.is_empty() && cache.bytes == 0);
    }
}
