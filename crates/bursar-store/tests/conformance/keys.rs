//! API keys of a tenant and keys of one integration.

use bursar_core::{ApiKeyId, IntegrationId, IntegrationKeyId, TenantId};
use bursar_store::{ApiKeyRow, ControlRefusal, IntegrationKeyRow, Page};

use crate::subject::{Subject, unlimited};
use crate::support::actor;

async fn create_api_key(subject: &Subject, tenant_id: TenantId, name: &'static str) -> ApiKeyRow {
    let expires_at = subject.world.clock.now().plus_seconds(60);
    let create = move |control: &mut bursar_store::Control<'_>| {
        control.create_api_key(name, "telemetry:write enforcement:check", Some(expires_at), |id| {
            [id.number() as u8; 32]
        })
    };
    subject.change(tenant_id, create).await
}

async fn create_integration_key(
    subject: &Subject,
    (tenant_id, integration_id): (TenantId, IntegrationId),
    name: Option<&'static str>,
) -> IntegrationKeyRow {
    let create = move |control: &mut bursar_store::Control<'_>| {
        control.create_integration_key(integration_id, name, |id| [id.number() as u8; 32])
    };
    subject.change(tenant_id, create).await
}

pub(crate) async fn an_api_key_leads_back(subject: Subject) {
    let now = subject.world.clock.now();
    let tenant_id = subject.tenant().await;
    let made = create_api_key(&subject, tenant_id, "key").await;
    let expected = ApiKeyRow {
        tenant_id,
        api_key_id: made.api_key_id,
        name: "key".to_owned(),
        scopes: "telemetry:write enforcement:check".to_owned(),
        secret_hash: [made.api_key_id.number() as u8; 32],
        created_at: now,
        created_by: actor().actor_id,
        expires_at: Some(now.plus_seconds(60)),
        revoked_at: None,
        last_used_at: None,
    };
    assert_eq!(made, expected);

    let used = ApiKeyRow { last_used_at: Some(now.plus_seconds(5)), ..expected };
    let copy = used.clone();
    let write = move |tx: &mut dyn bursar_store::ControlTx| tx.put_api_key(&copy);
    subject.world.ledger.change(tenant_id, write).await.unwrap();
    let subject = subject.reopened().await;
    let stored = subject.world.store.api_key(tenant_id, made.api_key_id).await.unwrap();
    assert_eq!(stored, Some(used));
}

pub(crate) async fn a_second_revocation_changes_nothing(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let api_key_id = create_api_key(&subject, tenant_id, "key").await.api_key_id;
    let key_id = create_integration_key(&subject, account, None).await.integration_key_id;
    let revoked_at = Some(subject.world.clock.now());
    for _ in 0..2 {
        let api_key =
            subject.change(tenant_id, move |control| control.revoke_api_key(api_key_id)).await;
        assert_eq!(api_key.revoked_at, revoked_at);
        let key = subject.change(tenant_id, move |control| {
            control.revoke_integration_key(integration_id, key_id)
        });
        assert_eq!(key.await.revoked_at, revoked_at);
        subject.world.clock.advance(10);
    }
    let store = &subject.world.store;
    let api_key = store.api_key(tenant_id, api_key_id).await.unwrap().unwrap();
    let key = store.integration_key(tenant_id, integration_id, key_id).await.unwrap().unwrap();
    assert_eq!((api_key.revoked_at, key.revoked_at), (revoked_at, revoked_at));
}

pub(crate) async fn api_keys_come_oldest_first_page_by_page(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let mut made: Vec<ApiKeyId> = Vec::new();
    for name in ["a", "b", "c"] {
        made.push(create_api_key(&subject, tenant_id, name).await.api_key_id);
    }
    let mut found = Vec::new();
    for offset in [0, 2, 4] {
        let page = Page { offset, limit: 2 };
        let page = subject.world.store.api_keys(tenant_id, page).await.unwrap();
        assert_eq!(page.total, 3);
        found.extend(page.rows.into_iter().map(|row| row.api_key_id));
    }
    assert_eq!(found, made);
}

pub(crate) async fn an_integration_key_leads_back(subject: Subject) {
    let now = subject.world.clock.now();
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let made = create_integration_key(&subject, account, Some("machine")).await;
    let expected = IntegrationKeyRow {
        tenant_id,
        integration_id,
        integration_key_id: made.integration_key_id,
        name: Some("machine".to_owned()),
        secret_hash: [made.integration_key_id.number() as u8; 32],
        created_at: now,
        created_by: actor().actor_id,
        revoked_at: None,
        last_used_at: None,
    };
    assert_eq!(made, expected);

    let used = IntegrationKeyRow { last_used_at: Some(now.plus_seconds(5)), ..expected };
    let copy = used.clone();
    let write = move |tx: &mut dyn bursar_store::ControlTx| tx.put_integration_key(&copy);
    subject.world.ledger.change(tenant_id, write).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.world.store;
    let stored = store.integration_key(tenant_id, integration_id, made.integration_key_id).await;
    assert_eq!(stored.unwrap(), Some(used));
}

pub(crate) async fn integration_keys_come_oldest_first_page_by_page(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let neighbour = subject.world.integration(account.0, "neighbour", unlimited()).await;
    create_integration_key(&subject, (account.0, neighbour), None).await;
    let mut made: Vec<IntegrationKeyId> = Vec::new();
    for _ in 0..3 {
        made.push(create_integration_key(&subject, account, None).await.integration_key_id);
    }
    let mut found = Vec::new();
    for offset in [0, 2, 4] {
        let page = Page { offset, limit: 2 };
        let store = &subject.world.store;
        let page = store.integration_keys(account.0, account.1, page).await.unwrap();
        assert_eq!(page.total, 3);
        found.extend(page.rows.into_iter().map(|row| row.integration_key_id));
    }
    assert_eq!(found, made);
}

pub(crate) async fn a_key_of_a_deleted_integration_is_gone(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let key_id = create_integration_key(&subject, account, None).await.integration_key_id;
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    let found = subject.world.store.integration_key(tenant_id, integration_id, key_id).await;
    assert_eq!(found.unwrap(), None);
    let created = subject.world.control(tenant_id, move |control| {
        control.create_integration_key(integration_id, None, |_| [0; 32])
    });
    assert_eq!(created.await.unwrap(), Err(ControlRefusal::IntegrationNotFound));
}

pub(crate) async fn an_unknown_key_is_not_revoked(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let api_key_id = ApiKeyId::from_number(7).unwrap();
    let key_id = IntegrationKeyId::from_number(7).unwrap();
    let store = &subject.world.store;
    assert_eq!(store.api_key(tenant_id, api_key_id).await.unwrap(), None);
    let found = store.integration_key(tenant_id, integration_id, key_id).await.unwrap();
    assert_eq!(found, None);
    let revoked =
        subject.world.control(tenant_id, move |control| control.revoke_api_key(api_key_id)).await;
    assert_eq!(revoked.unwrap(), Err(ControlRefusal::KeyNotFound));
    let revoked = subject
        .world
        .control(tenant_id, move |control| control.revoke_integration_key(integration_id, key_id));
    assert_eq!(revoked.await.unwrap(), Err(ControlRefusal::KeyNotFound));
}
