//! What a group adds to the sums that the caps of tenants look at.

use std::collections::BTreeMap;

use bursar_core::{Entry, HoldChange, IntegrationId, TenantId};

/// How many more reservations of each tenant are stored as open; tenants without a change are left
/// out.
pub(crate) fn open_changes(holds: &[HoldChange]) -> BTreeMap<TenantId, i64> {
    let mut changes: BTreeMap<TenantId, i64> = BTreeMap::new();
    for hold in holds {
        match hold {
            HoldChange::Made(hold) => *changes.entry(hold.tenant_id).or_default() += 1,
            HoldChange::Ended(hold) => *changes.entry(hold.tenant_id).or_default() -= 1,
            HoldChange::Extended { .. } => {}
        }
    }
    changes.retain(|_, change| *change != 0);
    changes
}

/// The bytes of new entries, by integration. They are stored apart, because a group has the
/// integrations that it touches to itself and their tenant not.
pub(crate) fn bytes_of_integrations(
    entries: &[Entry<'_>],
) -> BTreeMap<(TenantId, IntegrationId), i64> {
    let mut bytes: BTreeMap<(TenantId, IntegrationId), i64> = BTreeMap::new();
    for entry in entries {
        let sum = bytes.entry((entry.tenant_id, entry.usage.integration_id)).or_default();
        *sum = sum.saturating_add(entry.usage.stored_bytes());
    }
    bytes
}
