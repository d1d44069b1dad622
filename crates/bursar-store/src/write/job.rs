//! What the writer is asked for, with the way back to whoever waits for the answer.

use std::sync::Arc;
use std::time::Instant;

use bursar_core::{
    CallId, ExtendOutcome, IntegrationId, RecordMode, RecordOutcome, ReleaseOutcome,
    ReserveOutcome, ReserveRequest, TenantId, Usage,
};
use tokio::sync::oneshot;

use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::read::store::AccountSnapshot;
use crate::write::queue::{QueueItem, Rank};
use crate::write::writer_connection::ControlTx;

/// Whether a sweep ended all reservations that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// As far as anyone saw.
    All,
    /// Others are due: sweep again.
    More,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) struct Job {
    pub(crate) tenant_id: Option<TenantId>,
    pub(crate) work: Work,
    /// When it came into the queue.
    pub(crate) queued_at: Instant,
}

pub(crate) enum Work {
    Record {
        mode: RecordMode,
        records: Vec<Usage>,
        answer: Answer<Vec<RecordOutcome>>,
    },
    Reserve {
        request: ReserveRequest,
        answer: Answer<(ReserveOutcome, Option<AccountSnapshot>)>,
    },
    Release {
        call_id: CallId,
        only: Option<IntegrationId>,
        answer: Answer<ReleaseOutcome>,
    },
    Extend {
        call_id: CallId,
        only: Option<IntegrationId>,
        ttl_seconds: Option<u32>,
        answer: Answer<ExtendOutcome>,
    },
    LoadAccount {
        integration_id: IntegrationId,
        answer: Answer<()>,
    },
    Sweep {
        answer: Answer<Swept>,
    },
    ConfirmClock {
        answer: Answer<ClockConfirmed>,
    },
    Probe {
        answer: Answer<()>,
    },
    Control(Box<dyn ControlJob>),
}

impl QueueItem for Job {
    fn tenant_id(&self) -> Option<TenantId> {
        self.tenant_id
    }

    fn rank(&self) -> Rank {
        match &self.work {
            Work::Record { mode: RecordMode::KnownOnly, .. } => Rank::Throttled,
            Work::Record { mode: RecordMode::Any, records, .. } => rank_of(records.len()),
            Work::Release { .. }
            | Work::Extend { .. }
            | Work::Sweep { .. }
            | Work::ConfirmClock { .. }
            | Work::Probe { .. } => Rank::Fact,
            Work::Reserve { .. } | Work::LoadAccount { .. } => Rank::Admission,
            Work::Control(_) => Rank::Change,
        }
    }

    fn bytes(&self) -> usize {
        match &self.work {
            Work::Record { records, .. } => records.iter().map(record_bytes).sum::<usize>() + SMALL,
            Work::Reserve { .. }
            | Work::Release { .. }
            | Work::Extend { .. }
            | Work::LoadAccount { .. }
            | Work::Sweep { .. }
            | Work::ConfirmClock { .. }
            | Work::Probe { .. }
            | Work::Control(_) => SMALL,
        }
    }

    fn commands(&self) -> usize {
        match &self.work {
            Work::Record { records, .. } => records.len(),
            Work::Reserve { .. }
            | Work::Release { .. }
            | Work::Extend { .. }
            | Work::LoadAccount { .. }
            | Work::Sweep { .. }
            | Work::ConfirmClock { .. }
            | Work::Probe { .. }
            | Work::Control(_) => 1,
        }
    }
}

/// About what a job takes besides its records, and a record besides its long texts: the others are
/// at most 100 characters each.
pub(crate) const SMALL: usize = 512;

/// Records up to which a batch goes with single ones.
const SMALL_BATCH: usize = 16;

fn rank_of(records: usize) -> Rank {
    if records > SMALL_BATCH { Rank::Bulk } else { Rank::Fact }
}

fn record_bytes(usage: &Usage) -> usize {
    let long = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    SMALL + long(&usage.metadata) + long(&usage.error_message)
}

/// A change of the control plane whose answer has a type of its own.
pub(crate) trait ControlJob: Send {
    fn run(&mut self, tx: &mut dyn ControlTx) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

/// A change, and who waits for what it answers.
pub(crate) struct Change<T, F> {
    change: F,
    outcome: Option<T>,
    answer: Answer<T>,
}

impl<T, F> Change<T, F> {
    pub(crate) fn new(change: F, answer: Answer<T>) -> Self {
        Self { change, outcome: None, answer }
    }
}

impl<T, F> ControlJob for Change<T, F>
where
    T: Send,
    F: FnMut(&mut dyn ControlTx) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &mut dyn ControlTx) -> Result<(), StoreError> {
        self.outcome = Some((self.change)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { outcome, answer, .. } = *self;
        let _ = answer.send(result.and_then(|()| outcome.ok_or(StoreError::Closed)));
    }
}

/// The writer panicked or ended in the middle of a group: nobody knows whether it was stored.
pub(crate) fn unknown_outcome() -> StoreError {
    StoreError::Unavailable(Arc::new(std::io::Error::other("the writer gave no answer")))
}
