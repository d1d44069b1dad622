//! How much a tenant may leave behind, and how much of it there is.

/// Reservations that are due, and not yet removed, which take no place. More of them do, so that what
/// is stored is bounded however fast reservations expire.
pub const UNSWEPT_MAX: i64 = 100_000;

/// The bounds of what callers leave in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Reservations of one integration that are open at once.
    pub reservations_per_integration: i64,
    /// Reservations of one tenant that are open at once.
    pub reservations_per_tenant: i64,
    /// Bytes of records that a tenant may store on one UTC day; 0 = unlimited.
    pub stored_bytes_per_day: i64,
}

impl Caps {
    /// Far beyond the calls that anyone has in flight, these bound what abandoned ones cost until
    /// they expire.
    pub const DEFAULT: Self = Self {
        reservations_per_integration: 50_000,
        reservations_per_tenant: 200_000,
        stored_bytes_per_day: 0,
    };

    /// How far a tenant with so many open reservations would be beyond its bound if it were given
    /// all that it asks for, up to [`UNSWEPT_MAX`]; 0 when it is within it.
    pub fn beyond_reservations(self, open: i64, asked: usize) -> i64 {
        let asked = i64::try_from(asked).unwrap_or(i64::MAX);
        open.saturating_add(asked)
            .saturating_sub(self.reservations_per_tenant)
            .clamp(0, UNSWEPT_MAX)
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a tenant has in storage, as far as the caps look at it; nothing where nobody counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantSums {
    /// Its open reservations without those that are due. A figure that is too high will do where
    /// it stays below the cap whatever the group reserves.
    pub open_reservations: Option<i64>,
    /// Bytes of the records that it stored today.
    pub stored_bytes: Option<i64>,
}

/// Which bound of open reservations was met, and how many it admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenBound {
    /// That of the integration.
    Integration(i64),
    /// That of the tenant.
    Tenant(i64),
}
