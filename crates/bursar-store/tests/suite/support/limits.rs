//! Limits of tests, and what their accounts have counted.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use bursar_core::{
    Action, Allowance, Bound, CalendarUnit, Concurrent, Decision, IntegrationId, KeyId, Label,
    Limit, LimitId, Measure, NANOS_PER_CENT, OwnedSubject, ReserveOutcome, ReserveRequest, Rule,
    Scope, Selected, Subject, TenantId, WarnPercents, Window, Zone,
};
use bursar_store::{AccountSnapshot, ControlTx, Ledger, LimitRow, ManagedBy, Store};

use super::{day, request};

pub(crate) fn limit_id(number: i64) -> LimitId {
    LimitId::from_number(number).unwrap()
}

/// An enabled limit that blocks.
pub(crate) fn limit(tenant_id: TenantId, number: i64, scope: Scope, bound: Bound) -> LimitRow {
    let rule = Rule { bound, action: Action::Block, warn_percents: WarnPercents::NONE };
    LimitRow {
        tenant_id,
        name: format!("limit {number}"),
        limit: Limit { id: limit_id(number), scope, rule, required: false, enabled: true },
        override_reason: None,
        managed_by: ManagedBy::Tenant,
        created_at: day(2026, 3, 14),
        updated_at: day(2026, 3, 14),
        created_by: "operator".to_owned(),
    }
}

/// Each value of a label, of all integrations.
pub(crate) fn each(label: Label) -> Scope {
    Scope::Label { label, selected: Selected::Each, integration_id: None }
}

/// One value of a label, of all integrations.
pub(crate) fn only(label: Label, value: &str) -> Scope {
    Scope::Label { label, selected: Selected::One(value.into()), integration_id: None }
}

pub(crate) fn calendar(unit: CalendarUnit, zone: &str) -> Window {
    Window::Calendar(unit, Zone::new(zone))
}

/// Days of UTC.
pub(crate) fn daily() -> Window {
    calendar(CalendarUnit::Day, "UTC")
}

pub(crate) fn cost(window: Window, cents: i64) -> Bound {
    Bound::Cost(window, Allowance::new((cents * NANOS_PER_CENT).into()))
}

pub(crate) fn tokens(window: Window, tokens: i128) -> Bound {
    Bound::Tokens(window, Allowance::new(tokens))
}

pub(crate) fn calls(window: Window, calls: i128) -> Bound {
    Bound::Calls(window, Allowance::new(calls))
}

pub(crate) fn concurrent(calls: i128) -> Bound {
    Bound::Concurrent(Allowance::<Concurrent>::new(calls))
}

/// Writes limits of a tenant, new or changed.
pub(crate) async fn put_limits(ledger: &Ledger, rows: Vec<LimitRow>) {
    let Some(tenant_id) = rows.first().map(|row| row.tenant_id) else { return };
    let put = move |tx: &mut dyn ControlTx| {
        tx.lock_limits(tenant_id)?;
        rows.iter().try_for_each(|row| tx.put_limit(row))
    };
    ledger.change(tenant_id, put).await.unwrap();
}

/// Changes a limit of a tenant.
pub(crate) async fn change_limit(
    ledger: &Ledger,
    tenant_id: TenantId,
    number: i64,
    mut change: impl FnMut(&mut LimitRow) + Send + 'static,
) {
    let changed = move |tx: &mut dyn ControlTx| {
        tx.lock_limits(tenant_id)?;
        let mut row = tx.limit(tenant_id, limit_id(number))?.unwrap();
        change(&mut row);
        tx.put_limit(&row)
    };
    ledger.change(tenant_id, changed).await.unwrap();
}

pub(crate) async fn delete_limit(ledger: &Ledger, tenant_id: TenantId, number: i64) {
    let delete = move |tx: &mut dyn ControlTx| {
        tx.lock_limits(tenant_id)?;
        tx.delete_limit(tenant_id, limit_id(number))
    };
    ledger.change(tenant_id, delete).await.unwrap();
}

/// The decision that refuses a request; `None` if it is held.
pub(crate) async fn refusal(
    ledger: &Ledger,
    tenant_id: TenantId,
    request: ReserveRequest,
) -> Option<Decision> {
    match ledger.reserve(tenant_id, request).await.unwrap() {
        ReserveOutcome::Held(_) => None,
        ReserveOutcome::Refused(decision) => Some(decision),
        other @ (ReserveOutcome::Replayed(_) | ReserveOutcome::Rejected(_)) => {
            unreachable!("{other:?}")
        }
    }
}

/// A request for 10 cents by an agent, with key 7.
pub(crate) fn by_agent(integration_id: IntegrationId, agent: &str, call: &str) -> ReserveRequest {
    ReserveRequest {
        agent_id: Some(agent.into()),
        account_key_id: KeyId::from_number(7),
        ..request(integration_id, call)
    }
}

/// The subject of a request, with texts of its own.
pub(crate) fn subject_of(request: &ReserveRequest) -> OwnedSubject {
    let Subject { integration_id, account_key_id, model, agent_id, session_id, tags } =
        request.subject();
    OwnedSubject {
        integration_id,
        account_key_id,
        model: model.map(Into::into),
        agent_id: agent_id.map(Into::into),
        session_id: session_id.map(Into::into),
        tags: tags.clone(),
    }
}

/// The number of a limit, and what is used and held; costs in cents.
pub(crate) type LimitSums = (i64, i128, i128);

/// What each limit has counted that a call falls under, as readers see it.
pub(crate) async fn limit_sums(
    store: &dyn Store,
    tenant_id: TenantId,
    subject: &OwnedSubject,
) -> Vec<LimitSums> {
    let snapshot = store.account_snapshot(tenant_id, subject.clone()).await.unwrap().unwrap();
    let AccountSnapshot { limits, now, .. } = &snapshot;
    let in_force = limits.in_force(tenant_id, &subject.as_subject()).unwrap();
    let sums = in_force.limits.iter().map(|of| {
        let state = of.account.state(&of.limit.rule.bound, of.period, *now).unwrap();
        let unit = if state.measure == Measure::Cost { i128::from(NANOS_PER_CENT) } else { 1 };
        (of.limit.id.number(), state.used / unit, state.held / unit)
    });
    sums.collect()
}
