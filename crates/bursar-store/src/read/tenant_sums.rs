//! What a group adds to the sums that the caps of tenants look at.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use bursar_core::{Entry, HoldChange, IntegrationId, TenantId};

/// How many more reservations of each tenant are stored as open; tenants without a change are left
/// out.
pub(crate) fn open_changes(holds: &[HoldChange]) -> BTreeMap<TenantId, i64> {
    let mut changes: BTreeMap<TenantId, i64> = BTreeMap::new();
    for hold in holds {
        let (tenant_id, change): (TenantId, i64) = match hold {
            HoldChange::Made(hold) => (hold.tenant_id, 1),
            HoldChange::Ended(hold) => (hold.tenant_id, -1),
            HoldChange::Extended { .. } => continue,
        };
        // A group is far smaller than its integer.
        let sum = changes.entry(tenant_id).or_default();
        *sum = sum.saturating_add(change);
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
