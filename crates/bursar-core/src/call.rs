//! What a group of commands knows about a call id: its reservation and its record.

use crate::command::{RecordOutcome, ReserveRefusal};
use crate::entry::{Entry, RecordedCall};
use crate::id::IntegrationId;
use crate::reservation::{Reservation, ReservationState, ReserveRequest};
use crate::time::Timestamp;
use crate::totals::Overflow;
use crate::usage::{CallId, Usage};

/// What storage knows about a call id.
#[derive(Clone, Debug)]
pub struct Call {
    /// The whole call id. Every match of the shorter [`crate::CallKey`] is confirmed against it.
    pub call_id: CallId,
    /// The reservation of the call, in any state.
    pub reservation: Option<Reservation>,
    pub(crate) record: Option<Record>,
    pub(crate) is_changed: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Record {
    Stored(RecordedCall),
    /// Recorded by this group: the index into the book's new entries.
    New(usize),
}

impl Call {
    /// A call id that was never used.
    pub fn fresh(call_id: CallId) -> Self {
        Self { call_id, reservation: None, record: None, is_changed: false }
    }

    /// A call as it is stored.
    pub fn stored(
        call_id: CallId,
        reservation: Option<Reservation>,
        record: Option<RecordedCall>,
    ) -> Self {
        Self { call_id, reservation, record: record.map(Record::Stored), is_changed: false }
    }

    /// Whether the group changed the call.
    pub const fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Whether the call has neither a record nor a reservation.
    ///
    /// Storage removes the claim on such a call id.
    pub const fn is_void(&self) -> bool {
        self.record.is_none() && self.reservation.is_none()
    }

    /// The outcome of a record whose call is already recorded, or whose key belongs to another
    /// call.
    pub(crate) fn duplicate_outcome(
        &self,
        entries: &[Entry<'_>],
        usage: &Usage,
    ) -> Result<Option<RecordOutcome>, Overflow> {
        if self.call_id != usage.call_id {
            return Ok(Some(RecordOutcome::Conflict));
        }
        let (entry_id, agrees) = match &self.record {
            None => return Ok(None),
            Some(Record::Stored(stored)) => (stored.entry_id, stored.agrees_with(usage)),
            Some(Record::New(index)) => {
                let entry = entries.get(*index).ok_or(Overflow)?;
                (entry.entry_id, entry.agrees_with(usage))
            }
        };
        Ok(Some(if agrees { RecordOutcome::Duplicate(entry_id) } else { RecordOutcome::Conflict }))
    }

    /// Why this request cannot reserve the call id: the id is used up, or has other content.
    ///
    /// `None` means that the id is free, or that the same request holds an open reservation.
    pub(crate) fn reserve_refusal(
        &self,
        request: &ReserveRequest,
        now: Timestamp,
    ) -> Option<ReserveRefusal> {
        if self.call_id != request.call_id {
            return Some(ReserveRefusal::OtherContent);
        }
        if self.record.is_some() {
            return Some(ReserveRefusal::CallRecorded);
        }
        let held = self.reservation.as_ref()?;
        let state = held.state_at(now);
        if state != ReservationState::Open {
            return Some(ReserveRefusal::CallEnded(state));
        }
        (!held.request.agrees_with(request)).then_some(ReserveRefusal::OtherContent)
    }

    /// The reservation of the call, unless `only` hides it from the caller.
    pub(crate) fn visible_reservation(
        &mut self,
        call_id: &CallId,
        only: Option<IntegrationId>,
    ) -> Option<&mut Reservation> {
        if self.call_id != *call_id {
            return None;
        }
        let seen =
            |held: &&mut Reservation| only.is_none_or(|id| id == held.request.integration_id);
        self.reservation.as_mut().filter(seen)
    }
}
