//! A writer's cache of the labels and keys that have rollups of their own. Almost all labels and keys
//! of a group are in it.

use std::collections::HashSet;

use bursar_core::{IntegrationId, KeyId, TenantId};

use crate::rows::rollup_labels::{KeyedModel, Label, LabelKind};

/// The limit on the cache, which is emptied when it is full. A tenant has at most 2,000 models and
/// agents, 1,000 values of each tag, and 1,000 keys for each integration and day.
const REMEMBERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The approximate memory of a label or key without its texts.
const KNOWN_BYTES: usize = 96;

/// A label or key that has rollups of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Known {
    Label(TenantId, LabelKind, Box<str>, Box<str>),
    Key(TenantId, IntegrationId, i32, KeyId, Box<str>, Box<str>),
}

impl From<Label<'_>> for Known {
    fn from(label: Label<'_>) -> Self {
        let Label { tenant_id, kind, provider, label } = label;
        Self::Label(tenant_id, kind, provider.into(), label.into())
    }
}

impl From<KeyedModel<'_>> for Known {
    fn from(key: KeyedModel<'_>) -> Self {
        let KeyedModel { tenant_id, integration_id, day, provider, model, key_id } = key;
        Self::Key(tenant_id, integration_id, day, key_id, provider.into(), model.into())
    }
}

impl Known {
    fn bytes(&self) -> usize {
        let (Self::Label(.., provider, label) | Self::Key(.., provider, label)) = self;
        KNOWN_BYTES + provider.len() + label.len()
    }
}

/// Labels and keys whose rollups or rows are known to be stored.
#[derive(Default)]
pub(super) struct KnownLabels {
    stored: HashSet<Known>,
    stored_bytes: usize,
    /// What the transaction adds or finds stored.
    staged: Vec<Known>,
}

impl KnownLabels {
    pub(super) fn contains(&self, known: &Known) -> bool {
        self.stored.contains(known)
    }

    /// Adds labels or keys that become known if the transaction commits.
    pub(super) fn stage(&mut self, known: impl Iterator<Item = Known>) {
        self.staged.extend(known);
    }

    /// Makes what is staged known, after a commit.
    pub(super) fn keep_staged(&mut self) {
        for known in self.staged.drain(..) {
            let bytes = known.bytes();
            if self.stored_bytes + bytes > REMEMBERED_BYTES_MAX {
                self.stored.clear();
                self.stored_bytes = 0;
            }
            if self.stored.insert(known) {
                self.stored_bytes += bytes;
            }
        }
    }

    pub(super) fn forget_staged(&mut self) {
        self.staged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_labels_is_limited_in_bytes() {
        let mut known = KnownLabels::default();
        let long = "\u{1f4b8}".repeat(250);
        for tenant in 1..=4 {
            let tenant_id = TenantId::from_number(tenant).expect("in range");
            for number in 0..10_000 {
                let label = format!("{long}{number}").into();
                known.staged.push(Known::Label(tenant_id, LabelKind::Agent, "".into(), label));
            }
            known.keep_staged();
            let bytes: usize = known.stored.iter().map(Known::bytes).sum();
            assert!(bytes <= known.stored_bytes && bytes <= REMEMBERED_BYTES_MAX, "{bytes}");
        }
        assert!(!known.stored.is_empty() && known.staged.is_empty());
    }
}
