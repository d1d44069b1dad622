//! The writer's thread: turns groups of jobs into transactions, and their results into replies.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bursar_core::{Caps, TenantId};
use tokio::sync::watch;

use crate::error::StoreError;
use crate::write::job::{ControlJob, Job, SweepOutcome, Work, unknown_outcome};
use crate::write::observe::{Dequeued, Observer, TransactionTiming};
use crate::write::queue::{Queue, Writing};
use crate::write::steps::{
    Step, StepOutcome, apply_steps, mismatched_outcome, only_tenant, push_steps, reply_to,
};
use crate::write::turns::QueueItem;
use crate::write::writable::Writable;
use crate::write::writer_connection::{ControlTx, Grouping, SweepWork, WriterConnection};

/// The limit on the attempts of a transaction, after which its callers get 503.
const ATTEMPTS_MAX: u32 = 5;
/// The limit on the panics of one tenant's steps in a group. It takes 13 panics to find one step
/// among 4,096.
const TENANT_PANICS_MAX: u32 = 32;
/// The limit on the panics of a group.
const GROUP_PANICS_MAX: u32 = 256;
/// The limit on the reservations that one sweep ends, which takes a writer 10 to 30 ms.
const SWEEP_MAX: usize = 500;

/// The state that the writers of a ledger share.
pub(crate) struct Shared {
    pub(crate) queue: Arc<Queue<Job>>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) caps: Caps,
    pub(crate) writable: Arc<Writable>,
    /// Writers that have not ended.
    pub(crate) writing: AtomicUsize,
    pub(crate) ended_sender: watch::Sender<bool>,
}

/// Closes the queue when a writer ends, also by a panic. The last one fails the remaining jobs.
struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        let Shared { queue, writing, ended_sender, .. } = self.0;
        queue.close();
        if writing.fetch_sub(1, Ordering::AcqRel) == 1 {
            queue.drain();
            ended_sender.send_replace(true);
        }
    }
}

/// Writes groups until the queue is closed and drained.
pub(crate) fn write_groups(shared: &Shared, mut connection: Box<dyn WriterConnection>) {
    let _guard = CloseOnExit(shared);
    let queue = shared.queue.as_ref();
    let mut writing = Writing::new(connection.grouping());
    loop {
        let jobs = queue.take(&mut writing);
        if jobs.is_empty() {
            return;
        }
        // A panic drops the reply channels of these jobs, so their callers get an unknown outcome.
        if catch_panic(|| write_dequeued(shared, connection.as_mut(), jobs)).is_none() {
            abandon(connection.as_mut());
        }
    }
}

fn write_dequeued(shared: &Shared, connection: &mut dyn WriterConnection, jobs: Vec<Job>) {
    let waited = jobs.iter().map(|job| job.queued_at).min().unwrap_or_else(Instant::now).elapsed();
    let commands = jobs.iter().map(QueueItem::commands).sum();
    shared.observer.dequeued(Dequeued { commands, waited });
    let mut group = Vec::with_capacity(jobs.len());
    for job in jobs {
        match job.work {
            Work::Control(control) => change_alone(shared, connection, control),
            Work::ConfirmClock { reply } => {
                let confirmed = with_retries(connection, |connection| connection.confirm_clock());
                let _ = reply.send(confirmed.inspect_err(|error| shared.writable.failed(error)));
            }
            Work::Probe { reply } => {
                let probed =
                    in_transaction(shared, connection, |connection| connection.write_probe());
                if probed.is_ok() {
                    shared.writable.succeeded();
                    // The filler is cleaned up at once, even if jobs wait.
                    connection.idle();
                }
                let _ = reply.send(probed);
            }
            Work::Record { .. }
            | Work::Reserve { .. }
            | Work::Release { .. }
            | Work::Extend { .. }
            | Work::LoadAccount { .. }
            | Work::Sweep { .. } => group.push(job),
        }
    }
    if !group.is_empty() {
        write_jobs(shared, connection, group);
    }
    if shared.queue.is_empty() {
        connection.idle();
    }
}

fn change_alone(
    shared: &Shared,
    connection: &mut dyn WriterConnection,
    mut control: Box<dyn ControlJob>,
) {
    let result = in_transaction(shared, connection, |connection| {
        control.run(connection as &mut dyn ControlTx)
    });
    control.reply(result);
}

/// The result of work; `None` if it panicked, which the panic hook has logged.
///
/// The caller must discard all state that the work may have changed.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn abandon(connection: &mut dyn WriterConnection) {
    // A second panic leaves no more inconsistent state than the first.
    let _ = catch_panic(|| connection.abandon());
}

/// Runs a body between begin and commit, and rolls back after an error.
///
/// A panic before the commit also rolls back. After a panic in the commit, the result is unknown.
fn in_transaction<T>(
    shared: &Shared,
    connection: &mut dyn WriterConnection,
    mut body: impl FnMut(&mut dyn WriterConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    with_retries(connection, |connection| {
        let began = Instant::now();
        let mut committing = None;
        let ran = catch_panic(|| {
            connection.begin()?;
            let value = body(connection)?;
            committing = Some(Instant::now());
            connection.commit()?;
            Ok(value)
        });
        if ran.is_none() {
            abandon(connection);
        }
        let result = ran.unwrap_or_else(|| match committing {
            None => Err(StoreError::Panicked),
            Some(_) => Err(unknown_outcome()),
        });
        match &result {
            Ok(_) => {
                let commit = committing.unwrap_or(began).elapsed();
                shared
                    .observer
                    .committed(TransactionTiming { transaction: began.elapsed(), commit });
            }
            Err(error) => {
                connection.rollback();
                shared.writable.failed(error);
                shared.observer.failed(error);
            }
        }
        result
    })
}

/// Retries [`StoreError::Retry`] a limited number of times.
fn with_retries<T>(
    connection: &mut dyn WriterConnection,
    mut attempt: impl FnMut(&mut dyn WriterConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    for _ in 1..ATTEMPTS_MAX {
        match attempt(connection) {
            Err(StoreError::Retry(_)) => {}
            result => return result,
        }
    }
    attempt(connection).map_err(|error| {
        if let StoreError::Retry(cause) = error { StoreError::Unavailable(cause) } else { error }
    })
}

fn write_jobs(shared: &Shared, connection: &mut dyn WriterConnection, jobs: Vec<Job>) {
    let records = jobs.iter().filter_map(|job| job.work.records()).map(<[_]>::len).sum();
    let sweeps = jobs.iter().any(|job| matches!(job.work, Work::Sweep { .. }));
    let due = if sweeps { sweep_work(shared, connection) } else { SweepWork::default() };
    let mut next_number =
        match with_retries(connection, |connection| connection.allocate_ids(records)) {
            Ok(first) => first,
            Err(error) => {
                shared.writable.failed(&error);
                shared.observer.failed(&error);
                return fail_all(jobs, &error.into_group_error());
            }
        };
    let mut steps = Vec::with_capacity(jobs.len().max(records));
    let mut counts = Vec::with_capacity(jobs.len());
    for job in &jobs {
        let before = steps.len();
        push_steps(&mut steps, job, &mut next_number, &due);
        counts.push(steps.len() - before);
    }
    let parts: Vec<&[Step<'_>]> = match connection.grouping() {
        Grouping::Mixed => vec![&steps],
        // Only a sweep touches several tenants.
        Grouping::OneTenant => steps.chunk_by(|a, b| a.tenant_id() == b.tenant_id()).collect(),
    };
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut panics = Panics::default();
    for part in parts {
        outcomes.extend(write_steps(shared, connection, part, &mut panics));
    }
    let swept = if due.more { SweepOutcome::Partial } else { SweepOutcome::Complete };
    let mut outcomes = outcomes.into_iter();
    drop(steps);
    for (job, count) in jobs.into_iter().zip(counts) {
        reply_to(job.work, outcomes.by_ref().take(count), swept);
    }
}

/// The work of a sweep; none after an error, which must not prevent the other jobs of the group.
fn sweep_work(shared: &Shared, connection: &mut dyn WriterConnection) -> SweepWork {
    with_retries(connection, |connection| connection.sweep_work(SWEEP_MAX)).unwrap_or_else(
        |error| {
            shared.writable.failed(&error);
            let cause = &error as &dyn std::error::Error;
            tracing::warn!(
                error = cause,
                "due reservations were not ended; the next sweep retries"
            );
            SweepWork::default()
        },
    )
}

fn fail_all(jobs: Vec<Job>, error: &StoreError) {
    for job in jobs {
        let outcomes = std::iter::repeat_with(|| Err(error.clone())).take(job.commands());
        reply_to(job.work, outcomes, SweepOutcome::Complete);
    }
}

/// The panics of a group so far, which are limited so that they cannot hold up the writer.
#[derive(Default)]
struct Panics {
    of_group: u32,
    of_tenants: HashMap<TenantId, u32>,
}

impl Panics {
    /// Counts a panic. If the steps are of several tenants, it counts for none of them.
    fn count(&mut self, steps: &[Step<'_>]) {
        self.of_group += 1;
        if let Some(tenant_id) = only_tenant(steps) {
            *self.of_tenants.entry(tenant_id).or_default() += 1;
        }
    }

    /// Whether these steps must not be tried again.
    fn are_too_many(&self, steps: &[Step<'_>]) -> bool {
        let of_tenant = only_tenant(steps).and_then(|tenant_id| self.of_tenants.get(&tenant_id));
        self.of_group >= GROUP_PANICS_MAX
            || of_tenant.is_some_and(|panics| *panics >= TENANT_PANICS_MAX)
    }
}

/// Writes steps in one transaction.
///
/// After a panic the group is split by tenants until the tenant at fault is alone. Then, or after a
/// definite error, the steps are split until the step at fault is alone. Other errors are final.
fn write_steps(
    shared: &Shared,
    connection: &mut dyn WriterConnection,
    steps: &[Step<'_>],
    panics: &mut Panics,
) -> Vec<StepOutcome> {
    if steps.is_empty() {
        return Vec::new();
    }
    // These steps were not tried, so they get an error after which callers repeat them.
    if panics.are_too_many(steps) {
        return steps.iter().map(|_| Err(unknown_outcome())).collect();
    }
    let written = in_transaction(shared, connection, |connection| {
        apply_steps(connection, shared.caps, steps)
    });
    if matches!(written, Err(StoreError::Panicked)) {
        panics.count(steps);
        if only_tenant(steps).is_none() {
            return write_by_tenants(shared, connection, steps, panics);
        }
    }
    match written {
        Ok((outcomes, facts)) => {
            shared.observer.written(&facts);
            outcomes.into_iter().map(Ok).collect()
        }
        Err(error) if error.is_definite() && steps.len() > 1 => {
            let (first, second) = steps.split_at(steps.len() / 2);
            let mut outcomes = write_steps(shared, connection, first, panics);
            outcomes.extend(write_steps(shared, connection, second, panics));
            outcomes
        }
        Err(error) => {
            // These were logged when the clock jumped, by the panic hook, or when writes began to
            // fail.
            let is_logged = matches!(
                error,
                StoreError::ClockJumped { .. }
                    | StoreError::Panicked
                    | StoreError::NotWritable { .. }
            );
            if !is_logged {
                let cause = &error as &dyn std::error::Error;
                tracing::error!(error = cause, commands = steps.len(), "a group was not written");
            }
            steps.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

/// Writes the steps of several tenants in two transactions, each for half of the tenants.
///
/// Decisions do not depend on other tenants, so only the order within a tenant matters.
fn write_by_tenants(
    shared: &Shared,
    connection: &mut dyn WriterConnection,
    steps: &[Step<'_>],
    panics: &mut Panics,
) -> Vec<StepOutcome> {
    let tenants: BTreeSet<TenantId> = steps.iter().map(Step::tenant_id).collect();
    let middle = tenants.iter().nth(tenants.len() / 2).copied();
    let is_first = |step: &Step<'_>| Some(step.tenant_id()) < middle;
    let (first, second): (Vec<Step<'_>>, Vec<Step<'_>>) = steps.iter().copied().partition(is_first);
    let mut of_first = write_steps(shared, connection, &first, panics).into_iter();
    let mut of_second = write_steps(shared, connection, &second, panics).into_iter();
    let outcomes = steps.iter().map(|step| {
        let outcomes = if is_first(step) { &mut of_first } else { &mut of_second };
        outcomes.next().unwrap_or_else(|| Err(mismatched_outcome()))
    });
    outcomes.collect()
}
