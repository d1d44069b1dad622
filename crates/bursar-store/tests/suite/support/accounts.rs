//! Tenants and integrations that a test creates, and their accounts.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;

use bursar_core::{IntegrationId, LimitSettings, OwnedSubject, TenantId};
use bursar_store::{AccountSnapshot, Control, Ledger, Store};

use super::{actor, draft};

/// Creates a tenant with an enabled integration.
pub(crate) async fn create_account(
    ledger: &Ledger,
    limits: LimitSettings,
) -> (TenantId, IntegrationId) {
    let made = ledger.change(None, |tx| Control::create_tenant(tx, &actor(), "tenant")).await;
    let tenant_id = made.unwrap().tenant_id;
    (tenant_id, create_integration(ledger, tenant_id, "integration", limits).await)
}

/// Creates an integration of a tenant, and enables it.
pub(crate) async fn create_integration(
    ledger: &Ledger,
    tenant_id: TenantId,
    name: &str,
    limits: LimitSettings,
) -> IntegrationId {
    let draft = draft(name, limits);
    let made = ledger.change(tenant_id, move |tx| {
        let actor = actor();
        let mut control = Control::new(tx, &actor, tenant_id);
        let integration = control.create_integration(draft.clone())?;
        let Ok(row) = integration else { return Ok(integration) };
        control.enable_integration(row.integration_id)
    });
    made.await.unwrap().unwrap().integration_id
}

/// The account of an integration, as readers see it; `None` if the tenant has no such integration.
pub(crate) async fn account_snapshot(
    store: &Arc<dyn Store>,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Option<AccountSnapshot> {
    store.account_snapshot(tenant_id, OwnedSubject::new(integration_id)).await.unwrap()
}
