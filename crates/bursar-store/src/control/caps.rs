//! Limits on the rows of a tenant.
//!
//! Rows are counted in the transaction that adds one. It locks the tenant's row, so that two
//! transactions cannot both use the last place.

use bursar_core::{IntegrationId, TenantId};

use super::refusal::{Changed, ControlRefusal};
use crate::write::writer_connection::{ControlTx, RowCounts};

/// Deleted integrations that a tenant may have for each live one: their usage refers to them.
const DELETED_PER_LIVE: u32 = 5;

/// The limits on the rows of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantCaps {
    /// Integrations that are not deleted.
    pub integrations: u32,
    /// API keys that are neither revoked nor expired.
    pub api_keys: u32,
    /// Keys of one integration that are neither revoked nor expired.
    pub integration_keys: u32,
}

impl Default for TenantCaps {
    fn default() -> Self {
        Self { integrations: 10_000, api_keys: 1_000, integration_keys: 200 }
    }
}

/// Whether a new key is an additional one, or replaces another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewKey {
    Additional,
    /// The old key ends at once.
    Replacement,
    /// The old key stays valid during an overlap.
    Overlapping,
}

impl NewKey {
    pub(super) const fn rotated(overlap_seconds: u32) -> Self {
        if overlap_seconds == 0 { Self::Replacement } else { Self::Overlapping }
    }

    /// The limit on the live keys before the new one is created.
    ///
    /// A full set of keys must not prevent the rotation of a leaked one, so overlapping keys have
    /// room of their own, and a replacement is always possible.
    const fn live_max(self, cap: u32) -> u32 {
        match self {
            Self::Additional => cap,
            Self::Replacement => u32::MAX,
            Self::Overlapping => cap.saturating_mul(2),
        }
    }
}

impl TenantCaps {
    /// Checks that the tenant may have another integration.
    pub(super) fn check_integrations(
        self,
        tx: &mut dyn ControlTx,
        tenant_id: TenantId,
    ) -> Changed<()> {
        let max = self.integrations;
        let RowCounts { live, ended } = tx.integration_counts(tenant_id)?;
        if live >= max {
            return Ok(Err(ControlRefusal::TooManyIntegrations { max }));
        }
        let deleted_max = max.saturating_mul(DELETED_PER_LIVE);
        if ended >= deleted_max {
            return Ok(Err(ControlRefusal::TooManyDeleted { max: deleted_max }));
        }
        Ok(Ok(()))
    }

    /// Checks that the tenant or the integration may have another key, and deletes the oldest ended
    /// keys if there are too many.
    pub(super) fn check_keys(
        self,
        tx: &mut dyn ControlTx,
        owner: (TenantId, Option<IntegrationId>),
        new: NewKey,
    ) -> Changed<()> {
        let (_, integration_id) = owner;
        let max = if integration_id.is_none() { self.api_keys } else { self.integration_keys };
        let now = tx.now();
        let RowCounts { live, ended } = tx.key_counts(owner, now)?;
        if live >= new.live_max(max) {
            return Ok(Err(ControlRefusal::TooManyKeys { max }));
        }
        if ended >= max {
            tx.drop_ended_keys(owner, now, max.saturating_sub(1))?;
        }
        Ok(Ok(()))
    }
}
