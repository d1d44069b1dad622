//! The audit log: one row for each change, in the transaction of the change.

use bursar_store::{
    Control, ControlRefusal, ControlTx, IntegrationEdit, IntegrationFilter, StoreError,
};

use crate::subject::{ALL, Subject, unlimited};
use crate::support::{actor, draft};

pub(crate) async fn every_change_is_audited_once(subject: Subject) {
    let (tenant_id, integration_id) = subject.account(unlimited()).await;
    let api_key =
        subject.change(tenant_id, |control| control.create_api_key("key", "*", None, |_| [1; 32]));
    let api_key_id = api_key.await.api_key_id;
    let key = subject.change(tenant_id, move |control| {
        control.create_integration_key(integration_id, None, |_| [2; 32])
    });
    let key_id = key.await.integration_key_id;
    let edit = IntegrationEdit { rate_limit_rpm: Some(1), ..IntegrationEdit::default() };
    subject
        .change(tenant_id, move |control| control.update_integration(integration_id, edit.clone()))
        .await;
    // What changes nothing the second time is written once.
    for _ in 0..2 {
        subject.change(tenant_id, move |control| control.revoke_api_key(api_key_id)).await;
        subject
            .change(tenant_id, move |control| {
                control.revoke_integration_key(integration_id, key_id)
            })
            .await;
        subject.change(tenant_id, move |control| control.disable_integration(integration_id)).await;
    }
    subject.change(tenant_id, move |control| control.delete_integration(integration_id)).await;

    let (integration, operator) = (integration_id.to_string(), actor().actor_id);
    let expected = [
        ("tenant.create", tenant_id.to_string()),
        ("integration.create", integration.clone()),
        ("integration.enable", integration.clone()),
        ("tenant.onboarding", tenant_id.to_string()),
        ("api_key.create", api_key_id.to_string()),
        ("integration_key.create", key_id.to_string()),
        ("integration.update", integration.clone()),
        ("api_key.revoke", api_key_id.to_string()),
        ("integration_key.revoke", key_id.to_string()),
        ("integration.disable", integration.clone()),
        ("integration.delete", integration),
    ];
    let expected = expected.map(|(action, target)| [action.to_owned(), target, operator.clone()]);
    assert_eq!(subject.audit(), expected);
}

pub(crate) async fn a_change_that_fails_leaves_neither_row_nor_audit(subject: Subject) {
    let tenant_id = subject.tenant().await;
    let before = subject.audit();
    let change = move |tx: &mut dyn ControlTx| {
        let made = Control::new(tx, &actor(), tenant_id)
            .create_integration(draft("integration", unlimited()))?;
        assert!(made.is_ok());
        Err::<(), StoreError>(StoreError::Corrupt("after everything was written".to_owned()))
    };
    let failed = subject.world.ledger.change(tenant_id, change).await;
    assert!(matches!(failed, Err(StoreError::Corrupt(_))));
    let filter = IntegrationFilter::default();
    let listed = subject.world.store.integrations(tenant_id, filter, ALL).await.unwrap();
    assert_eq!(listed.total, 0);
    assert_eq!(subject.audit(), before);
}

pub(crate) async fn a_refused_change_is_not_audited(subject: Subject) {
    let tenant_id = subject.tenant().await;
    subject.world.integration(tenant_id, "taken", unlimited()).await;
    let before = subject.audit();
    let refused = subject
        .world
        .control(tenant_id, |control| control.create_integration(draft("taken", unlimited())));
    assert_eq!(refused.await.unwrap(), Err(ControlRefusal::NameTaken));
    assert_eq!(subject.audit(), before);
}
