//! Which tags of entries count in rollups.

use std::collections::BTreeMap;
use std::collections::btree_map;

use bursar_core::{Entry, TagNames, Tags, TenantId};

use crate::error::StoreError;
use crate::rows::rollup_labels::Labels;

/// Which tags of an entry count in rollups: a bit for each tag, in the order of their names.
///
/// It is stored with the entry, because the listed names change, and concurrent transactions may
/// see the list before and after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CountedTags(u64);

impl CountedTags {
    fn of(tags: &Tags, names: &TagNames) -> Self {
        let listed = Self::bits().zip(tags.iter()).filter(|(_, (name, _))| names.contains(name));
        Self(listed.fold(0, |counted, (bit, _)| counted | bit))
    }

    /// A bit for each of 63 tags; an entry has fewer.
    fn bits() -> impl Iterator<Item = u64> {
        (0..63).map(|at| 1 << at)
    }

    /// From the stored number.
    pub(crate) const fn stored(number: i64) -> Self {
        Self(number.cast_unsigned())
    }

    pub(crate) const fn number(self) -> i64 {
        self.0.cast_signed()
    }

    /// The names and values of the tags that count.
    pub(crate) fn of_tags(self, tags: &Tags) -> impl Iterator<Item = (&str, &str)> {
        Self::bits().zip(tags.iter()).filter(move |(bit, _)| self.0 & bit != 0).map(|(_, tag)| tag)
    }
}

/// Decides which tags of entries count in rollups: those whose names are listed for the tenant.
pub(crate) fn counted_tags(
    entries: &[Entry<'_>],
    labels: &mut dyn Labels,
) -> Result<Vec<CountedTags>, StoreError> {
    let mut names: BTreeMap<TenantId, TagNames> = BTreeMap::new();
    let mut counted = Vec::with_capacity(entries.len());
    for entry in entries {
        let tags = &entry.usage.tags;
        if tags.iter().len() == 0 {
            counted.push(CountedTags::default());
            continue;
        }
        let names = match names.entry(entry.tenant_id) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => new.insert(labels.tag_names(entry.tenant_id)?),
        };
        counted.push(CountedTags::of(tags, names));
    }
    Ok(counted)
}
