//! Caps on the integrations and keys of a tenant.

use bursar_core::{IntegrationId, TenantId};
use bursar_store::{
    Changed, Control, ControlRefusal, ControlTx, IntegrationRow, KeyDraft, KeyRow, Page, TenantCaps,
};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::{actor, draft};

const CAPS: TenantCaps = TenantCaps { integrations: 3, api_keys: 3, integration_keys: 3 };

/// Runs a change under the caps of these tests.
async fn control<T: Send + 'static>(
    subject: &Subject,
    tenant_id: TenantId,
    change: impl Fn(&mut Control<'_>) -> Changed<T> + Send + 'static,
) -> Result<T, ControlRefusal> {
    let change = move |tx: &mut dyn ControlTx| {
        change(&mut Control::new(tx, &actor(), tenant_id).with_caps(CAPS))
    };
    subject.world.ledger.change(tenant_id, change).await.unwrap()
}

async fn create_integration(
    subject: &Subject,
    tenant_id: TenantId,
    name: &str,
) -> Result<IntegrationRow, ControlRefusal> {
    let draft = draft(name, unlimited());
    control(subject, tenant_id, move |control| control.create_integration(draft.clone())).await
}

async fn create_api_key(subject: &Subject, tenant_id: TenantId) -> Result<KeyRow, ControlRefusal> {
    let create =
        |control: &mut Control<'_>| control.create_key(KeyDraft::api("k", "*", None), |_| [1; 32]);
    control(subject, tenant_id, create).await
}

async fn create_integration_key(
    subject: &Subject,
    (tenant_id, integration_id): (TenantId, IntegrationId),
) -> Result<KeyRow, ControlRefusal> {
    let create = move |control: &mut Control<'_>| {
        control.create_key(KeyDraft::integration(integration_id, None, None), |_| [1; 32])
    };
    control(subject, tenant_id, create).await
}

pub(crate) async fn integrations_are_limited_by_the_cap(subject: Subject) {
    let (tenant_id, other) = (subject.tenant().await, subject.world.tenant("another").await);
    for name in ["a", "b", "c"] {
        create_integration(&subject, tenant_id, name).await.unwrap();
    }
    let refused = create_integration(&subject, tenant_id, "d").await.unwrap_err();
    assert_eq!(refused, ControlRefusal::TooManyIntegrations { max: 3 });
    // Another tenant has its own cap.
    create_integration(&subject, other, "i").await.unwrap();
    // Deleted integrations have a cap too.
    let page = Page { offset: 0, limit: 1 };
    for number in 1.. {
        let live = subject.world.store.integrations(tenant_id, Default::default(), page).await;
        let id = live.unwrap().rows[0].integration_id;
        control(&subject, tenant_id, move |c| c.delete_integration(id)).await.unwrap();
        let made = create_integration(&subject, tenant_id, &format!("again {number}")).await;
        if number == 15 {
            assert_eq!(made.unwrap_err(), ControlRefusal::TooManyDeleted { max: 15 });
            break;
        }
        made.unwrap();
    }
}

pub(crate) async fn live_keys_are_limited_by_the_cap(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let other = subject.world.tenant("another").await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(create_api_key(&subject, account.0).await.unwrap().key_id);
        create_integration_key(&subject, account).await.unwrap();
    }
    let full = ControlRefusal::TooManyKeys { max: 3 };
    assert_eq!(create_api_key(&subject, account.0).await.unwrap_err(), full);
    assert_eq!(create_integration_key(&subject, account).await.unwrap_err(), full);
    create_api_key(&subject, other).await.unwrap();
    let revoked = made[0];
    control(&subject, account.0, move |c| c.revoke_key(None, revoked)).await.unwrap();
    create_api_key(&subject, account.0).await.unwrap();
    assert_eq!(create_api_key(&subject, account.0).await.unwrap_err(), full);
}

pub(crate) async fn a_rotation_is_possible_at_the_cap(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let mut newest = Vec::new();
    for _ in 0..3 {
        newest.push(create_api_key(&subject, tenant_id).await.unwrap().key_id);
    }
    let rotate = async |id, overlap: u32| {
        let change =
            move |control: &mut Control<'_>| control.rotate_key(None, id, overlap, |_| [2; 32]);
        control(&subject, tenant_id, change).await.map(|row| row.key_id)
    };
    for id in &mut newest {
        *id = rotate(*id, 60).await.unwrap();
    }
    // Six keys are live, twice the cap.
    let full = ControlRefusal::TooManyKeys { max: 3 };
    assert_eq!(rotate(newest[0], 60).await.unwrap_err(), full);
    newest[0] = rotate(newest[0], 0).await.unwrap();
    assert_eq!(create_api_key(&subject, tenant_id).await.unwrap_err(), full);
    subject.world.clock.advance(60);
    rotate(newest[0], 60).await.unwrap();
}

pub(crate) async fn the_oldest_ended_keys_are_deleted(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let (mut api_keys, mut keys) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let api_key = create_api_key(&subject, tenant_id).await.unwrap().key_id;
        let key = create_integration_key(&subject, account).await.unwrap().key_id;
        control(&subject, tenant_id, move |c| c.revoke_key(None, api_key)).await.unwrap();
        let revoke = move |c: &mut Control<'_>| c.revoke_key(Some(integration_id), key);
        control(&subject, tenant_id, revoke).await.unwrap();
        subject.world.clock.advance(1);
        api_keys.push(api_key);
        keys.push(key);
    }
    // The next key deletes the oldest ended keys, down to one less than the cap.
    api_keys.push(create_api_key(&subject, tenant_id).await.unwrap().key_id);
    keys.push(create_integration_key(&subject, account).await.unwrap().key_id);
    let (store, page) = (&subject.world.store, Page { offset: 0, limit: 10 });
    let found = store.keys(tenant_id, None, page).await.unwrap();
    let found: Vec<_> = found.rows.into_iter().map(|row| row.key_id).collect();
    assert_eq!(found, api_keys[4..]);
    let found = store.keys(tenant_id, Some(integration_id), page).await.unwrap();
    let found: Vec<_> = found.rows.into_iter().map(|row| row.key_id).collect();
    assert_eq!(found, keys[4..]);
}

pub(crate) async fn concurrent_creates_do_not_exceed_the_cap(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let tenant_id = account.0;
    let names: Vec<String> = (0..12).map(|number| format!("at once {number}")).collect();
    let integrations = futures_util::future::join_all(
        names.iter().map(|name| create_integration(&subject, tenant_id, name)),
    );
    let api_keys =
        futures_util::future::join_all((0..12).map(|_| create_api_key(&subject, tenant_id)));
    let keys =
        futures_util::future::join_all((0..12).map(|_| create_integration_key(&subject, account)));
    let (integrations, api_keys, keys) = tokio::join!(integrations, api_keys, keys);
    // One integration existed before.
    assert_eq!(integrations.iter().filter(|made| made.is_ok()).count(), 2);
    assert_eq!(api_keys.iter().filter(|made| made.is_ok()).count(), 3);
    assert_eq!(keys.iter().filter(|made| made.is_ok()).count(), 3);
}
