//! The changes of a group to the sums that the caps of tenants limit.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use bursar_core::{Entry, HoldChange, IntegrationId, TenantId};

/// The change in the number of open reservations by tenant, without tenants that have none.
pub(crate) fn open_changes(holds: &[HoldChange]) -> BTreeMap<TenantId, i64> {
    let mut changes: BTreeMap<TenantId, i64> = BTreeMap::new();
    for hold in holds {
        let (tenant_id, change): (TenantId, i64) = match hold {
            HoldChange::Made(hold) => (hold.tenant_id, 1),
            HoldChange::Ended(hold) => (hold.tenant_id, -1),
            HoldChange::Extended { .. } => continue,
        };
        // A group is far too small to saturate.
        let sum = changes.entry(tenant_id).or_default();
        *sum = sum.saturating_add(change);
    }
    changes.retain(|_, change| *change != 0);
    changes
}

/// The bytes of new entries by integration.
///
/// They are stored by integration, because a group locks its integrations but not the tenant.
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
