//! API keys of a tenant and keys of one integration.

use bursar_core::{IntegrationId, KeyId, TenantId, Timestamp};
use bursar_store::{ControlRefusal, ControlTx, KeyDraft, KeyRow, Page};

use crate::conformance::subject::{Subject, unlimited};
use crate::support::actor;

fn hash(key_id: KeyId) -> [u8; 32] {
    [key_id.number() as u8; 32]
}

/// Writes the use of a key, and checks that the whole row is read back from the reopened store.
async fn check_read_back(subject: Subject, key: KeyRow) {
    let (tenant_id, integration_id) = (key.tenant_id, key.integration_id);
    let used = KeyRow { last_used_at: Some(subject.world.clock.now().plus_seconds(5)), ..key };
    let copy = used.clone();
    let write = move |tx: &mut dyn ControlTx| tx.put_key(&copy);
    subject.world.ledger.change(tenant_id, write).await.unwrap();
    let subject = subject.reopened().await;
    let stored = subject.world.store.key(tenant_id, integration_id, used.key_id).await.unwrap();
    assert_eq!(stored, Some(used));
}

async fn create_api_key(subject: &Subject, tenant_id: TenantId, name: &'static str) -> KeyRow {
    let expires_at = Some(subject.world.clock.now().plus_seconds(60));
    let create = move |control: &mut bursar_store::Control<'_>| {
        let scopes = "telemetry:write enforcement:check";
        control.create_key(KeyDraft::api(name, scopes, expires_at), hash)
    };
    subject.change(tenant_id, create).await
}

async fn create_integration_key(
    subject: &Subject,
    (tenant_id, integration_id): (TenantId, IntegrationId),
    name: Option<&'static str>,
) -> KeyRow {
    let create = move |control: &mut bursar_store::Control<'_>| {
        control.create_key(KeyDraft::integration(integration_id, name, None), hash)
    };
    subject.change(tenant_id, create).await
}

pub(crate) async fn an_api_key_is_read_back(subject: Subject) {
    let now = subject.world.clock.now();
    let tenant_id = subject.tenant().await;
    let made = create_api_key(&subject, tenant_id, "key").await;
    let expected = KeyRow {
        tenant_id,
        key_id: made.key_id,
        integration_id: None,
        name: Some("key".to_owned()),
        scopes: Some("telemetry:write enforcement:check".to_owned()),
        secret_hash: hash(made.key_id),
        created_at: now,
        created_by: actor().actor_id,
        expires_at: Some(now.plus_seconds(60)),
        revoked_at: None,
        last_used_at: None,
        replaced_by: None,
        account_key_id: made.key_id,
    };
    assert_eq!(made, expected);

    check_read_back(subject, expected).await;
}

pub(crate) async fn a_second_revocation_changes_nothing(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let api_key_id = create_api_key(&subject, tenant_id, "key").await.key_id;
    let key_id = create_integration_key(&subject, account, None).await.key_id;
    let revoked_at = Some(subject.world.clock.now());
    for _ in 0..2 {
        let api_key =
            subject.change(tenant_id, move |control| control.revoke_key(None, api_key_id)).await;
        assert_eq!(api_key.revoked_at, revoked_at);
        let key = subject
            .change(tenant_id, move |control| control.revoke_key(Some(integration_id), key_id));
        assert_eq!(key.await.revoked_at, revoked_at);
        subject.world.clock.advance(10);
    }
    let store = &subject.world.store;
    let api_key = store.key(tenant_id, None, api_key_id).await.unwrap().unwrap();
    let key = store.key(tenant_id, Some(integration_id), key_id).await.unwrap().unwrap();
    assert_eq!((api_key.revoked_at, key.revoked_at), (revoked_at, revoked_at));
}

pub(crate) async fn api_keys_are_listed_oldest_first_page_by_page(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let mut made: Vec<KeyId> = Vec::new();
    for name in ["a", "b", "c"] {
        made.push(create_api_key(&subject, tenant_id, name).await.key_id);
    }
    let mut found = Vec::new();
    for offset in [0, 2, 4] {
        let page = Page { offset, limit: 2 };
        let page = subject.world.store.keys(tenant_id, None, page).await.unwrap();
        assert_eq!(page.total, 3);
        found.extend(page.rows.into_iter().map(|row| row.key_id));
    }
    assert_eq!(found, made);
}

pub(crate) async fn an_integration_key_is_read_back(subject: Subject) {
    let now = subject.world.clock.now();
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let end = Some(now.plus_seconds(60));
    let create = move |control: &mut bursar_store::Control<'_>| {
        control.create_key(KeyDraft::integration(integration_id, Some("machine"), end), hash)
    };
    let made = subject.change(tenant_id, create).await;
    let expected = KeyRow {
        tenant_id,
        key_id: made.key_id,
        integration_id: Some(integration_id),
        name: Some("machine".to_owned()),
        scopes: None,
        secret_hash: hash(made.key_id),
        created_at: now,
        created_by: actor().actor_id,
        expires_at: end,
        revoked_at: None,
        last_used_at: None,
        replaced_by: None,
        account_key_id: made.key_id,
    };
    assert_eq!(made, expected);

    check_read_back(subject, expected).await;
}

pub(crate) async fn integration_keys_are_listed_oldest_first_page_by_page(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let neighbour = subject.world.integration(account.0, "neighbour", unlimited()).await;
    create_integration_key(&subject, (account.0, neighbour), None).await;
    let mut made: Vec<KeyId> = Vec::new();
    for _ in 0..3 {
        made.push(create_integration_key(&subject, account, None).await.key_id);
    }
    let mut found = Vec::new();
    for offset in [0, 2, 4] {
        let page = Page { offset, limit: 2 };
        let store = &subject.world.store;
        let page = store.keys(account.0, Some(account.1), page).await.unwrap();
        assert_eq!(page.total, 3);
        found.extend(page.rows.into_iter().map(|row| row.key_id));
    }
    assert_eq!(found, made);
}

pub(crate) async fn a_key_of_a_deleted_integration_is_not_found(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let key_id = create_integration_key(&subject, account, None).await.key_id;
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;
    let found = subject.world.store.key(tenant_id, Some(integration_id), key_id).await;
    assert_eq!(found.unwrap(), None);
    let created = subject.world.control(tenant_id, move |control| {
        control.create_key(KeyDraft::integration(integration_id, None, None), |_| [0; 32])
    });
    assert_eq!(created.await.unwrap(), Err(ControlRefusal::IntegrationNotFound));
}

/// Checks that the key is not found, revoked or rotated as one of this owner.
async fn assert_unknown(
    subject: &Subject,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    key_id: KeyId,
) {
    let found = subject.world.store.key(tenant_id, integration_id, key_id).await;
    assert_eq!(found.unwrap(), None);
    let revoked =
        subject.world.control(tenant_id, move |control| control.revoke_key(integration_id, key_id));
    assert_eq!(revoked.await.unwrap(), Err(ControlRefusal::KeyNotFound));
    let rotated = subject.world.control(tenant_id, move |control| {
        control.rotate_key(integration_id, key_id, 0, |_| [1; 32])
    });
    assert_eq!(rotated.await.unwrap(), Err(ControlRefusal::KeyNotFound));
}

pub(crate) async fn an_unknown_key_is_not_revoked(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let unknown = KeyId::from_number(7).unwrap();
    assert_unknown(&subject, tenant_id, None, unknown).await;
    assert_unknown(&subject, tenant_id, Some(integration_id), unknown).await;
}

pub(crate) async fn a_key_is_found_by_its_owner_only(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let neighbour = subject.world.integration(tenant_id, "neighbour", unlimited()).await;
    let api_key = create_api_key(&subject, tenant_id, "key").await;
    let key = create_integration_key(&subject, account, None).await;
    assert_unknown(&subject, tenant_id, Some(integration_id), api_key.key_id).await;
    for owner in [None, Some(neighbour)] {
        assert_unknown(&subject, tenant_id, owner, key.key_id).await;
    }
    let (store, page) = (&subject.world.store, Page { offset: 0, limit: 10 });
    let owned =
        [(None, vec![api_key]), (Some(integration_id), vec![key]), (Some(neighbour), vec![])];
    for (owner, expected) in owned {
        let found = store.keys(tenant_id, owner, page).await.unwrap();
        assert_eq!((found.total as usize, found.rows), (expected.len(), expected));
    }
}

pub(crate) async fn a_rotated_key_has_a_successor_and_ends_after_the_overlap(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let old = create_api_key(&subject, tenant_id, "key").await;
    let old_key = create_integration_key(&subject, account, Some("machine")).await;
    subject.world.clock.advance(10);
    let now = subject.world.clock.now();
    let api_key_id = old.key_id;
    let new =
        subject.change(tenant_id, move |control| control.rotate_key(None, api_key_id, 20, hash));
    let new = new.await;
    let key_id = old_key.key_id;
    let new_key = subject.change(tenant_id, move |control| {
        control.rotate_key(Some(integration_id), key_id, 20, hash)
    });
    let new_key = new_key.await;
    let expected = KeyRow {
        key_id: new.key_id,
        secret_hash: hash(new.key_id),
        created_at: now,
        ..old.clone()
    };
    assert_eq!(new, expected);
    assert_eq!((new_key.name.as_deref(), new_key.expires_at), (Some("machine"), None));
    let subject = subject.reopened().await;
    let store = &subject.world.store;
    let stored = store.key(tenant_id, None, old.key_id).await.unwrap().unwrap();
    let ends = Some(now.plus_seconds(20));
    let replaced_by = Some(new.key_id);
    assert_eq!(stored, KeyRow { expires_at: ends, replaced_by, ..old });
    assert_eq!(store.key(tenant_id, None, new.key_id).await.unwrap(), Some(new));
    let stored = store.key(tenant_id, Some(integration_id), key_id).await.unwrap().unwrap();
    let replaced_by = Some(new_key.key_id);
    assert_eq!(stored, KeyRow { expires_at: ends, replaced_by, ..old_key });
    let id = new_key.key_id;
    let stored = store.key(tenant_id, Some(integration_id), id).await.unwrap();
    assert_eq!(stored, Some(new_key));
}

pub(crate) async fn an_overlap_never_outlasts_the_key_and_a_zero_overlap_revokes_it(
    subject: Subject,
) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let now = subject.world.clock.now();
    let [long, none] = ["long", "none"].map(|name| create_api_key(&subject, tenant_id, name));
    let (long, none) = (long.await.key_id, none.await.key_id);
    let key_id = create_integration_key(&subject, account, None).await.key_id;
    let rotated = subject
        .change(tenant_id, move |control| control.rotate_key(None, long, 604_800, |_| [1; 32]))
        .await;
    let own_end = Some(now.plus_seconds(60));
    assert_eq!(rotated.expires_at, own_end, "the new one ends when the old one was to");
    subject.change(tenant_id, move |control| control.rotate_key(None, none, 0, |_| [2; 32])).await;
    let rotate = move |control: &mut bursar_store::Control<'_>| {
        control.rotate_key(Some(integration_id), key_id, 0, |_| [3; 32])
    };
    assert_eq!(subject.change(tenant_id, rotate).await.revoked_at, None);
    let store = &subject.world.store;
    let long = store.key(tenant_id, None, long).await.unwrap().unwrap();
    assert_eq!((long.expires_at, long.revoked_at), (own_end, None));
    let none = store.key(tenant_id, None, none).await.unwrap().unwrap();
    assert_eq!((none.expires_at, none.revoked_at), (own_end, Some(now)));
    let key = store.key(tenant_id, Some(integration_id), key_id).await.unwrap().unwrap();
    assert_eq!((key.expires_at, key.revoked_at), (None, Some(now)));
}

pub(crate) async fn an_ended_or_rotated_key_cannot_be_rotated(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let (tenant_id, integration_id) = account;
    let rotate_api = async |id: KeyId| {
        let rotate = move |control: &mut bursar_store::Control<'_>| {
            control.rotate_key(None, id, 9, |_| [1; 32])
        };
        subject.world.control(tenant_id, rotate).await.unwrap().map(|row| row.key_id)
    };
    let rotate = async |id: KeyId| {
        let rotate = move |control: &mut bursar_store::Control<'_>| {
            control.rotate_key(Some(integration_id), id, 9, |_| [1; 32])
        };
        subject.world.control(tenant_id, rotate).await.unwrap().map(|row| row.key_id)
    };
    let api = create_api_key(&subject, tenant_id, "key").await.key_id;
    let key = create_integration_key(&subject, account, None).await.key_id;
    let (new_api, new_key) = (rotate_api(api).await.unwrap(), rotate(key).await.unwrap());
    let before = subject.audit();
    assert_eq!(rotate_api(api).await, Err(ControlRefusal::KeyReplaced));
    assert_eq!(rotate(key).await, Err(ControlRefusal::KeyReplaced));
    assert_eq!(rotate_api(KeyId::from_number(7).unwrap()).await, Err(ControlRefusal::KeyNotFound));
    let unknown = KeyId::from_number(7).unwrap();
    assert_eq!(rotate(unknown).await, Err(ControlRefusal::KeyNotFound));
    assert_eq!(subject.audit(), before);
    subject
        .change(tenant_id, move |control| control.revoke_key(Some(integration_id), new_key))
        .await;
    assert_eq!(rotate(new_key).await, Err(ControlRefusal::KeyEnded));
    // The first key has just expired.
    subject.world.clock.advance(60);
    assert_eq!(rotate_api(new_api).await, Err(ControlRefusal::KeyEnded));
}

/// Saves a use of two keys, and returns their stored `last_used_at` in seconds.
async fn last_used(
    subject: &Subject,
    (tenant_id, keys): (TenantId, [(Option<IntegrationId>, KeyId); 2]),
    after_seconds: u32,
) -> [Option<i64>; 2] {
    let at = Timestamp::MIN.plus_seconds(after_seconds);
    let uses = keys.map(|(_, key_id)| (key_id, at));
    let save = move |tx: &mut dyn ControlTx| tx.set_last_used(tenant_id, &uses);
    subject.world.ledger.change(tenant_id, save).await.unwrap();
    let mut found = [None; 2];
    for (key, found) in keys.iter().zip(&mut found) {
        let (owner, key_id) = *key;
        let row = subject.world.store.key(tenant_id, owner, key_id).await.unwrap().unwrap();
        let last = row.last_used_at;
        let seconds = |at: Timestamp| (at.micros() - Timestamp::MIN.micros()) / 1_000_000;
        *found = last.map(seconds);
    }
    found
}

pub(crate) async fn last_used_is_written_once_a_minute_and_never_goes_back(subject: Subject) {
    let account = subject.account(unlimited()).await;
    let api = create_api_key(&subject, account.0, "key").await.key_id;
    let key = create_integration_key(&subject, account, None).await.key_id;
    let keys = [(None, api), (Some(account.1), key)];
    let before = subject.audit();
    for (after, stored) in [(1_000, 1_000), (1_059, 1_000), (1_060, 1_060), (900, 1_060)] {
        let found = last_used(&subject, (account.0, keys), after).await;
        assert_eq!(found, [Some(stored); 2], "after {after} seconds");
    }
    assert_eq!(subject.audit(), before, "a use is not audited");
    // Keys of another tenant are ignored.
    let stranger = subject.world.tenant("stranger").await;
    let at = Timestamp::MIN.plus_seconds(2_000);
    let uses = keys.map(|(_, key_id)| (key_id, at));
    let save = move |tx: &mut dyn ControlTx| tx.set_last_used(stranger, &uses);
    subject.world.ledger.change(stranger, save).await.unwrap();
    let revoked =
        subject.change(account.0, move |control| control.revoke_key(None, api)).await.last_used_at;
    assert_eq!(revoked, Some(Timestamp::MIN.plus_seconds(1_060)));
}
