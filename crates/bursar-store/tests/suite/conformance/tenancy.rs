//! Isolation of tenants: a tenant can neither read nor change the data of another.

use bursar_core::{
    Counter, Day, Decision, ExtendOutcome, IntegrationId, PolicyResult, ReasonCode, RecordOutcome,
    RecordRefusal, ReleaseOutcome, ReserveOutcome, TenantId, Usage,
};
use bursar_store::{
    BreakdownFilter, CallFilter, CallLabel, ControlRefusal, DecisionFilter, HistoryFilter,
    IntegrationEdit, IntegrationFilter, IntegrationRow, KeyDraft, SeriesFilter, Step, Sums,
};

use crate::conformance::breakdown::{EVERY, always};
use crate::conformance::decisions::{put, refused};
use crate::conformance::subject::{ALL, Subject, unlimited};
use crate::support::accounts::account_snapshot;
use crate::support::{call_id, cents, request, usage};

/// The data of a tenant, and another tenant that knows all its ids.
struct Owned {
    owner: TenantId,
    stranger: TenantId,
    integration: IntegrationRow,
    api_key_id: bursar_core::KeyId,
    key_id: bursar_core::KeyId,
}

async fn owned(subject: &Subject) -> Owned {
    let (owner, integration_id) = subject.account(unlimited()).await;
    let stranger = subject.world.tenant("stranger").await;
    let api_key = subject
        .change(owner, |control| control.create_key(KeyDraft::api("key", "*", None), |_| [1; 32]))
        .await;
    let key = subject.change(owner, move |control| {
        control.create_key(KeyDraft::integration(integration_id, None, None), |_| [2; 32])
    });
    let key_id = key.await.key_id;
    subject.record(owner, usage(integration_id, "recorded")).await;
    subject.reserve(owner, request(integration_id, "open")).await;
    let integration = subject.world.store.integration(owner, integration_id).await;
    let integration = integration.unwrap().unwrap();
    Owned { owner, stranger, integration, api_key_id: api_key.key_id, key_id }
}

pub(crate) async fn a_foreign_tenant_reads_nothing(subject: Subject) {
    let Owned { owner, stranger, integration, api_key_id, key_id } = owned(&subject).await;
    let id = integration.integration_id;
    let (store, now) = (&subject.world.store, subject.world.clock.now());
    subject.world.ledger.load_account(stranger, id).await.unwrap();
    assert!(account_snapshot(store, stranger, id).await.is_none());
    assert!(account_snapshot(store, owner, id).await.is_some());
    let counter = store.counter(stranger, id, now.month()).await.unwrap();
    assert_eq!(counter, Counter::default());
    for only in [None, Some(id)] {
        let open = store.open_reservations(stranger, only, ALL).await.unwrap();
        assert_eq!((open.rows.len(), open.total), (0, 0));
        let (first, last) = (Day::from_number(0), now.day());
        let usage = store.usage_by_integration(stranger, only, first, last).await.unwrap();
        assert!(usage.is_empty());
        assert!(subject.days(stranger, (only, first, last)).await.is_empty());
        let filter = HistoryFilter { integration_id: only, ..Default::default() };
        assert_eq!(subject.history(stranger, filter, ALL).await, []);
    }
    assert_eq!(store.key(stranger, None, api_key_id).await.unwrap(), None);
    assert_eq!(store.keys(stranger, None, ALL).await.unwrap().total, 0);
    assert_eq!(store.integration(stranger, id).await.unwrap(), None);
    let listed = store.integrations(stranger, IntegrationFilter::default(), ALL).await.unwrap();
    assert_eq!((listed.rows, listed.total), (vec![], 0));
    assert_eq!(store.key(stranger, Some(id), key_id).await.unwrap(), None);
    let keys = store.keys(stranger, Some(id), ALL).await.unwrap();
    assert_eq!((keys.rows, keys.total), (vec![], 0));
}

pub(crate) async fn a_foreign_tenant_reads_no_figures_and_no_decisions(subject: Subject) {
    let Owned { owner, stranger, integration, .. } = owned(&subject).await;
    let id = integration.integration_id;
    let labelled = Usage {
        agent_id: Some("agent".into()),
        session_id: Some("session".into()),
        error_code: Some("failed".into()),
        policy_result: PolicyResult::Blocked,
        ..usage(id, "labelled")
    };
    subject.record(owner, labelled).await;
    put(&subject, vec![refused((owner, id), 1, subject.world.clock.now())]).await;
    let (store, (first, last)) = (&subject.world.store, always());
    for (tenant_id, is_owner) in [(stranger, false), (owner, true)] {
        let calls = if is_owner { 2 } else { 0 };
        for integration_id in [None, Some(id)] {
            for by in EVERY {
                let filter =
                    BreakdownFilter { by, integration_id, first, last, groups_max: usize::MAX };
                let found = store.usage_breakdown(tenant_id, filter).await.unwrap().unwrap();
                assert_eq!(found.total == Sums::default(), !is_owner, "{filter:?}");
                assert_eq!(found.groups.is_empty(), !is_owner, "{filter:?}");
                let (by, step) = (Some(by), Step::Day);
                let filter =
                    SeriesFilter { by, step, integration_id, first, last, groups_max: usize::MAX };
                let found = store.usage_series(tenant_id, filter).await.unwrap();
                assert_eq!(found.steps.is_empty(), !is_owner, "{filter:?}");
                assert_eq!(found.groups.is_empty(), !is_owner, "{filter:?}");
            }
            let counted = CallFilter { integration_id, label: None, outcome: None, first, last };
            let found = store.counted_calls(tenant_id, counted.clone()).await.unwrap();
            assert_eq!(found, Some(calls));
            for label in [CallLabel::Model("gpt".into()), CallLabel::Agent("agent".into())] {
                let labelled = CallFilter { label: Some(label), ..counted.clone() };
                let found = store.counted_calls(tenant_id, labelled).await.unwrap();
                assert_eq!(found.is_some(), is_owner, "a stranger's label is unknown");
            }
            let of_integration = DecisionFilter { integration_id, ..DecisionFilter::default() };
            let found = store.decisions(tenant_id, of_integration, 10).await.unwrap();
            assert_eq!(found.is_empty(), !is_owner);
            for filter in filters(integration_id) {
                let found = subject.history(tenant_id, filter.clone(), ALL).await;
                assert_eq!(found.is_empty(), !is_owner, "{filter:?}");
            }
        }
        assert_eq!(store.recorded_calls(tenant_id, None).await.unwrap(), calls);
        assert_eq!(store.recorded_calls(tenant_id, Some(id)).await.unwrap(), calls);
    }
}

/// Every filter of the history by itself.
fn filters(integration_id: Option<IntegrationId>) -> [HistoryFilter; 6] {
    let any = HistoryFilter { integration_id, ..HistoryFilter::default() };
    [
        any.clone(),
        HistoryFilter { model: Some("gpt".to_owned()), ..any.clone() },
        HistoryFilter { agent_id: Some("agent".to_owned()), ..any.clone() },
        HistoryFilter { session_id: Some("session".to_owned()), ..any.clone() },
        HistoryFilter { errors_only: true, ..any.clone() },
        HistoryFilter { policy_result: Some(PolicyResult::Blocked), ..any },
    ]
}

pub(crate) async fn a_foreign_tenant_changes_nothing(subject: Subject) {
    let Owned { owner, stranger, integration, api_key_id, key_id } = owned(&subject).await;
    let id = integration.integration_id;
    let before = subject.this_month((owner, id)).await;

    let recorded = subject.record(stranger, usage(id, "foreign")).await;
    assert_eq!(recorded, RecordOutcome::Refused(RecordRefusal::IntegrationNotFound));
    let reserved = subject.reserve(stranger, request(id, "foreign")).await;
    let not_found = Decision::hard_blocked(ReasonCode::IntegrationNotFound);
    assert_eq!(reserved, ReserveOutcome::Refused(not_found));
    let ledger = &subject.world.ledger;
    for only in [None, Some(id)] {
        let released = ledger.release(stranger, call_id("open"), only).await.unwrap();
        assert_eq!(released, ReleaseOutcome::NotFound);
        let extended = ledger.extend(stranger, call_id("open"), only, None).await.unwrap();
        assert_eq!(extended, ExtendOutcome::NotFound);
    }
    let gone = Err(ControlRefusal::IntegrationNotFound);
    let world = &subject.world;
    let edit = IntegrationEdit { rate_limit_rpm: Some(1), ..IntegrationEdit::default() };
    let updated = world.control(stranger, move |c| c.update_integration(id, edit.clone())).await;
    assert_eq!(updated.unwrap(), gone);
    assert_eq!(world.control(stranger, move |c| c.enable_integration(id)).await.unwrap(), gone);
    assert_eq!(world.control(stranger, move |c| c.disable_integration(id)).await.unwrap(), gone);
    assert_eq!(world.control(stranger, move |c| c.delete_integration(id)).await.unwrap(), gone);
    let made = world
        .control(stranger, move |c| {
            c.create_key(KeyDraft::integration(id, None, None), |_| [0; 32])
        })
        .await;
    assert_eq!(made.unwrap(), Err(ControlRefusal::IntegrationNotFound));
    let revoked = world.control(stranger, move |c| c.revoke_key(None, api_key_id)).await;
    assert_eq!(revoked.unwrap(), Err(ControlRefusal::KeyNotFound));
    let revoked = world.control(stranger, move |c| c.revoke_key(Some(id), key_id)).await;
    assert_eq!(revoked.unwrap(), Err(ControlRefusal::KeyNotFound));

    assert_eq!(world.store.integration(owner, id).await.unwrap(), Some(integration));
    assert_eq!(subject.this_month((owner, id)).await, before);
    subject.world.verify().await;
}

pub(crate) async fn one_call_id_of_two_tenants_is_two_calls(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let other = subject.world.tenant("other").await;
    let others = subject.world.integration(other, "integration", unlimited()).await;
    let reserved = subject.reserve(tenant_id, request(integration_id, "call")).await;
    assert!(matches!(reserved, ReserveOutcome::Held(_)), "{reserved:?}");
    let recorded = subject.record(other, usage(others, "call")).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
    assert_eq!(subject.this_month((tenant_id, integration_id)).await.held.cost, cents(10));
    assert_eq!(subject.release(other, "call").await, ReleaseOutcome::NotFound);
    let recorded = subject.record(tenant_id, usage(integration_id, "call")).await;
    assert!(matches!(recorded, RecordOutcome::Accepted(_)), "{recorded:?}");
    assert_eq!(subject.entries(tenant_id).await.len(), 1);
    assert_eq!(subject.entries(other).await.len(), 1);
    subject.world.verify().await;
}
