//! A writer's cache of stored labels. Almost all labels of a group are in it.

use std::collections::HashSet;

use bursar_core::TenantId;

use crate::rows::rollup::{Label, LabelKind};

/// The limit on the cache, which is emptied when it is full. A tenant has at most 11,000 labels
/// (`LabelKind::max`).
const REMEMBERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The approximate memory of a label without its texts.
const LABEL_BYTES: usize = 80;

type Owned = (TenantId, LabelKind, Box<str>, Box<str>);

/// Labels that are known to be stored.
#[derive(Default)]
pub(super) struct KnownLabels {
    stored: HashSet<Owned>,
    stored_bytes: usize,
    /// The labels that the transaction adds or finds stored.
    staged: Vec<Owned>,
}

impl KnownLabels {
    pub(super) fn contains(&self, (tenant_id, kind, provider, label): Label<'_>) -> bool {
        self.stored.contains(&(tenant_id, kind, provider.into(), label.into()))
    }

    /// Adds labels that become known if the transaction commits.
    pub(super) fn stage(&mut self, labels: &[Label<'_>]) {
        let owned = |label: &Label<'_>| (label.0, label.1, label.2.into(), label.3.into());
        self.staged.extend(labels.iter().map(owned));
    }

    /// Makes the staged labels known, after a commit.
    pub(super) fn keep_staged(&mut self) {
        for label in self.staged.drain(..) {
            let bytes = LABEL_BYTES + label.2.len() + label.3.len();
            if self.stored_bytes + bytes > REMEMBERED_BYTES_MAX {
                self.stored.clear();
                self.stored_bytes = 0;
            }
            if self.stored.insert(label) {
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
                known.staged.push((tenant_id, LabelKind::Agent, "".into(), label));
            }
            known.keep_staged();
            let bytes: usize = known.stored.iter().map(|label| label.3.len()).sum();
            assert!(bytes <= known.stored_bytes && bytes <= REMEMBERED_BYTES_MAX, "{bytes}");
        }
        assert!(!known.stored.is_empty() && known.staged.is_empty());
    }
}
