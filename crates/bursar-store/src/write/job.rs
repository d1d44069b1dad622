//! Jobs of the write queue: the work for a writer, and the channel for its answer.

use std::sync::Arc;
use std::time::Instant;

use bursar_core::{
    CallId, CostSource, ExtendOutcome, IntegrationId, RecordMode, RecordOutcome, ReleaseOutcome,
    ReserveOutcome, ReserveRequest, TenantId, Usage,
};
use tokio::sync::oneshot;

use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::read::accounts::AccountSnapshot;
use crate::write::queue::{QueueItem, Rank};
use crate::write::writer_connection::ControlTx;

/// Whether a sweep ended all due reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    All,
    /// There may be more due reservations: sweep again.
    More,
}

/// What became of a record, and what counts as its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostedOutcome {
    pub outcome: RecordOutcome,
    /// `None` unless the record is an entry, new or stored before.
    pub cost_source: Option<CostSource>,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) struct Job {
    pub(crate) tenant_id: Option<TenantId>,
    pub(crate) work: Work,
    /// When the job was put into the queue.
    pub(crate) queued_at: Instant,
}

pub(crate) enum Work {
    Record {
        mode: RecordMode,
        records: Vec<Usage>,
        answer: Answer<Vec<CostedOutcome>>,
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

/// The approximate memory of a job without its records, and of a record without its long texts.
pub(crate) const SMALL: usize = 512;

/// Batches of up to this many records have the rank of single records.
const SMALL_BATCH: usize = 16;

fn rank_of(records: usize) -> Rank {
    if records > SMALL_BATCH { Rank::Bulk } else { Rank::Fact }
}

fn record_bytes(usage: &Usage) -> usize {
    let long = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    SMALL + long(&usage.metadata) + long(&usage.error_message)
}

/// A change of the control plane, with the type of its answer erased.
pub(crate) trait ControlJob: Send {
    fn run(&mut self, tx: &mut dyn ControlTx) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

/// A change of the control plane, and the channel for its answer.
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

/// The error after a writer panicked or ended during a group, which may or may not be stored.
pub(crate) fn unknown_outcome() -> StoreError {
    StoreError::Unavailable(Arc::new(std::io::Error::other("the writer gave no answer")))
}
