//! Reservations: money, tokens and one call held until the call is recorded.

use crate::account::Totals;
use crate::decide::{Decision, Estimate};
use crate::id::{IntegrationId, TenantId};
use crate::time::{Month, Timestamp};
use crate::usage::{CallId, CallKey, UsageError};

/// How a reservation stands. Only an open one can change, and it changes once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationState {
    Open,
    /// The call was recorded.
    Settled,
    /// The caller gave it back.
    Released,
    /// Nobody came in time.
    Expired,
}

/// What a caller asks to hold. Two requests with the same content are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveRequest {
    /// Through which integration the call will go.
    pub integration_id: IntegrationId,
    pub call_id: CallId,
    /// What it is expected to take.
    pub estimate: Estimate,
    /// The model, as a hint for pricing; up to 100 characters.
    pub model: Option<Box<str>>,
    /// For how long to hold, in seconds.
    pub ttl_seconds: u32,
}

impl ReserveRequest {
    /// The longest time for which anything is held: a day.
    pub const TTL_SECONDS_MAX: u32 = 86_400;
    /// For how long is held when nothing else is asked.
    pub const TTL_SECONDS_DEFAULT: u32 = 600;

    /// Checks a number of seconds.
    ///
    /// # Errors
    /// [`UsageError`] on `ttl_seconds` outside 1 to 86,400.
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
    /// What was asked.
    pub request: ReserveRequest,
    /// The answer that admitted it.
    pub decision: Decision,
    /// When it was made; its hold counts in this instant's month.
    pub created_at: Timestamp,
    /// From here on it counts no more.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: ReservationState,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Reservation {
    /// How it stands at `now`: an open one that is past its time is expired, swept or not.
    pub fn state_at(&self, now: Timestamp) -> ReservationState {
        if self.state == ReservationState::Open && self.expires_at <= now {
            ReservationState::Expired
        } else {
            self.state
        }
    }

    /// The month in which its hold counts, and from which it is removed.
    pub fn month(&self) -> Month {
        self.created_at.month()
    }

    /// What it holds.
    pub fn amount(&self) -> Totals {
        Totals { cost: self.request.estimate.cost, tokens: self.request.estimate.tokens, calls: 1 }
    }
}

/// What an open reservation takes away from its integration, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whose it is.
    pub tenant_id: TenantId,
    pub call: CallKey,
    pub integration_id: IntegrationId,
    /// The month in which it counts.
    pub month: Month,
    /// What is held.
    pub amount: Totals,
    /// From here on it counts no more.
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
