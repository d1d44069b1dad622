//! What can be asked of a book, and what the answers are.

use crate::caps::OpenBound;
use crate::decide::Decision;
use crate::id::{EntryId, IntegrationId};
use crate::reservation::{Reservation, ReservationState, ReserveRequest};
use crate::usage::{CallId, Usage};

/// A command that the core decides.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// Count a call, and settle its reservation.
    Record {
        /// The id of the entry, if it becomes one.
        entry_id: EntryId,
        usage: &'a Usage,
        /// Which calls are taken.
        mode: RecordMode,
    },
    /// Hold money, tokens and a call, if the limits admit it.
    Reserve(&'a ReserveRequest),
    /// Give an open reservation back.
    Release {
        call_id: &'a CallId,
        /// The only integration whose reservations the caller may touch.
        only: Option<IntegrationId>,
    },
    /// Renew an open reservation.
    Extend {
        call_id: &'a CallId,
        /// The only integration whose reservations the caller may touch.
        only: Option<IntegrationId>,
        /// For how long from now; the time first asked for, when nothing is said.
        ttl_seconds: Option<u32>,
    },
}

impl<'a> Command<'a> {
    /// The call it is about.
    pub const fn call_id(self) -> &'a CallId {
        match self {
            Self::Record { usage, .. } => &usage.call_id,
            Self::Reserve(request) => &request.call_id,
            Self::Release { call_id, .. } | Self::Extend { call_id, .. } => call_id,
        }
    }

    /// The integration that it names.
    pub const fn integration_id(self) -> Option<IntegrationId> {
        match self {
            Self::Record { usage, .. } => Some(usage.integration_id),
            Self::Reserve(request) => Some(request.integration_id),
            Self::Release { .. } | Self::Extend { .. } => None,
        }
    }
}

/// Which calls a record may be of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordMode {
    #[default]
    Any,
    /// Only a call that is reserved, however its reservation ended, or recorded. A tenant beyond
    /// its thresholds gets no further: what it holds settles, what it repeats is a duplicate, and
    /// everything else is refused.
    KnownOnly,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To [`Command::Record`].
    Record(RecordOutcome),
    /// To [`Command::Reserve`].
    Reserve(ReserveOutcome),
    /// To [`Command::Release`].
    Release(ReleaseOutcome),
    /// To [`Command::Extend`].
    Extend(ExtendOutcome),
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It is a new entry.
    Accepted(EntryId),
    /// The same record is an entry already.
    Duplicate(EntryId),
    /// The call id stands for something else; nothing changed.
    Conflict,
    /// It cannot be counted; nothing changed.
    Refused(RecordRefusal),
}

/// Why a record cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordRefusal {
    /// The tenant has no such integration.
    IntegrationNotFound,
    /// Its call is neither reserved nor recorded, and it came as [`RecordMode::KnownOnly`].
    UnknownCall,
    /// It lies more than five minutes ahead.
    InTheFuture,
    /// A total of its month would not fit its integer.
    TotalsOverflow,
    /// The tenant has stored as many bytes as it may on a day.
    StoredBytesExceeded,
    /// Storage cannot keep it as it is; never decided here, and told by the writer.
    NotStorable,
}

/// What became of a reservation's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    Held(Reservation),
    /// The same request holds already; its first answer.
    Replayed(Reservation),
    /// The decision refuses; nothing is held.
    Refused(Decision),
    /// The request cannot be decided; nothing is held.
    Rejected(ReserveRefusal),
}

/// Why a reservation's request cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveRefusal {
    /// The call is recorded.
    CallRecorded,
    /// Its reservation ended in this state.
    CallEnded(ReservationState),
    /// The call id is reserved with other content.
    OtherContent,
    /// A cost limit needs an estimate of the cost.
    CostEstimateRequired,
    /// A token limit needs an estimate of the tokens.
    TokenEstimateRequired,
    /// A total would not fit its integer.
    TotalsOverflow,
    /// As many reservations are open as may be.
    TooManyOpen(OpenBound),
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// It is released, now or before.
    Released(Reservation),
    /// It expired before; nothing was held any more.
    Expired(Reservation),
    /// No such reservation.
    NotFound,
    /// The call was recorded.
    Settled,
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtendOutcome {
    /// It lasts until the new expiry.
    Extended(Reservation),
    /// No such reservation.
    NotFound,
    /// It ended before, in this state.
    Ended(ReservationState),
    /// The tenant is not active; the hold stays as it is.
    TenantNotActive,
}
