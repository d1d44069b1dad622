//! The commands that a book decides, and their outcomes.

use crate::caps::ReservationCap;
use crate::decide::Decision;
use crate::id::{EntryId, IntegrationId};
use crate::reservation::{Reservation, ReservationState, ReserveRequest};
use crate::usage::{CallId, Usage};

/// A command about one call.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// Counts a call, and settles its reservation.
    Record {
        /// The id of the new entry, if the record is accepted.
        entry_id: EntryId,
        usage: &'a Usage,
        mode: RecordMode,
    },
    /// Holds money, tokens and a call, if the limits admit it.
    Reserve(&'a ReserveRequest),
    /// Releases an open reservation.
    Release {
        call_id: &'a CallId,
        /// The only integration whose reservations the caller may touch.
        only: Option<IntegrationId>,
    },
    /// Extends an open reservation.
    Extend {
        call_id: &'a CallId,
        /// The only integration whose reservations the caller may touch.
        only: Option<IntegrationId>,
        /// The new time to live, from now; `None` repeats that of the reservation.
        ttl_seconds: Option<u32>,
    },
}

impl<'a> Command<'a> {
    /// The call that the command is about.
    pub const fn call_id(self) -> &'a CallId {
        match self {
            Self::Record { usage, .. } => &usage.call_id,
            Self::Reserve(request) => &request.call_id,
            Self::Release { call_id, .. } | Self::Extend { call_id, .. } => call_id,
        }
    }

    /// The integration that the command names.
    pub const fn integration_id(self) -> Option<IntegrationId> {
        match self {
            Self::Record { usage, .. } => Some(usage.integration_id),
            Self::Reserve(request) => Some(request.integration_id),
            Self::Release { .. } | Self::Extend { .. } => None,
        }
    }
}

/// Which calls a record is accepted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordMode {
    #[default]
    Any,
    /// Only calls that have a reservation, in any state, or a record.
    ///
    /// For a tenant beyond its protection thresholds: its reservations still settle and its
    /// repetitions are still duplicates, but new calls are refused.
    KnownOnly,
}

/// The outcome of a [`Command`], by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Record(RecordOutcome),
    Reserve(ReserveOutcome),
    Release(ReleaseOutcome),
    Extend(ExtendOutcome),
}

/// The outcome of [`Command::Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The record is a new entry.
    Accepted(EntryId),
    /// The same record is already an entry.
    Duplicate(EntryId),
    /// The call id has a record with other content; nothing changed.
    Conflict,
    /// The record cannot be counted; nothing changed.
    Refused(RecordRefusal),
}

/// Why a record cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordRefusal {
    /// The tenant has no such integration.
    IntegrationNotFound,
    /// The call has neither a reservation nor a record, and the mode is [`RecordMode::KnownOnly`].
    UnknownCall,
    /// `occurred_at` is more than five minutes in the future.
    InTheFuture,
    /// A total of the month would not fit 64 bits.
    TotalsOverflow,
    /// The record does not fit the tenant's daily cap on stored bytes.
    StoredBytesExceeded,
    /// The database refuses the record's content. Only the writer returns this.
    NotStorable,
}

/// The outcome of [`Command::Reserve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    Held(Reservation),
    /// The same request has an open reservation, which this is.
    Replayed(Reservation),
    /// The decision refuses the call; nothing is held.
    Refused(Decision),
    /// The request cannot be decided; nothing is held.
    Rejected(ReserveRefusal),
}

/// Why a request for a reservation cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveRefusal {
    /// The call is already recorded.
    CallRecorded,
    /// The call's reservation ended, in this state.
    CallEnded(ReservationState),
    /// The call id is reserved with other content.
    OtherContent,
    /// The integration has a cost limit, so the request needs a cost estimate.
    CostEstimateRequired,
    /// The integration has a token limit, so the request needs a token estimate.
    TokenEstimateRequired,
    /// A total would not fit 64 bits.
    TotalsOverflow,
    /// A cap on open reservations is reached.
    TooManyOpen(ReservationCap),
}

/// The outcome of [`Command::Release`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// The reservation is released, by this command or an earlier one.
    Released(Reservation),
    /// The reservation had already expired.
    Expired(Reservation),
    NotFound,
    /// The reservation had already settled.
    Settled,
}

/// The outcome of [`Command::Extend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtendOutcome {
    /// The reservation, with its new expiry.
    Extended(Box<Reservation>),
    NotFound,
    /// The reservation had already ended, in this state.
    Ended(ReservationState),
    /// The tenant is not active; the reservation stays unchanged.
    TenantNotActive,
}
