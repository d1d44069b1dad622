//! Reservations, which hold money, tokens and one call until the call is recorded.

use crate::account::Totals;
use crate::decide::{Decision, Estimate};
use crate::id::{IntegrationId, TenantId};
use crate::time::{Month, Timestamp};
use crate::usage::{CallId, CallKey};
use crate::usage_error::UsageError;

/// The state of a reservation. An open one changes once, to any of the other states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationState {
    Open,
    /// The call was recorded.
    Settled,
    /// The caller released the reservation.
    Released,
    /// The time to live passed first.
    Expired,
}

/// A request for a reservation. A second request with the same content is a repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveRequest {
    /// The integration that the call will use.
    pub integration_id: IntegrationId,
    pub call_id: CallId,
    /// What the call is expected to use.
    pub estimate: Estimate,
    /// The model, as a hint for pricing; up to 256 characters.
    pub model: Option<Box<str>>,
    /// The time to live of the reservation.
    pub ttl_seconds: u32,
}

impl ReserveRequest {
    /// The longest time to live: a day.
    pub const TTL_SECONDS_MAX: u32 = 86_400;
    /// The time to live if the request names none.
    pub const TTL_SECONDS_DEFAULT: u32 = 600;

    /// Checks a time to live.
    ///
    /// # Errors
    /// [`UsageError`] if `ttl_seconds` is outside 1 to 86,400.
    pub fn check_ttl(ttl_seconds: i64) -> Result<u32, UsageError> {
        u32::try_from(ttl_seconds)
            .ok()
            .filter(|ttl| (1..=Self::TTL_SECONDS_MAX).contains(ttl))
            .ok_or_else(|| UsageError {
                field: "ttl_seconds",
                problem: format!("must be between 1 and {}", Self::TTL_SECONDS_MAX),
            })
    }
}

/// A reservation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub request: ReserveRequest,
    /// The decision that admitted the call.
    pub decision: Decision,
    /// When the reservation was made; its hold counts in the month of this instant.
    pub created_at: Timestamp,
    /// The instant from which on the hold no longer counts.
    pub expires_at: Timestamp,
    pub state: ReservationState,
    pub ended_at: Option<Timestamp>,
}

impl Reservation {
    /// The state at `now`; an open reservation past its expiry is expired, even before the sweep.
    pub fn state_at(&self, now: Timestamp) -> ReservationState {
        if self.state == ReservationState::Open && self.expires_at <= now {
            ReservationState::Expired
        } else {
            self.state
        }
    }

    /// The month in which the hold counts.
    pub fn month(&self) -> Month {
        self.created_at.month()
    }

    /// The amount that the reservation holds.
    pub fn amount(&self) -> Totals {
        Totals { cost: self.request.estimate.cost, tokens: self.request.estimate.tokens, calls: 1 }
    }
}

/// The hold of an open reservation: the part of it that counts against limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub tenant_id: TenantId,
    pub call: CallKey,
    pub integration_id: IntegrationId,
    /// The month in which the hold counts.
    pub month: Month,
    pub amount: Totals,
    /// The instant from which on the hold no longer counts.
    pub expires_at: Timestamp,
}

impl Hold {
    /// The hold of a reservation.
    pub fn of(tenant_id: TenantId, call: CallKey, reservation: &Reservation) -> Self {
        Self {
            tenant_id,
            call,
            integration_id: reservation.request.integration_id,
            month: reservation.month(),
            amount: reservation.amount(),
            expires_at: reservation.expires_at,
        }
    }
}
