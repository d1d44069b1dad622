//! Jobs of the write queue: the work for a writer, and the channel for its result.

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
use crate::write::turns::{QueueItem, Rank};
use crate::write::writer_connection::ControlTx;

/// The outcome of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepOutcome {
    /// The sweep ended all due reservations.
    Complete,
    /// There may be more due reservations: sweep again.
    Partial,
}

/// The outcome of a record, and the source of its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostedOutcome {
    pub outcome: RecordOutcome,
    /// The source of the cost of the call's entry; `None` if the call has no entry.
    pub cost_source: Option<CostSource>,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) struct Job {
    pub(crate) tenant_id: Option<TenantId>,
    pub(crate) work: Work,
    /// When the job was put into the queue.
    pub(crate) queued_at: Instant,
    /// The approximate memory of the job, computed once: the queue looks at it under its lock.
    bytes: usize,
}

impl Job {
    /// A job that is put into the queue now.
    pub(crate) fn new(tenant_id: Option<TenantId>, work: Work) -> Self {
        let records = work.records().unwrap_or_default();
        let bytes = records.iter().map(record_bytes).sum::<usize>() + SMALL;
        Self { tenant_id, work, queued_at: Instant::now(), bytes }
    }
}

pub(crate) enum Work {
    Record {
        mode: RecordMode,
        records: Vec<Usage>,
        reply: Reply<Vec<CostedOutcome>>,
    },
    Reserve {
        request: ReserveRequest,
        reply: Reply<(ReserveOutcome, Option<AccountSnapshot>)>,
    },
    Release {
        call_id: CallId,
        only: Option<IntegrationId>,
        reply: Reply<ReleaseOutcome>,
    },
    Extend {
        call_id: CallId,
        only: Option<IntegrationId>,
        ttl_seconds: Option<u32>,
        reply: Reply<ExtendOutcome>,
    },
    LoadAccount {
        integration_id: IntegrationId,
        reply: Reply<()>,
    },
    Sweep {
        reply: Reply<SweepOutcome>,
    },
    ConfirmClock {
        reply: Reply<ClockConfirmed>,
    },
    Probe {
        reply: Reply<()>,
    },
    Control(Box<dyn ControlJob>),
}

impl Work {
    /// The records to write; `None` for other work.
    pub(super) fn records(&self) -> Option<&[Usage]> {
        match self {
            Self::Record { records, .. } => Some(records),
            Self::Reserve { .. }
            | Self::Release { .. }
            | Self::Extend { .. }
            | Self::LoadAccount { .. }
            | Self::Sweep { .. }
            | Self::ConfirmClock { .. }
            | Self::Probe { .. }
            | Self::Control(_) => None,
        }
    }
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
        self.bytes
    }

    fn commands(&self) -> usize {
        self.work.records().map_or(1, <[Usage]>::len)
    }
}

/// The approximate memory of a job without its records, and of a record without its long texts.
pub(crate) const SMALL: usize = 512;

/// The bytes of the texts of an ordinary record, which [`SMALL`] includes.
const SHORT_TEXTS: usize = 256;

/// The approximate memory of a tag or unit beside its texts.
const PAIR_BYTES: usize = 96;

/// Batches of up to this many records have the rank of single records.
const SMALL_BATCH: usize = 16;

fn rank_of(records: usize) -> Rank {
    if records > SMALL_BATCH { Rank::Bulk } else { Rank::Fact }
}

fn record_bytes(usage: &Usage) -> usize {
    let pairs = usage.tags.iter().len() + usage.units.iter().len();
    SMALL + usage.text_bytes().saturating_sub(SHORT_TEXTS) + pairs * PAIR_BYTES
}

/// A change of the control plane, with the type of its result erased.
pub(crate) trait ControlJob: Send {
    fn run(&mut self, tx: &mut dyn ControlTx) -> Result<(), StoreError>;
    fn reply(self: Box<Self>, result: Result<(), StoreError>);
}

/// A change of the control plane, and the channel for its result.
pub(crate) struct Change<T, F> {
    change: F,
    outcome: Option<T>,
    reply: Reply<T>,
}

impl<T, F> Change<T, F> {
    pub(crate) fn new(change: F, reply: Reply<T>) -> Self {
        Self { change, outcome: None, reply }
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

    fn reply(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let _ = reply.send(result.and_then(|()| outcome.ok_or(StoreError::Closed)));
    }
}

/// The error after a writer panicked or ended during a group, which may or may not be stored.
pub(crate) fn unknown_outcome() -> StoreError {
    StoreError::Unavailable(Arc::new(std::io::Error::other("the writer did not reply")))
}

#[cfg(test)]
mod tests {
    use bursar_core::Tags;

    use super::*;

    #[test]
    fn long_labels_and_tags_count_in_the_memory_of_a_job() {
        let integration_id = IntegrationId::from_number(1).expect("in range");
        let call_id = CallId::new("call").expect("valid");
        let plain = Usage::new(integration_id, call_id, "openai".into(), "gpt-4o".into());
        assert_eq!(record_bytes(&plain), SMALL);
        let long = Usage { agent_id: Some("\u{1d4c2}".repeat(256).into()), ..plain.clone() };
        assert!(record_bytes(&long) > SMALL + 700, "{}", record_bytes(&long));
        let mut tags = Tags::default();
        for number in 0..16 {
            assert!(tags.add(&format!("{number}"), "a"));
        }
        // Each tag takes memory of its own, even if its texts are short.
        let tagged = Usage { tags, ..plain };
        assert_eq!(record_bytes(&tagged), SMALL + 16 * PAIR_BYTES);
    }
}
