//! A map of fixed capacity that evicts the least recently used entry.

use std::collections::HashMap;
use std::hash::Hash;

use bursar_core::TenantId;

/// The index that stands for no entry.
const NONE: u32 = u32::MAX;

/// A key of an [`LruMap`].
pub(super) trait Key: Copy + Eq + Hash {
    /// The tenant whose share of the map this key uses. `None` if it uses no share.
    fn sharer(&self) -> Option<TenantId>;
}

/// Values by key. When the map is full, a new key replaces the least recently used one.
///
/// A tenant that has used its whole share replaces its own least recently used key, so that one
/// tenant cannot evict the others. Entries are linked from newest to oldest, so every access takes
/// constant time.
#[derive(Debug)]
pub(super) struct LruMap<K, V> {
    indexes: HashMap<K, u32>,
    entries: Vec<Entry<K, V>>,
    all: List,
    /// The entries of tenants that use their share.
    shares: HashMap<TenantId, List>,
    capacity: u32,
    share_max: u32,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    in_all: Links,
    in_share: Links,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u32,
    older: u32,
}

/// The list in which an entry is moved.
#[derive(Clone, Copy)]
enum Within {
    All,
    Share,
}

/// The ends of a list that is linked through the entries.
#[derive(Debug)]
struct List {
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Links {
    const NONE: Self = Self { newer: NONE, older: NONE };
}

impl<K, V> Entry<K, V> {
    const fn links(&mut self, within: Within) -> &mut Links {
        match within {
            Within::All => &mut self.in_all,
            Within::Share => &mut self.in_share,
        }
    }
}

impl<K: Key, V: Default> LruMap<K, V> {
    /// An empty map with this capacity and this share of one tenant, at least one each.
    pub(super) fn new(capacity: u32, share_max: u32) -> Self {
        Self {
            indexes: HashMap::new(),
            entries: Vec::new(),
            all: List::EMPTY,
            shares: HashMap::new(),
            capacity: capacity.clamp(1, NONE),
            share_max: share_max.max(1),
        }
    }

    /// The value of a key, created if needed. The key becomes the newest. Always `Some`.
    pub(super) fn touch(&mut self, key: K) -> Option<&mut V> {
        let index = match self.indexes.get(&key) {
            Some(&index) => {
                self.renew(&key, index);
                index
            }
            None => self.admit(key),
        };
        self.entries.get_mut(index as usize).map(|entry| &mut entry.value)
    }

    /// Every key in no particular order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.iter().map(|entry| &entry.key)
    }

    /// Removes the keys for which `is_gone` holds. Returns their number.
    ///
    /// The others keep their values and order.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&K) -> bool) -> usize {
        if !self.keys().any(&is_gone) {
            return 0;
        }
        let empty = Self::new(self.capacity, self.share_max);
        let Self { entries, all, .. } = std::mem::replace(self, empty);
        let before = entries.len();
        let mut entries: Vec<_> = entries.into_iter().map(Some).collect();
        let mut index = all.oldest;
        while let Some(entry) = entries.get_mut(index as usize).and_then(Option::take) {
            index = entry.in_all.newer;
            if !is_gone(&entry.key)
                && let Some(value) = self.touch(entry.key)
            {
                *value = entry.value;
            }
        }
        before - self.len()
    }

    /// The number of entries.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    fn renew(&mut self, key: &K, index: u32) {
        if index == self.all.newest {
            return;
        }
        let Self { entries, all, shares, .. } = self;
        all.unlink(entries, index, Within::All);
        all.link(entries, index, Within::All);
        if let Some(share) = key.sharer().and_then(|tenant_id| shares.get_mut(&tenant_id)) {
            share.unlink(entries, index, Within::Share);
            share.link(entries, index, Within::Share);
        }
    }

    /// Inserts a new key.
    ///
    /// It replaces its tenant's oldest key if the share is used, else takes a free index, else
    /// replaces the oldest key.
    fn admit(&mut self, key: K) -> u32 {
        let sharer = key.sharer();
        let full_share = sharer
            .and_then(|tenant_id| self.shares.get(&tenant_id))
            .filter(|share| share.len >= self.share_max);
        let taken = self.entries.len() as u32;
        let (in_all, in_share) = (Links::NONE, Links::NONE);
        let fresh = Entry { key, value: V::default(), in_all, in_share };
        let index = match full_share {
            Some(share) => self.replace(share.oldest, fresh),
            None if taken == self.capacity => self.replace(self.all.oldest, fresh),
            None => {
                self.entries.push(fresh);
                taken
            }
        };
        self.indexes.insert(key, index);
        let Self { entries, all, shares, .. } = self;
        all.link(entries, index, Within::All);
        if let Some(tenant_id) = sharer {
            let share = shares.entry(tenant_id).or_insert(List::EMPTY);
            share.link(entries, index, Within::Share);
        }
        index
    }

    /// Replaces the entry at an index.
    fn replace(&mut self, index: u32, fresh: Entry<K, V>) -> u32 {
        let Self { indexes, entries, all, shares, .. } = self;
        all.unlink(entries, index, Within::All);
        let Some(key) = entries.get(index as usize).map(|entry| entry.key) else { return index };
        if let Some(tenant_id) = key.sharer()
            && let Some(share) = shares.get_mut(&tenant_id)
        {
            share.unlink(entries, index, Within::Share);
            if share.len == 0 {
                shares.remove(&tenant_id);
            }
        }
        indexes.remove(&key);
        if let Some(entry) = entries.get_mut(index as usize) {
            *entry = fresh;
        }
        index
    }
}

impl List {
    const EMPTY: Self = Self { newest: NONE, oldest: NONE, len: 0 };

    fn unlink<K, V>(&mut self, entries: &mut [Entry<K, V>], index: u32, within: Within) {
        let Some(entry) = entries.get_mut(index as usize) else { return };
        let Links { newer, older } = *entry.links(within);
        match entries.get_mut(newer as usize) {
            Some(entry) => entry.links(within).older = older,
            None => self.newest = older,
        }
        match entries.get_mut(older as usize) {
            Some(entry) => entry.links(within).newer = newer,
            None => self.oldest = newer,
        }
        self.len -= 1;
    }

    fn link<K, V>(&mut self, entries: &mut [Entry<K, V>], index: u32, within: Within) {
        let second = self.newest;
        if let Some(entry) = entries.get_mut(index as usize) {
            *entry.links(within) = Links { newer: NONE, older: second };
        }
        match entries.get_mut(second as usize) {
            Some(entry) => entry.links(within).newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A key that uses a share of a tenant, unless the first number is 0.
    impl Key for (u8, u8) {
        fn sharer(&self) -> Option<TenantId> {
            // There is no tenant 0.
            TenantId::from_number(self.0.into())
        }
    }

    /// The same as a plain list, oldest first.
    #[derive(Default)]
    struct Plain(Vec<((u8, u8), u32)>);

    impl Plain {
        fn touch(&mut self, key: (u8, u8), capacity: usize, share_max: usize) -> u32 {
            let known = self.0.iter().position(|(one, _)| *one == key);
            let before = known.map_or(0, |index| self.0.remove(index).1);
            let is_of_tenant = |((tenant, _), _): &((u8, u8), u32)| *tenant == key.0;
            let shared = self.0.iter().filter(|one| is_of_tenant(one)).count();
            if key.0 > 0 && shared >= share_max {
                let oldest = self.0.iter().position(is_of_tenant).expect("it has some");
                self.0.remove(oldest);
            } else if self.0.len() == capacity {
                self.0.remove(0);
            }
            self.0.push((key, before + 1));
            before + 1
        }
    }

    proptest! {
        #[test]
        fn the_one_idle_the_longest_goes_and_none_has_more_than_its_share(
            capacity in 1u32..8,
            share_max in 1u32..5,
            // Sometimes a tenant is removed.
            steps in prop::collection::vec(((0u8..4, 0u8..6), 0u8..10), 1..200),
        ) {
            let mut recent: LruMap<(u8, u8), u32> = LruMap::new(capacity, share_max);
            let mut plain = Plain::default();
            for (key, step) in steps {
                if step == 0 {
                    let before = plain.0.len();
                    plain.0.retain(|((tenant, _), _)| *tenant != key.0);
                    let gone = recent.forget(|(tenant, _)| *tenant == key.0);
                    prop_assert_eq!(gone, before - plain.0.len());
                    prop_assert!(recent.keys().all(|(tenant, _)| *tenant != key.0));
                }
                let expected = plain.touch(key, capacity as usize, share_max as usize);
                let value = recent.touch(key).expect("a place");
                *value += 1;
                prop_assert_eq!(*value, expected);
                prop_assert_eq!(recent.len(), recent.indexes.len());
                prop_assert_eq!(recent.indexes.len(), plain.0.len());
                let shared: u32 = recent.shares.values().map(|share| share.len).sum();
                let of_tenants = plain.0.iter().filter(|((tenant, _), _)| *tenant > 0).count();
                prop_assert_eq!(shared as usize, of_tenants);
                prop_assert!(recent.shares.values().all(|share| (1..=share_max).contains(&share.len)));
            }
        }
    }
}
