//! A map of fixed capacity that forgets whatever was not asked for the longest.

use std::collections::HashMap;
use std::hash::Hash;

/// The place of nothing.
const NONE: u32 = u32::MAX;

/// Values by key, of which the one idle the longest goes when another comes and all places are
/// taken. Entries are linked by their places in one list, from the newest to the oldest, so that
/// every access costs the same however many there are.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    places: HashMap<K, u32>,
    entries: Vec<Entry<K, V>>,
    newest: u32,
    oldest: u32,
    capacity: u32,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    newer: u32,
    older: u32,
}

impl<K: Copy + Eq + Hash, V: Default> Recent<K, V> {
    /// An empty map of this many places; at least one.
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity.clamp(1, NONE);
        let (places, entries) = (HashMap::new(), Vec::new());
        Self { places, entries, newest: NONE, oldest: NONE, capacity }
    }

    /// The value of a key, a fresh one if it is new; from now on the newest. Never nothing.
    pub(super) fn touch(&mut self, key: K) -> Option<&mut V> {
        let place = match self.places.get(&key) {
            Some(&place) => {
                if place != self.newest {
                    self.unlink(place);
                    self.link(place);
                }
                place
            }
            None => self.admit(key),
        };
        self.entries.get_mut(place as usize).map(|entry| &mut entry.value)
    }

    /// How many places are taken.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives a new key a place: a free one, else that of the oldest.
    fn admit(&mut self, key: K) -> u32 {
        let fresh = Entry { key, value: V::default(), newer: NONE, older: NONE };
        let taken = self.entries.len() as u32;
        let place = if taken < self.capacity {
            self.entries.push(fresh);
            taken
        } else {
            let place = self.oldest;
            self.unlink(place);
            if let Some(entry) = self.entries.get_mut(place as usize) {
                self.places.remove(&entry.key);
                *entry = fresh;
            }
            place
        };
        self.places.insert(key, place);
        self.link(place);
        place
    }

    fn unlink(&mut self, place: u32) {
        let Some(&Entry { newer, older, .. }) = self.entries.get(place as usize) else { return };
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link(&mut self, place: u32) {
        let second = self.newest;
        if let Some(entry) = self.entries.get_mut(place as usize) {
            (entry.newer, entry.older) = (NONE, second);
        }
        match self.entries.get_mut(second as usize) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_one_idle_the_longest_goes(
            capacity in 1u32..6,
            keys in prop::collection::vec(0u8..9, 1..200),
        ) {
            let mut recent: Recent<u8, u32> = Recent::new(capacity);
            // From the oldest to the newest.
            let mut plain: Vec<(u8, u32)> = Vec::new();
            for key in keys {
                let known = plain.iter().position(|(one, _)| *one == key);
                let before = known.map_or(0, |place| plain.remove(place).1);
                if plain.len() == capacity as usize {
                    plain.remove(0);
                }
                plain.push((key, before + 1));
                let value = recent.touch(key).expect("a place");
                *value += 1;
                prop_assert_eq!(*value, before + 1);
                prop_assert_eq!(recent.len(), plain.len());
                prop_assert_eq!(recent.places.len(), plain.len());
            }
        }
    }
}
