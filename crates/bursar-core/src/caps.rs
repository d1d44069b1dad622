//! Caps on what a tenant may leave in storage, and the sums that they are checked against.

#![warn(clippy::arithmetic_side_effects)]

use crate::totals::Overflow;

/// How many due reservations that are not yet removed do not count against the caps.
///
/// Due reservations in excess of it do count, so that storage stays bounded even if reservations
/// expire faster than the sweep removes them.
pub const UNSWEPT_MAX: i64 = 100_000;

/// Caps on what callers may leave in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Open reservations of one integration.
    pub reservations_per_integration: i64,
    /// Open reservations of one tenant.
    pub reservations_per_tenant: i64,
    /// Bytes of records that a tenant may store on one UTC day; 0 means unlimited.
    pub stored_bytes_per_day: i64,
    /// Values with an account of their own in one period of a limit for each value. Further values
    /// share one account.
    pub values_per_limit: i64,
}

impl Caps {
    /// The default caps.
    ///
    /// They are far above the number of calls in progress at any client. They limit what abandoned
    /// reservations cost until they expire.
    pub const DEFAULT: Self = Self {
        reservations_per_integration: 50_000,
        reservations_per_tenant: 200_000,
        stored_bytes_per_day: 0,
        values_per_limit: 100_000,
    };

    /// How far `open` plus `more` reservations exceed the tenant's cap, at most [`UNSWEPT_MAX`].
    ///
    /// 0 means that all of them fit.
    pub fn beyond_reservations(self, open: i64, more: usize) -> i64 {
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        open.saturating_add(more).saturating_sub(self.reservations_per_tenant).clamp(0, UNSWEPT_MAX)
    }

    /// The cap that leaves no room for one more reservation; the integration's is checked first.
    ///
    /// `of_integration` is the number of reservations that count against the integration's cap.
    pub(crate) fn reached(
        self,
        of_integration: i64,
        tenant: &TenantSums,
    ) -> Result<Option<ReservationCap>, Overflow> {
        let integration_cap = self.reservations_per_integration;
        if of_integration >= integration_cap {
            return Ok(Some(ReservationCap::Integration(integration_cap)));
        }
        let tenant_cap = self.reservations_per_tenant;
        let open = tenant.open_reservations.ok_or(Overflow)?;
        Ok((open >= tenant_cap).then_some(ReservationCap::Tenant(tenant_cap)))
    }

    /// Whether a record without a reservation fits the tenant's daily cap on stored bytes.
    pub(crate) fn fits_daily_bytes(
        self,
        tenant: &TenantSums,
        bytes: i64,
    ) -> Result<bool, Overflow> {
        if self.stored_bytes_per_day == 0 {
            return Ok(true);
        }
        let stored = tenant.stored_bytes.ok_or(Overflow)?;
        let after = stored.checked_add(bytes).ok_or(Overflow)?;
        Ok(after <= self.stored_bytes_per_day)
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The sums of a tenant that the caps limit; `None` for a sum that was not loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantSums {
    /// Open reservations, without due ones.
    ///
    /// The figure may include due ones as long as it stays below the cap with all reservations of
    /// the group.
    pub open_reservations: Option<i64>,
    /// Bytes of records stored today.
    pub stored_bytes: Option<i64>,
}

impl TenantSums {
    /// Changes the number of open reservations by `more`, if that number was loaded.
    pub(crate) fn count_open(&mut self, more: i64) -> Result<(), Overflow> {
        if let Some(open) = &mut self.open_reservations {
            *open = open.checked_add(more).ok_or(Overflow)?;
        }
        Ok(())
    }
}

/// The cap on open reservations that was reached, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationCap {
    /// [`Caps::reservations_per_integration`].
    Integration(i64),
    /// [`Caps::reservations_per_tenant`].
    Tenant(i64),
}
