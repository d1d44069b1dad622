//! The steps of a group: how jobs become steps, how steps are applied, and how their outcomes become
//! replies.

use bursar_core::{
    Book, CallKey, Caps, Command, CostSource, EntryId, ExtendOutcome, Hold, IntegrationId,
    LimitBook, Outcome, RecordMode, RecordOutcome, RecordRefusal, ReleaseOutcome, ReserveOutcome,
    TenantId,
};

use crate::error::StoreError;
use crate::read::accounts::AccountSnapshot;
use crate::rows::codec::call_key;
use crate::write::job::{CostedOutcome, Job, Reply, SweepOutcome, Work};
use crate::write::observe::Facts;
use crate::write::writer_connection::{
    CallToLoad, Claim, LoadRequest, SweepWork, WriterConnection,
};

/// The smallest unit of a group; a job with a thousand records has a thousand steps.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Apply(TenantId, CallKey, Command<'a>),
    /// Loads an account.
    LoadAccount(TenantId, IntegrationId),
    /// Ends a reservation that is due.
    Expire(&'a Hold),
}

impl Step<'_> {
    pub(super) const fn tenant_id(&self) -> TenantId {
        match self {
            Self::Apply(tenant_id, ..) | Self::LoadAccount(tenant_id, _) => *tenant_id,
            Self::Expire(hold) => hold.tenant_id,
        }
    }
}

/// The result of a step.
#[derive(Default)]
pub(super) struct StepResult {
    /// `None` for a step that only loads.
    outcome: Option<Outcome>,
    /// The account after the decision about a reservation.
    snapshot: Option<AccountSnapshot>,
    /// The source of the cost of the call's entry; `None` if the call has no entry.
    cost_source: Option<CostSource>,
}

pub(super) type StepOutcome = Result<StepResult, StoreError>;

/// The tenant of the steps, if they all have the same one.
pub(super) fn only_tenant(steps: &[Step<'_>]) -> Option<TenantId> {
    let tenant_id = steps.first()?.tenant_id();
    steps.iter().all(|step| step.tenant_id() == tenant_id).then_some(tenant_id)
}

pub(super) fn apply_steps<'a>(
    connection: &mut dyn WriterConnection,
    caps: Caps,
    steps: &[Step<'a>],
) -> Result<(Vec<StepResult>, Facts<'a>), StoreError> {
    let mut request = LoadRequest { caps, ..LoadRequest::default() };
    for step in steps {
        add_to_request(&mut request, step);
    }
    let mut book = connection.load(&request)?;
    let mut outcomes = Vec::with_capacity(steps.len());
    for step in steps {
        outcomes.push(match step {
            Step::Apply(tenant_id, key, command) => {
                let outcome = Some(book.apply(*tenant_id, *key, *command)?);
                let snapshot = account_snapshot(&book, *tenant_id, command);
                StepResult { outcome, snapshot, cost_source: book.cost_source(*tenant_id, *key) }
            }
            Step::LoadAccount(..) | Step::Expire(_) => StepResult::default(),
        });
    }
    let facts = Facts::of(&book)?;
    connection.save(book)?;
    Ok((outcomes, facts))
}

/// The account after a reservation, from which the response shows what is left.
fn account_snapshot(
    book: &Book<'_>,
    tenant_id: TenantId,
    command: &Command<'_>,
) -> Option<AccountSnapshot> {
    let Command::Reserve(request) = command else { return None };
    let account = book.accounts().get(&request.integration_id);
    // A client can name an integration of another tenant, which may be in the same group.
    let account = account.filter(|account| account.tenant_id == tenant_id)?.clone();
    // What is left of the integration's own limits is shown, so the others are not needed.
    Some(AccountSnapshot { account, limits: LimitBook::default(), now: book.now() })
}

pub(super) fn push_steps<'a>(
    steps: &mut Vec<Step<'a>>,
    job: &'a Job,
    next_number: &mut i64,
    due: &'a SweepWork,
) {
    if matches!(job.work, Work::Sweep { .. }) {
        let load = |(tenant, integration): &(TenantId, IntegrationId)| {
            Step::LoadAccount(*tenant, *integration)
        };
        steps.extend(due.missed.iter().map(load));
        steps.extend(due.holds.iter().map(Step::Expire));
    }
    let Some(tenant_id) = job.tenant_id else { return };
    let apply = |command: Command<'a>| {
        Step::Apply(tenant_id, call_key(tenant_id, command.call_id()), command)
    };
    match &job.work {
        Work::Record { mode, records, .. } => {
            for usage in records {
                let Some(entry_id) = EntryId::from_number(*next_number) else { return };
                *next_number = next_number.saturating_add(1);
                steps.push(apply(Command::Record { entry_id, usage, mode: *mode }));
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
        Work::LoadAccount { integration_id, .. } => {
            steps.push(Step::LoadAccount(tenant_id, *integration_id))
        }
        Work::Sweep { .. } | Work::ConfirmClock { .. } | Work::Probe { .. } | Work::Control(_) => {}
    }
}

fn add_to_request<'a>(request: &mut LoadRequest<'a>, step: &Step<'a>) {
    let (tenant_id, key, command) = match step {
        Step::Apply(tenant_id, key, command) => (*tenant_id, *key, command),
        Step::LoadAccount(tenant_id, integration_id) => {
            request.integrations.insert((*tenant_id, *integration_id));
            return;
        }
        Step::Expire(hold) => {
            request.integrations.insert((hold.tenant_id, hold.integration_id));
            request.due.insert((hold.tenant_id, hold.call), (*hold).clone());
            return;
        }
    };
    let claim = match command {
        Command::Record { entry_id, usage, mode } => {
            request.recording.insert(tenant_id);
            request.records.push((tenant_id, key, usage));
            if let Some(occurred_at) = usage.occurred_at {
                request.months.insert((usage.integration_id, occurred_at.month()));
            }
            match mode {
                RecordMode::Any => Claim::Record(*entry_id),
                // An unknown call is refused, so it needs no claim.
                RecordMode::KnownOnly => Claim::Read,
            }
        }
        Command::Reserve(reserve) => {
            request.requests.push((tenant_id, key, reserve));
            *request.reserving.entry(tenant_id).or_default() += 1;
            Claim::Reserve
        }
        Command::Release { .. } | Command::Extend { .. } => Claim::Read,
    };
    if let Some(integration_id) = command.integration_id() {
        request.integrations.insert((tenant_id, integration_id));
    }
    let fresh = CallToLoad { call_id: command.call_id(), claim };
    let call = request.calls.entry((tenant_id, key)).or_insert(fresh);
    // The first record of a call in a group is the one that becomes its entry.
    if !matches!(call.claim, Claim::Record(_)) {
        call.claim = call.claim.max(claim);
    }
}

/// Sends the outcomes of a job to its caller, who may have stopped waiting.
pub(super) fn reply_to(
    work: Work,
    mut outcomes: impl Iterator<Item = StepOutcome>,
    swept: SweepOutcome,
) {
    match work {
        Work::Record { mode: _, records, reply } => {
            let alone = records.len() == 1;
            let outcome = |outcome| record_outcome(outcome, alone);
            let _ = reply.send(outcomes.map(outcome).collect());
        }
        Work::Reserve { reply, .. } => {
            let done = outcomes.next().unwrap_or_else(|| Err(mismatched_outcome()));
            let _ = reply.send(done.and_then(|StepResult { outcome, snapshot, .. }| {
                let outcome = outcome.and_then(as_reserve).ok_or_else(mismatched_outcome)?;
                Ok((outcome, snapshot))
            }));
        }
        Work::Release { reply, .. } => send_one(reply, outcomes, as_release),
        Work::Extend { reply, .. } => send_one(reply, outcomes, as_extend),
        Work::LoadAccount { reply, .. } => {
            let _ = reply.send(outcomes.try_for_each(|outcome| outcome.map(|_| ())));
        }
        Work::Sweep { reply } => {
            let all = outcomes.try_for_each(|outcome| outcome.map(|_| ()));
            let _ = reply.send(all.map(|()| swept));
        }
        Work::ConfirmClock { reply } => {
            let _ = reply.send(Err(mismatched_outcome()));
        }
        Work::Probe { reply } => {
            let _ = reply.send(Err(mismatched_outcome()));
        }
        Work::Control(control) => control.reply(Err(mismatched_outcome())),
    }
}

/// Turns a definite error into the refusal of one record, so that its batch is not affected.
fn record_outcome(outcome: StepOutcome, alone: bool) -> Result<CostedOutcome, StoreError> {
    let cost_source = outcome.as_ref().ok().and_then(|result| result.cost_source);
    let outcome = match pick(outcome, as_record) {
        Err(StoreError::TotalsOverflow(figure)) => {
            tracing::warn!(figure, "a record was refused, because a sum would not fit its integer");
            Ok(RecordOutcome::Refused(RecordRefusal::TotalsOverflow))
        }
        Err(error) if error.is_definite() && !alone => {
            Ok(RecordOutcome::Refused(RecordRefusal::NotStorable))
        }
        result => result,
    };
    outcome.map(|outcome| CostedOutcome { outcome, cost_source })
}

fn send_one<T>(
    reply: Reply<T>,
    mut outcomes: impl Iterator<Item = StepOutcome>,
    as_kind: fn(Outcome) -> Option<T>,
) {
    let outcome = outcomes.next().unwrap_or_else(|| Err(mismatched_outcome()));
    let _ = reply.send(pick(outcome, as_kind));
}

fn pick<T>(outcome: StepOutcome, as_kind: fn(Outcome) -> Option<T>) -> Result<T, StoreError> {
    outcome?.outcome.and_then(as_kind).ok_or_else(mismatched_outcome)
}

pub(super) fn mismatched_outcome() -> StoreError {
    StoreError::Corrupt("a command has an outcome of another kind".to_owned())
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bursar_core::{
        Account, CallId, CostBasis, Estimate, Health, Integration, IntegrationStatus,
        LimitSettings, Loaded, ReserveRequest, TenantLifecycle, Timestamp, UtcCalendar,
    };

    use super::*;

    #[test]
    fn a_reservation_returns_only_an_account_of_its_own_tenant() {
        let tenant = |number| TenantId::from_number(number).expect("a number of an id");
        let integration_id = IntegrationId::from_number(7).expect("a number of an id");
        let rules = Integration {
            status: IntegrationStatus::Enabled,
            health: Health::Unknown,
            limits: LimitSettings::default(),
            cost_basis: CostBasis::Reported,
        };
        let account = Account::new(tenant(1), TenantLifecycle::Active, rules);
        let accounts = HashMap::from([(integration_id, account)]);
        let loaded = Loaded { accounts, ..Loaded::default() };
        let book = Book::open(Timestamp::MIN, Caps::DEFAULT, &UtcCalendar, loaded);
        let book = book.expect("a book without holds");
        let call_id = CallId::new("call").expect("a call id");
        let request = ReserveRequest::new(integration_id, call_id, Estimate::default());
        let command = Command::Reserve(&request);
        assert!(account_snapshot(&book, tenant(1), &command).is_some());
        assert!(account_snapshot(&book, tenant(2), &command).is_none());
    }
}
