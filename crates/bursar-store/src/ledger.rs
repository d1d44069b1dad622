//! The write path: commands in, one transaction a group, outcomes out.
//!
//! A handler submits and waits. A writer thread takes all that waits, loads what it touches into a
//! book, lets the core decide command after command, saves, commits, and then answers everyone.
//! There is no timer: while one group commits, the next collects.

use std::sync::Arc;
use std::thread::JoinHandle;

use bursar_core::{
    CallId, CallKey, Command, EntryId, ExtendOutcome, IntegrationId, Outcome, RecordOutcome,
    RecordRefusal, ReleaseOutcome, ReserveOutcome, ReserveRequest, TenantId, Usage,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::codec::call_key;
use crate::error::StoreError;
use crate::lane::{Claim, ControlTx, Lane, Wanted, WantedCall};
use crate::queue::{Queue, Rank, Weighed};

/// How often a transaction is run before its callers are told to come again.
const ATTEMPTS_MAX: u32 = 5;
/// Integrations whose reservations one sweep ends.
const SWEEP_MAX: usize = 1_000;

/// The one way to write.
///
/// An answer is given only after its group is on stable storage. Dropping a future that waits does
/// not take its command back.
#[derive(Clone)]
pub struct Ledger {
    queue: Arc<Queue<Job>>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    ended: watch::Receiver<bool>,
}

impl Ledger {
    /// Starts the writer thread over a lane.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(lane: Box<dyn Lane>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new());
        let taken = Arc::clone(&queue);
        let (says_ended, ended) = watch::channel(false);
        let writer = std::thread::Builder::new()
            .name("bursar-writer".to_owned())
            .spawn(move || write_groups(&taken, lane, says_ended))?;
        Ok(Self { queue, writer: Arc::new(Mutex::new(Some(writer))), ended })
    }

    /// Records calls of a tenant, each for itself, in one transaction; outcomes in order.
    ///
    /// # Errors
    /// [`StoreError`]: then none of the records was acknowledged. An error of
    /// [`StoreError::Unavailable`] leaves open whether they are stored; repeating them is safe.
    pub async fn record(
        &self,
        tenant_id: TenantId,
        records: Vec<Usage>,
    ) -> Result<Vec<RecordOutcome>, StoreError> {
        self.ask(tenant_id, |answer| Work::Record { records, answer }).await
    }

    /// Reserves, if the limits admit it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve(
        &self,
        tenant_id: TenantId,
        request: ReserveRequest,
    ) -> Result<ReserveOutcome, StoreError> {
        self.ask(tenant_id, |answer| Work::Reserve { request, answer }).await
    }

    /// Releases a reservation; `only` restricts to those of one integration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(
        &self,
        tenant_id: TenantId,
        call_id: CallId,
        only: Option<IntegrationId>,
    ) -> Result<ReleaseOutcome, StoreError> {
        self.ask(tenant_id, |answer| Work::Release { call_id, only, answer }).await
    }

    /// Renews a reservation; `only` restricts to those of one integration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn extend(
        &self,
        tenant_id: TenantId,
        call_id: CallId,
        only: Option<IntegrationId>,
        ttl_seconds: Option<u32>,
    ) -> Result<ExtendOutcome, StoreError> {
        self.ask(tenant_id, |answer| Work::Extend { call_id, only, ttl_seconds, answer }).await
    }

    /// Loads an integration's account into what readers see, if it exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn touch(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<(), StoreError> {
        self.ask(tenant_id, |answer| Work::Touch { integration_id, answer }).await
    }

    /// Ends the reservations whose time is over, those of at most 1,000 integrations at once.
    ///
    /// Decisions do not depend on it: from its expiry on a hold counts nowhere.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self) -> Result<(), StoreError> {
        self.wait(None, |answer| Work::Sweep { answer }).await
    }

    /// Runs a change of the control plane in a transaction of its own; of a tenant, or of none, as
    /// when a tenant is made.
    ///
    /// The change may run again after a failure that left nothing behind, so it must not carry
    /// anything over from one run to the next. If it answers an error, nothing is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change<T, F>(
        &self,
        tenant_id: impl Into<Option<TenantId>>,
        change: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn ControlTx) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let change = Box::new(Change { change, outcome: None, answer });
        self.push(Job { tenant_id: tenant_id.into(), work: Work::Control(change) })?;
        answered.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// Whether the writer has ended: after [`Ledger::close`], or by a fault in it.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the writer has ended. Nothing is written after that.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the writer is gone without a word, which is an end too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Stops taking commands, and waits until all that were taken are answered.
    pub async fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to say here; its jobs were answered.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    async fn ask<T>(
        &self,
        tenant_id: TenantId,
        work: impl FnOnce(Answer<T>) -> Work,
    ) -> Result<T, StoreError> {
        self.wait(Some(tenant_id), work).await
    }

    async fn wait<T>(
        &self,
        tenant_id: Option<TenantId>,
        work: impl FnOnce(Answer<T>) -> Work,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.push(Job { tenant_id, work: work(answer) })?;
        answered.await.unwrap_or_else(|_| Err(unanswered()))
    }

    fn push(&self, job: Job) -> Result<(), StoreError> {
        self.queue.push(job).map_err(|(_, error)| error)
    }
}

/// The writer fell in the middle of a group: nobody knows whether it was stored.
fn unanswered() -> StoreError {
    StoreError::Unavailable(Arc::new(std::io::Error::other("the writer ended")))
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

struct Job {
    tenant_id: Option<TenantId>,
    work: Work,
}

enum Work {
    Record {
        records: Vec<Usage>,
        answer: Answer<Vec<RecordOutcome>>,
    },
    Reserve {
        request: ReserveRequest,
        answer: Answer<ReserveOutcome>,
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
    Touch {
        integration_id: IntegrationId,
        answer: Answer<()>,
    },
    Sweep {
        answer: Answer<()>,
    },
    Control(Box<dyn ControlJob>),
}

impl Weighed for Job {
    fn tenant_id(&self) -> Option<TenantId> {
        self.tenant_id
    }

    fn rank(&self) -> Rank {
        match &self.work {
            Work::Record { .. }
            | Work::Release { .. }
            | Work::Extend { .. }
            | Work::Sweep { .. } => Rank::Fact,
            Work::Reserve { .. } | Work::Touch { .. } | Work::Control(_) => Rank::Admission,
        }
    }

    fn bytes(&self) -> usize {
        const SMALL: usize = 512;
        match &self.work {
            Work::Record { records, .. } => records.iter().map(record_bytes).sum::<usize>() + SMALL,
            Work::Reserve { .. }
            | Work::Release { .. }
            | Work::Extend { .. }
            | Work::Touch { .. }
            | Work::Sweep { .. }
            | Work::Control(_) => SMALL,
        }
    }

    fn commands(&self) -> usize {
        match &self.work {
            Work::Record { records, .. } => records.len(),
            Work::Reserve { .. }
            | Work::Release { .. }
            | Work::Extend { .. }
            | Work::Touch { .. }
            | Work::Sweep { .. }
            | Work::Control(_) => 1,
        }
    }
}

fn record_bytes(usage: &Usage) -> usize {
    let long = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    // The other texts are at most 100 characters each.
    512 + long(&usage.metadata) + long(&usage.error_message)
}

/// A change of the control plane whose answer has a type of its own.
trait ControlJob: Send {
    fn run(&mut self, tx: &mut dyn ControlTx) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct Change<T, F> {
    change: F,
    outcome: Option<T>,
    answer: Answer<T>,
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

/// Closes the queue when the writer ends, however it ends, and lets everyone who waits know.
struct CloseOnExit<'a>(&'a Queue<Job>, watch::Sender<bool>);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        self.0.close();
        while !self.0.take().is_empty() {}
        self.1.send_replace(true);
    }
}

/// The writer's life: group after group until the queue is closed and drained.
fn write_groups(queue: &Queue<Job>, mut lane: Box<dyn Lane>, says_ended: watch::Sender<bool>) {
    let _guard = CloseOnExit(queue, says_ended);
    loop {
        let jobs = queue.take();
        if jobs.is_empty() {
            return;
        }
        let mut group = Vec::with_capacity(jobs.len());
        for job in jobs {
            match (job.tenant_id, job.work) {
                (_, Work::Control(control)) => change_alone(lane.as_mut(), control),
                (tenant_id, work) => group.push(Job { tenant_id, work }),
            }
        }
        if !group.is_empty() {
            write_jobs(lane.as_mut(), group);
        }
        if queue.is_empty() {
            lane.idle();
        }
    }
}

fn change_alone(lane: &mut dyn Lane, mut control: Box<dyn ControlJob>) {
    let result = in_transaction(lane, |lane| control.run(lane as &mut dyn ControlTx));
    control.answer(result);
}

/// Runs a body between begin and commit, and rolls back whatever fails.
fn in_transaction<T>(
    lane: &mut dyn Lane,
    mut body: impl FnMut(&mut dyn Lane) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    again(lane, |lane| {
        let result = lane.begin().and_then(|()| {
            let value = body(lane)?;
            lane.commit()?;
            Ok(value)
        });
        if result.is_err() {
            lane.rollback();
        }
        result
    })
}

/// Tries again, a few times, what storage asks to try again.
fn again<T>(
    lane: &mut dyn Lane,
    mut attempt: impl FnMut(&mut dyn Lane) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    for _ in 1..ATTEMPTS_MAX {
        match attempt(lane) {
            Err(StoreError::Again(_)) => {}
            result => return result,
        }
    }
    attempt(lane).map_err(|error| {
        if let StoreError::Again(cause) = error { StoreError::Unavailable(cause) } else { error }
    })
}

/// One thing to do in a group; a job of a thousand records is a thousand steps.
enum Step<'a> {
    Apply(TenantId, CallKey, Command<'a>),
    /// Loads an account, which expires its holds that are due.
    Touch(TenantId, IntegrationId),
}

/// What a step came to; nothing for those that only load.
type StepOutcome = Result<Option<Outcome>, StoreError>;

fn write_jobs(lane: &mut dyn Lane, jobs: Vec<Job>) {
    let records = jobs.iter().map(records_of).sum();
    let sweeps = jobs.iter().any(|job| matches!(job.work, Work::Sweep { .. }));
    let due = if sweeps { due(lane) } else { Vec::new() };
    let mut next_number = match again(lane, |lane| lane.allot(records)) {
        Ok(first) => first,
        // No command is at fault for what was asked before any of them.
        Err(error) => return fail_all(jobs, &StoreError::Unavailable(Arc::new(error))),
    };
    let mut steps = Vec::with_capacity(jobs.len().max(records));
    let mut counts = Vec::with_capacity(jobs.len());
    for job in &jobs {
        let before = steps.len();
        push_steps(&mut steps, job, &mut next_number, &due);
        counts.push(steps.len() - before);
    }
    let mut outcomes = write_steps(lane, &steps).into_iter();
    drop(steps);
    for (job, count) in jobs.into_iter().zip(counts) {
        answer_job(job.work, outcomes.by_ref().take(count));
    }
}

/// The accounts to sweep. That they cannot be found now is no reason to write nothing else.
fn due(lane: &mut dyn Lane) -> Vec<(TenantId, IntegrationId)> {
    again(lane, |lane| lane.due(SWEEP_MAX)).unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "reservations were not swept");
        Vec::new()
    })
}

fn fail_all(jobs: Vec<Job>, error: &StoreError) {
    for job in jobs {
        let outcomes = std::iter::repeat_with(|| Err(error.clone())).take(job.commands());
        answer_job(job.work, outcomes);
    }
}

/// Writes steps in one transaction. After a definite error of a statement the group is halved until
/// the step at fault is alone; after anything else nothing is tried again.
fn write_steps(lane: &mut dyn Lane, steps: &[Step<'_>]) -> Vec<StepOutcome> {
    if steps.is_empty() {
        return Vec::new();
    }
    match in_transaction(lane, |lane| apply_steps(lane, steps)) {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) if error.is_definite() && steps.len() > 1 => {
            let (first, second) = steps.split_at(steps.len() / 2);
            let mut outcomes = write_steps(lane, first);
            outcomes.extend(write_steps(lane, second));
            outcomes
        }
        Err(error) => {
            let cause = &error as &dyn std::error::Error;
            tracing::error!(error = cause, commands = steps.len(), "a group was not written");
            steps.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

fn apply_steps(
    lane: &mut dyn Lane,
    steps: &[Step<'_>],
) -> Result<Vec<Option<Outcome>>, StoreError> {
    let mut wanted = Wanted::default();
    for step in steps {
        want(&mut wanted, step);
    }
    let mut book = lane.load(&wanted)?;
    let mut outcomes = Vec::with_capacity(steps.len());
    for step in steps {
        outcomes.push(match step {
            Step::Apply(tenant_id, key, command) => Some(book.apply(*tenant_id, *key, *command)?),
            Step::Touch(..) => None,
        });
    }
    lane.save(book)?;
    Ok(outcomes)
}

fn records_of(job: &Job) -> usize {
    match &job.work {
        Work::Record { records, .. } => records.len(),
        Work::Reserve { .. }
        | Work::Release { .. }
        | Work::Extend { .. }
        | Work::Touch { .. }
        | Work::Sweep { .. }
        | Work::Control(_) => 0,
    }
}

fn push_steps<'a>(
    steps: &mut Vec<Step<'a>>,
    job: &'a Job,
    next_number: &mut i64,
    due: &[(TenantId, IntegrationId)],
) {
    if matches!(job.work, Work::Sweep { .. }) {
        steps.extend(due.iter().map(|(tenant, integration)| Step::Touch(*tenant, *integration)));
    }
    let Some(tenant_id) = job.tenant_id else { return };
    let apply = |command: Command<'a>| {
        Step::Apply(tenant_id, call_key(tenant_id, command.call_id()), command)
    };
    match &job.work {
        Work::Record { records, .. } => {
            for usage in records {
                let Some(entry_id) = EntryId::from_number(*next_number) else { return };
                *next_number += 1;
                steps.push(apply(Command::Record { entry_id, usage }));
            }
        }
        Work::Reserve { request, .. } => steps.push(apply(Command::Reserve(request))),
        Work::Release { call_id, only, .. } => {
            steps.push(apply(Command::Release { call_id, only: *only }));
        }
        Work::Extend { call_id, only, ttl_seconds, .. } => {
            let ttl_seconds = *ttl_seconds;
            steps.push(apply(Command::Extend { call_id, only: *only, ttl_seconds }));
        }
        Work::Touch { integration_id, .. } => steps.push(Step::Touch(tenant_id, *integration_id)),
        Work::Sweep { .. } | Work::Control(_) => {}
    }
}

fn want<'a>(wanted: &mut Wanted<'a>, step: &Step<'a>) {
    let (tenant_id, key, command) = match step {
        Step::Apply(tenant_id, key, command) => (*tenant_id, *key, command),
        Step::Touch(tenant_id, integration_id) => {
            wanted.integrations.insert((*tenant_id, *integration_id));
            return;
        }
    };
    let claim = match command {
        Command::Record { entry_id, usage } => {
            if let Some(occurred_at) = usage.occurred_at {
                wanted.months.insert((usage.integration_id, occurred_at.month()));
            }
            Claim::Record(*entry_id)
        }
        Command::Reserve(_) => Claim::Reserve,
        Command::Release { .. } | Command::Extend { .. } => Claim::Look,
    };
    if let Some(integration_id) = command.integration_id() {
        wanted.integrations.insert((tenant_id, integration_id));
    }
    let fresh = WantedCall { call_id: command.call_id(), claim };
    let call = wanted.calls.entry((tenant_id, key)).or_insert(fresh);
    // The first record of a call in a group is the one that becomes its entry.
    if !matches!(call.claim, Claim::Record(_)) {
        call.claim = call.claim.max(claim);
    }
}

/// Gives a job its outcomes; who stopped waiting does not hear them.
fn answer_job(work: Work, mut outcomes: impl Iterator<Item = StepOutcome>) {
    match work {
        Work::Record { records, answer } => {
            let alone = records.len() == 1;
            let outcome = |outcome| record_outcome(outcome, alone);
            let _ = answer.send(outcomes.map(outcome).collect());
        }
        Work::Reserve { answer, .. } => send_one(answer, outcomes, as_reserve),
        Work::Release { answer, .. } => send_one(answer, outcomes, as_release),
        Work::Extend { answer, .. } => send_one(answer, outcomes, as_extend),
        Work::Touch { answer, .. } | Work::Sweep { answer } => {
            let _ = answer.send(outcomes.try_for_each(|outcome| outcome.map(|_| ())));
        }
        Work::Control(control) => control.answer(Err(mixed_up())),
    }
}

/// A record that storage refuses for what it says is refused for itself: its batch stands.
fn record_outcome(outcome: StepOutcome, alone: bool) -> Result<RecordOutcome, StoreError> {
    match pick(outcome, as_record) {
        Err(error) if error.is_definite() && !alone => {
            Ok(RecordOutcome::Refused(RecordRefusal::NotStorable))
        }
        result => result,
    }
}

fn send_one<T>(
    answer: Answer<T>,
    mut outcomes: impl Iterator<Item = StepOutcome>,
    as_kind: fn(Outcome) -> Option<T>,
) {
    let outcome = outcomes.next().unwrap_or_else(|| Err(mixed_up()));
    let _ = answer.send(pick(outcome, as_kind));
}

fn pick<T>(outcome: StepOutcome, as_kind: fn(Outcome) -> Option<T>) -> Result<T, StoreError> {
    outcome?.and_then(as_kind).ok_or_else(mixed_up)
}

fn mixed_up() -> StoreError {
    StoreError::Corrupt("an outcome of another kind of command".to_owned())
}

macro_rules! as_kind {
    ($name:ident, $variant:ident, $type:ty) => {
        fn $name(outcome: Outcome) -> Option<$type> {
            if let Outcome::$variant(outcome) = outcome { Some(outcome) } else { None }
        }
    };
}

as_kind!(as_record, Record, RecordOutcome);
as_kind!(as_reserve, Reserve, ReserveOutcome);
as_kind!(as_release, Release, ReleaseOutcome);
as_kind!(as_extend, Extend, ExtendOutcome);
