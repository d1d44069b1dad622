//! How many rows of a kind a tenant may have: counted in the transaction that adds one, which holds
//! the tenant's row, so that no two of them pass together.

use bursar_core::{IntegrationId, TenantId};

use super::refusal::{Changed, ControlRefusal};
use crate::write::writer_connection::{ControlTx, RowCounts};

/// How many deleted integrations are kept for each one that may live: their usage refers to them.
const DELETED_FOR_EACH: u32 = 5;

/// How many rows of a kind a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantCaps {
    /// Integrations that are not deleted.
    pub integrations: u32,
    /// API keys that are neither revoked nor expired.
    pub api_keys: u32,
    /// The same of the keys of one integration.
    pub integration_keys: u32,
}

impl Default for TenantCaps {
    fn default() -> Self {
        Self { integrations: 10_000, api_keys: 1_000, integration_keys: 200 }
    }
}

/// Whether a new key is one more, or takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewKey {
    Another,
    /// The old one ends at once.
    InPlace,
    /// The old one goes on for a while.
    Beside,
}

impl NewKey {
    pub(super) const fn rotated(overlap_seconds: u32) -> Self {
        if overlap_seconds == 0 { Self::InPlace } else { Self::Beside }
    }

    /// How many live keys there may be before it is made. A rotation is a matter of safety: it takes
    /// room of its own, and without an overlap it is always possible.
    const fn live_max(self, cap: u32) -> u32 {
        match self {
            Self::Another => cap,
            Self::InPlace => u32::MAX,
            Self::Beside => cap.saturating_mul(2),
        }
    }
}

impl TenantCaps {
    /// Refuses an integration that there is no room for.
    pub(super) fn room_for_integration(
        self,
        tx: &mut dyn ControlTx,
        tenant_id: TenantId,
    ) -> Changed<()> {
        let max = self.integrations;
        let RowCounts { live, ended } = tx.integration_counts(tenant_id)?;
        if live >= max {
            return Ok(Err(ControlRefusal::TooManyIntegrations { max }));
        }
        let deleted_max = max.saturating_mul(DELETED_FOR_EACH);
        if ended >= deleted_max {
            return Ok(Err(ControlRefusal::TooManyDeleted { max: deleted_max }));
        }
        Ok(Ok(()))
    }

    /// Refuses a key of a tenant itself or of an integration that there is no room for, and drops the
    /// oldest of those that ended.
    pub(super) fn room_for_key(
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
