//! Reservations, which hold money, tokens and one call until the call is recorded.

use std::sync::Arc;

use crate::decide::Decision;
use crate::estimate::Estimate;
use crate::id::{IntegrationId, KeyId, TenantId};
use crate::posting::Posting;
use crate::subject::Subject;
use crate::tags::Tags;
use crate::time::{Month, Timestamp};
use crate::totals::Totals;
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
    /// The requested model; up to 256 characters.
    pub model: Option<Box<str>>,
    /// The agent that makes the call, up to 256 characters.
    pub agent_id: Option<Box<str>>,
    /// The session of the call, up to 256 characters.
    pub session_id: Option<Box<str>>,
    /// Names and values that the caller chose.
    pub tags: Tags,
    /// The time to live of the reservation.
    pub ttl_seconds: u32,
    /// The key in whose accounts the call counts: the first of a line of rotated keys. It is not
    /// part of the content.
    pub account_key_id: Option<KeyId>,
}

impl ReserveRequest {
    /// A request of which only this is known, with the default time to live.
    pub fn new(integration_id: IntegrationId, call_id: CallId, estimate: Estimate) -> Self {
        Self {
            integration_id,
            call_id,
            estimate,
            model: None,
            agent_id: None,
            session_id: None,
            tags: Tags::default(),
            ttl_seconds: Self::TTL_SECONDS_DEFAULT,
            account_key_id: None,
        }
    }

    /// What limits look at.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            integration_id: self.integration_id,
            account_key_id: self.account_key_id,
            model: self.model.as_deref(),
            agent_id: self.agent_id.as_deref(),
            session_id: self.session_id.as_deref(),
            tags: &self.tags,
        }
    }

    /// Whether another request repeats this one. Their keys may differ.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        *self == Self { account_key_id: self.account_key_id, ..other.clone() }
    }

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
    /// Where the reservation is held beside its integration.
    pub postings: Arc<[Posting]>,
    /// The version of the tenant's limits when the reservation was made.
    pub limits_version: i64,
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

    /// Ends the reservation in `state`.
    pub(crate) const fn end(&mut self, state: ReservationState, at: Timestamp) {
        self.state = state;
        self.ended_at = Some(at);
    }

    /// The month in which the hold counts.
    pub fn month(&self) -> Month {
        self.created_at.month()
    }

    /// The amount that the reservation holds.
    pub const fn amount(&self) -> Totals {
        self.request.estimate.totals()
    }
}

/// The hold of an open reservation: the part of it that counts against limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub tenant_id: TenantId,
    pub call: CallKey,
    pub integration_id: IntegrationId,
    /// The month in which the hold counts.
    pub month: Month,
    pub amount: Totals,
    /// The instant from which on the hold no longer counts.
    pub expires_at: Timestamp,
    /// Where it is held beside its integration.
    pub postings: Arc<[Posting]>,
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
            postings: Arc::clone(&reservation.postings),
        }
    }
}

/// One change of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldChange {
    /// A reservation was made.
    Made(Hold),
    /// The reservation settled, was released or expired.
    Ended(Hold),
    /// The reservation got a later expiry.
    Extended {
        /// The hold with its former expiry.
        before: Hold,
        /// The new expiry.
        expires_at: Timestamp,
    },
}
