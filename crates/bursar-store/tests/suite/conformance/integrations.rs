//! Integrations: fields, unique live names, lists and status changes.

use bursar_core::{
    CostBasis, FailureCause, Health, Integration, IntegrationId, IntegrationStatus,
    LifecycleRefusal, LimitSettings, TenantId, TenantLifecycle,
};
use bursar_store::{
    ControlRefusal, IntegrationDraft, IntegrationEdit, IntegrationFilter, IntegrationRow, Page,
    StoreError,
};

use crate::conformance::subject::{ALL, Subject, unlimited};
use crate::support::{actor, budget, draft};

async fn create(subject: &Subject, tenant_id: TenantId, draft: IntegrationDraft) -> IntegrationRow {
    subject.change(tenant_id, move |control| control.create_integration(draft.clone())).await
}

async fn update(
    subject: &Subject,
    row: &IntegrationRow,
    edit: IntegrationEdit,
) -> Result<IntegrationRow, ControlRefusal> {
    let integration_id = row.integration_id;
    let change = move |control: &mut bursar_store::Control<'_>| {
        control.update_integration(integration_id, edit.clone())
    };
    subject.world.control(row.tenant_id, change).await.unwrap()
}

async fn stored(subject: &Subject, row: &IntegrationRow) -> IntegrationRow {
    let found = subject.world.store.integration(row.tenant_id, row.integration_id).await;
    found.unwrap().unwrap()
}

/// Writes a row as it is, as jobs that check health do.
async fn put(subject: &Subject, row: &IntegrationRow) {
    let copy = row.clone();
    let write = move |tx: &mut dyn bursar_store::ControlTx| tx.put_integration(&copy);
    subject.world.ledger.change(row.tenant_id, write).await.unwrap();
}

pub(crate) async fn an_integration_is_read_back_field_by_field(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let limits = LimitSettings {
        budget_limit_cents: i64::MAX,
        token_limit_month: 1_000_000,
        rate_limit_rpm: 60,
    };
    let full = IntegrationDraft { cost_basis: CostBasis::Computed, ..draft("full", limits) };
    let bare = IntegrationDraft {
        credential_ref: None,
        origin: None,
        default_model: None,
        ..draft("bare", unlimited())
    };
    let full = create(&subject, tenant_id, full).await;
    let bare = create(&subject, tenant_id, bare).await;
    assert_eq!(full.rules, Integration::new(limits, CostBasis::Computed));
    assert_eq!(full.created_by, actor().actor_id);

    // Health is written by jobs, not by changes that a client asks for.
    let checked = IntegrationRow {
        rules: Integration { health: Health::Failing(FailureCause::Provider), ..full.rules },
        health_checked_at: Some(subject.world.clock.now()),
        health_message: Some("timed out".to_owned()),
        ..full
    };
    put(&subject, &checked).await;
    let subject = subject.reopened().await;
    assert_eq!(stored(&subject, &checked).await, checked);
    assert_eq!(stored(&subject, &bare).await, bare);
}

pub(crate) async fn an_update_changes_only_the_named_fields(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let before = create(&subject, tenant_id, draft("before", budget(100))).await;
    subject.world.clock.advance(10);
    let edit = IntegrationEdit {
        name: Some("after".to_owned()),
        token_limit_month: Some(5),
        ..IntegrationEdit::default()
    };
    assert!(!edit.is_empty());
    let answered = update(&subject, &before, edit).await.unwrap();
    let mut expected = before.clone();
    expected.name = "after".to_owned();
    expected.rules.limits.token_limit_month = 5;
    expected.updated_at = subject.world.clock.now();
    assert_eq!(answered, expected);
    assert_eq!(stored(&subject, &before).await, expected);

    let everything = IntegrationEdit {
        name: Some("after".to_owned()),
        credential_ref: Some(Some("env://CUS_CRED_B".to_owned())),
        config: Some(("{}".to_owned(), Some("https://other.example.com:443".to_owned()))),
        default_model: Some(Some("other".to_owned())),
        budget_limit_cents: Some(1),
        token_limit_month: Some(2),
        rate_limit_rpm: Some(3),
        cost_basis: Some(CostBasis::Computed),
    };
    let answered = update(&subject, &before, everything).await.unwrap();
    assert_eq!(answered.credential_ref.as_deref(), Some("env://CUS_CRED_B"));
    let limits = LimitSettings { budget_limit_cents: 1, token_limit_month: 2, rate_limit_rpm: 3 };
    assert_eq!(answered.rules, Integration::new(limits, CostBasis::Computed));
    assert_eq!(stored(&subject, &before).await, answered);
}

pub(crate) async fn null_clears_a_nullable_field(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let row = create(&subject, tenant_id, draft("integration", unlimited())).await;
    let edit = IntegrationEdit {
        credential_ref: Some(None),
        default_model: Some(None),
        ..IntegrationEdit::default()
    };
    update(&subject, &row, edit).await.unwrap();
    let cleared = stored(&subject, &row).await;
    assert_eq!((cleared.credential_ref, cleared.default_model), (None, None));
    assert!(IntegrationEdit::default().is_empty());
}

pub(crate) async fn a_new_origin_removes_the_credential_reference(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let row = create(&subject, tenant_id, draft("integration", unlimited())).await;
    let config = |origin: Option<&str>| IntegrationEdit {
        config: Some(("{}".to_owned(), origin.map(str::to_owned))),
        ..IntegrationEdit::default()
    };
    let same = update(&subject, &row, config(row.origin.as_deref())).await.unwrap();
    assert_eq!(same.credential_ref, row.credential_ref);
    let moved = update(&subject, &row, config(Some("https://evil.example.com:443"))).await;
    assert_eq!(moved.unwrap().credential_ref, None);
    assert_eq!(stored(&subject, &row).await.credential_ref, None);
}

pub(crate) async fn two_live_integrations_cannot_share_a_name(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let first = create(&subject, tenant_id, draft("taken", unlimited())).await;
    let again = subject
        .world
        .control(tenant_id, |control| control.create_integration(draft("taken", unlimited())));
    assert_eq!(again.await.unwrap(), Err(ControlRefusal::NameTaken));

    let second = create(&subject, tenant_id, draft("free", unlimited())).await;
    let named =
        |name: &str| IntegrationEdit { name: Some(name.to_owned()), ..IntegrationEdit::default() };
    let taken = update(&subject, &second, named("taken")).await;
    assert_eq!(taken, Err(ControlRefusal::NameTaken));
    assert!(update(&subject, &first, named("taken")).await.is_ok(), "its own name");

    // The constraint of the database refuses the name too.
    let copy = IntegrationRow { name: "taken".to_owned(), ..second.clone() };
    let write = move |tx: &mut dyn bursar_store::ControlTx| tx.put_integration(&copy);
    let refused = subject.world.ledger.change(tenant_id, write).await;
    assert!(matches!(refused, Err(StoreError::Exists(_))), "{refused:?}");
    assert_eq!(stored(&subject, &second).await.name, "free");

    let other = subject.world.tenant("other").await;
    create(&subject, other, draft("taken", unlimited())).await;
}

pub(crate) async fn deleting_hides_the_integration_and_frees_its_name(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let row = create(&subject, tenant_id, draft("name", unlimited())).await;
    let integration_id = row.integration_id;
    let deleted =
        subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    assert_eq!(deleted.deleted_at, Some(subject.world.clock.now()));
    assert_eq!(deleted.credential_ref, None);

    let store = &subject.world.store;
    assert_eq!(store.integration(tenant_id, integration_id).await.unwrap(), None);
    let listed = store.integrations(tenant_id, IntegrationFilter::default(), ALL).await.unwrap();
    assert_eq!((listed.rows, listed.total), (vec![], 0));
    let gone = Err(ControlRefusal::IntegrationNotFound);
    let again =
        subject.world.control(tenant_id, move |control| control.delete_integration(integration_id));
    assert_eq!(again.await.unwrap(), gone);
    let enabled =
        subject.world.control(tenant_id, move |control| control.enable_integration(integration_id));
    assert_eq!(enabled.await.unwrap(), gone);
    assert_eq!(update(&subject, &row, IntegrationEdit::default()).await, gone);
    let successor = create(&subject, tenant_id, draft("name", unlimited())).await;
    assert_ne!(successor.integration_id, integration_id);
}

pub(crate) async fn integrations_are_filtered_and_paged_with_their_total(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let mut made: Vec<IntegrationId> = Vec::new();
    for number in 0..5 {
        let provider_type = if number % 2 == 0 { "openai" } else { "anthropic" }.to_owned();
        let draft = draft(&format!("integration {number}"), unlimited());
        let row = create(&subject, tenant_id, IntegrationDraft { provider_type, ..draft }).await;
        made.push(row.integration_id);
    }
    let enabled = made[1];
    subject.change(tenant_id, move |control| control.enable_integration(enabled)).await;

    let list = async |filter: IntegrationFilter, page: Page| {
        let found = subject.world.store.integrations(tenant_id, filter, page).await.unwrap();
        let ids: Vec<IntegrationId> = found.rows.iter().map(|row| row.integration_id).collect();
        (ids, found.total)
    };
    let provider = |name: &str| IntegrationFilter {
        provider_type: Some(name.to_owned()),
        ..IntegrationFilter::default()
    };
    let status = |status| IntegrationFilter { status: Some(status), ..Default::default() };
    let any = IntegrationFilter::default;
    assert_eq!(list(any(), ALL).await, (made.clone(), 5));
    assert_eq!(list(any(), Page { offset: 3, limit: 4 }).await, (made[3..].to_vec(), 5));
    assert_eq!(list(any(), Page { offset: 9, limit: 4 }).await, (vec![], 5));
    assert_eq!(list(provider("openai"), ALL).await, (vec![made[0], made[2], made[4]], 3));
    let page = Page { offset: 1, limit: 1 };
    assert_eq!(list(provider("anthropic"), page).await, (vec![made[3]], 2));
    assert_eq!(list(status(IntegrationStatus::Enabled), ALL).await, (vec![enabled], 1));
    let both = IntegrationFilter {
        status: Some(IntegrationStatus::Enabled),
        provider_type: Some("openai".to_owned()),
    };
    assert_eq!(list(both, ALL).await, (vec![], 0));
}

pub(crate) async fn an_integration_in_error_is_disabled_but_not_enabled(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let mut row = create(&subject, tenant_id, draft("integration", unlimited())).await;
    row.rules.status = IntegrationStatus::Error;
    put(&subject, &row).await;
    let integration_id = row.integration_id;
    let enabled = subject
        .world
        .control(tenant_id, move |control| control.enable_integration(integration_id))
        .await
        .unwrap();
    assert_eq!(enabled, Err(ControlRefusal::Lifecycle(LifecycleRefusal::InError)));
    let disabled =
        subject.change(tenant_id, move |control| control.disable_integration(integration_id)).await;
    assert_eq!(disabled.rules.status, IntegrationStatus::Disabled);
    assert_eq!(stored(&subject, &row).await.rules.status, IntegrationStatus::Disabled);
}

pub(crate) async fn integrations_of_an_inactive_tenant_cannot_be_changed(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let row = create(&subject, tenant_id, draft("integration", unlimited())).await;
    let unknown = TenantId::from_number(tenant_id.number() + 1_000).unwrap();
    let suspend = move |tx: &mut dyn bursar_store::ControlTx| {
        let mut tenant = tx.tenant(tenant_id)?.unwrap();
        tenant.lifecycle = TenantLifecycle::Suspended;
        tx.put_tenant(&tenant)
    };
    subject.world.ledger.change(tenant_id, suspend).await.unwrap();

    let edit = IntegrationEdit { rate_limit_rpm: Some(1), ..IntegrationEdit::default() };
    let not_active = Err(ControlRefusal::TenantSuspended);
    assert_eq!(update(&subject, &row, edit).await, not_active);
    for (tenant_id, refusal) in
        [(tenant_id, not_active), (unknown, Err(ControlRefusal::TenantNotFound))]
    {
        let created = subject.world.control(tenant_id, |control| {
            control.create_integration(draft("another", unlimited()))
        });
        assert_eq!(created.await.unwrap(), refusal);
    }
    assert_eq!(stored(&subject, &row).await, row);
}
