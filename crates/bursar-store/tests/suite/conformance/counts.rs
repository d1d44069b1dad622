//! Counts of calls from rollups: they equal the entries, or there is no count.

use bursar_core::{Day, IntegrationId, PolicyResult, TenantId, Usage};
use bursar_store::{CallFilter, CallLabel, CallOutcome, OTHER, UsageRow};

use crate::conformance::breakdown::always;
use crate::conformance::mixture::{AGENTS, MODELS, mixed};
use crate::conformance::subject::{Subject, earlier, unlimited};
use crate::support::{call_id, day, usage};

const OUTCOMES: [Option<CallOutcome>; 3] =
    [None, Some(CallOutcome::Failed), Some(CallOutcome::Blocked)];

/// All calls of all days.
fn all() -> CallFilter {
    let (first, last) = always();
    CallFilter { integration_id: None, label: None, outcome: None, first, last }
}

fn model(name: &str) -> Option<CallLabel> {
    Some(CallLabel::Model(name.to_owned()))
}

fn agent(name: &str) -> Option<CallLabel> {
    Some(CallLabel::Agent(name.to_owned()))
}

/// Whether a filter counts an entry, days aside.
fn counts(filter: &CallFilter, row: &UsageRow) -> bool {
    let is_labelled = match &filter.label {
        None => true,
        Some(CallLabel::Model(model)) => row.model == *model,
        Some(CallLabel::Agent(agent)) => row.agent_id.as_ref() == Some(agent),
    };
    let came_out = match filter.outcome {
        None => true,
        Some(CallOutcome::Failed) => row.error_code.is_some(),
        Some(CallOutcome::Blocked) => row.policy_result == PolicyResult::Blocked,
    };
    is_labelled && came_out && filter.integration_id.is_none_or(|id| id == row.integration_id)
}

async fn count(subject: &Subject, tenant_id: TenantId, filter: CallFilter) -> Option<i64> {
    subject.world.store.counted_calls(tenant_id, filter).await.unwrap()
}

pub(crate) async fn calls_are_counted_by_label_and_outcome(subject: Subject) {
    let (tenant_id, integrations) = mixed(&subject, 300).await;
    let subject = subject.reopened().await;
    let rows = subject.entries(tenant_id).await;
    let labels = MODELS.map(model).into_iter().chain(AGENTS.map(agent)).chain([None]);
    for label in labels {
        for outcome in OUTCOMES {
            for integration_id in [None].into_iter().chain(integrations.map(Some)) {
                let filter = CallFilter { integration_id, label: label.clone(), outcome, ..all() };
                let expected = rows.iter().filter(|row| counts(&filter, row)).count() as i64;
                let counted = count(&subject, tenant_id, filter.clone()).await;
                assert_eq!(counted, Some(expected), "{filter:?}");
            }
        }
    }
}

pub(crate) async fn the_counted_days_are_inclusive(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let (first, last) = (day(2026, 2, 27), day(2026, 3, 2));
    let instants = [earlier(first, 1), first, last.plus_seconds(86_399), last.plus_seconds(86_400)];
    for (number, at) in instants.into_iter().enumerate() {
        let call = Usage {
            agent_id: Some("agent".into()),
            occurred_at: Some(at),
            ..usage(integration_id, &format!("call {number}"))
        };
        subject.record(tenant_id, call).await;
    }
    for label in [None, model("gpt"), agent("agent")] {
        let of_days = async |first: Day, last: Day| {
            let filter = CallFilter { label: label.clone(), first, last, ..all() };
            count(&subject, tenant_id, filter).await
        };
        assert_eq!(of_days(first.day(), last.day()).await, Some(2), "{label:?}");
        assert_eq!(of_days(last.day(), first.day()).await, Some(0), "{label:?}");
    }
}

pub(crate) async fn a_label_without_rollups_of_its_own_is_not_counted(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let called_other = Usage {
        model: OTHER.into(),
        agent_id: Some(OTHER.into()),
        ..usage(integration_id, "call")
    };
    subject.record(tenant_id, called_other).await;
    for label in [model(OTHER), agent(OTHER), model("unused"), agent("unused")] {
        for outcome in OUTCOMES {
            let filter = CallFilter { label: label.clone(), outcome, ..all() };
            assert_eq!(count(&subject, tenant_id, filter).await, None, "{label:?}");
        }
    }
    assert_eq!(count(&subject, tenant_id, all()).await, Some(1));
    // A model with that name is not an agent.
    let mixed_up = CallFilter { label: agent("gpt"), ..all() };
    subject.record(tenant_id, usage(integration_id, "call 2")).await;
    assert_eq!(count(&subject, tenant_id, mixed_up).await, None);
}

/// A call of a model that no other call uses.
fn with_own_model(integration_id: IntegrationId, number: usize) -> Usage {
    let model = format!("model {number:04}").into();
    Usage { model, ..usage(integration_id, &format!("call {number}")) }
}

pub(crate) async fn a_model_that_is_partly_other_is_not_counted(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let batch = (0..1_000).map(|number| with_own_model(integration_id, number));
    subject.world.ledger.record(tenant_id, batch.collect()).await.unwrap();
    let own = CallFilter { label: model("model 0007"), ..all() };
    assert_eq!(count(&subject, tenant_id, own.clone()).await, Some(1));
    // The same name of another provider is another model, which counts as other.
    let call_id = call_id("again");
    let again = Usage { provider: "azure".into(), call_id, ..with_own_model(integration_id, 7) };
    subject.record(tenant_id, again).await;
    assert_eq!(count(&subject, tenant_id, own).await, None, "two calls, of which one is other");
    let past = CallFilter { label: model("model 1000"), ..all() };
    subject.record(tenant_id, with_own_model(integration_id, 1_000)).await;
    assert_eq!(count(&subject, tenant_id, past).await, None);
    assert_eq!(count(&subject, tenant_id, all()).await, Some(1_002));
}
