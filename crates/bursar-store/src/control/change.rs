//! Changes of tenants, integrations, tag names and thresholds, each with its audit row.
//!
//! They run inside a transaction of the writer, the same on every database. A refused change writes
//! nothing.

use bursar_core::{
    AuditId, CostBasis, Dimension, Integration, IntegrationId, IntegrationStatus, LimitSettings,
    OnboardingState, TagNames, TenantId, TenantLifecycle, Timestamp,
};

use super::caps::TenantCaps;
use super::refusal::{Changed, ControlRefusal};
use crate::error::StoreError;
use crate::rows::codec::id;
use crate::rows::protection::OverrideRow;
use crate::rows::row::{Actor, AuditRow, IntegrationRow, TenantRow};
use crate::write::writer_connection::ControlTx;

/// The changes that an actor makes to a tenant in a transaction.
pub struct Control<'a> {
    pub(crate) tx: &'a mut dyn ControlTx,
    pub(crate) actor: &'a Actor,
    pub(crate) tenant_id: TenantId,
    pub(crate) caps: TenantCaps,
}

/// The fields of a new integration.
#[derive(Clone, Debug)]
pub struct IntegrationDraft {
    pub name: String,
    pub provider_type: String,
    pub credential_ref: Option<String>,
    pub config: String,
    pub origin: Option<String>,
    pub default_model: Option<String>,
    pub limits: LimitSettings,
    pub cost_basis: CostBasis,
}

/// The fields of an integration to change; `None` keeps a field as it is.
#[derive(Clone, Debug, Default)]
pub struct IntegrationEdit {
    pub name: Option<String>,
    pub credential_ref: Option<Option<String>>,
    /// The configuration and the origin of its base URL.
    pub config: Option<(String, Option<String>)>,
    pub default_model: Option<Option<String>>,
    pub budget_limit_cents: Option<i64>,
    pub token_limit_month: Option<i64>,
    pub rate_limit_rpm: Option<i64>,
    pub cost_basis: Option<CostBasis>,
}

impl IntegrationEdit {
    /// The names of the fields that change, for the audit log.
    fn field_names(&self) -> Vec<&'static str> {
        let named = [
            ("name", self.name.is_some()),
            ("credential_ref", self.credential_ref.is_some()),
            ("config", self.config.is_some()),
            ("default_model", self.default_model.is_some()),
            ("budget_limit_cents", self.budget_limit_cents.is_some()),
            ("token_limit_month", self.token_limit_month.is_some()),
            ("rate_limit_rpm", self.rate_limit_rpm.is_some()),
            ("cost_basis", self.cost_basis.is_some()),
        ];
        named.into_iter().filter(|(_, changes)| *changes).map(|(name, _)| name).collect()
    }

    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.field_names().is_empty()
    }
}

macro_rules! accept {
    ($checked:expr) => {
        match $checked {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}

pub(crate) use accept;

impl<'a> Control<'a> {
    /// Changes to a tenant by an actor.
    pub fn new(tx: &'a mut dyn ControlTx, actor: &'a Actor, tenant_id: TenantId) -> Self {
        Self { tx, actor, tenant_id, caps: TenantCaps::default() }
    }

    /// Replaces the default caps.
    #[must_use]
    pub fn with_caps(mut self, caps: TenantCaps) -> Self {
        self.caps = caps;
        self
    }

    /// Creates an active tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create_tenant(
        tx: &mut dyn ControlTx,
        actor: &Actor,
        name: &str,
    ) -> Result<TenantRow, StoreError> {
        let tenant_id = id(TenantId::from_number, tx.allocate_ids(1)?)?;
        let now = tx.now();
        let row = TenantRow {
            tenant_id,
            name: name.to_owned(),
            lifecycle: TenantLifecycle::Active,
            onboarding: OnboardingState::Created,
            created_at: now,
            updated_at: now,
        };
        tx.put_tenant(&row)?;
        let detail = serde_json::json!({ "name": name });
        Control::new(tx, actor, tenant_id).audit(
            "tenant.create",
            "tenant",
            tenant_id.to_string(),
            detail,
        )?;
        Ok(row)
    }

    /// Renames a tenant that is not terminated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rename_tenant(&mut self, name: &str) -> Changed<TenantRow> {
        let mut row = accept!(self.unterminated_tenant()?);
        if row.name == name {
            return Ok(Ok(row));
        }
        name.clone_into(&mut row.name);
        let detail = serde_json::json!({ "name": name });
        self.put_tenant(row, "tenant.update", detail).map(Ok)
    }

    /// Suspends, resumes, terminates or archives a tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_tenant_lifecycle(&mut self, to: TenantLifecycle) -> Changed<TenantRow> {
        let mut row = accept!(self.existing_tenant()?);
        let from = row.lifecycle;
        row.lifecycle = accept!(from.becoming(to).map_err(ControlRefusal::from));
        let action = match row.lifecycle {
            TenantLifecycle::Active => "tenant.resume",
            TenantLifecycle::Suspended => "tenant.suspend",
            TenantLifecycle::Terminated => "tenant.terminate",
            TenantLifecycle::Archived => "tenant.archive",
        };
        let detail = serde_json::json!({ "from": from.as_str(), "to": to.as_str() });
        self.put_tenant(row, action, detail).map(Ok)
    }

    /// Advances the onboarding of a tenant to a step, unless it is already there or further.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn advance_onboarding(&mut self, step: OnboardingState) -> Changed<TenantRow> {
        let row = accept!(self.unterminated_tenant()?);
        self.advance(row, step).map(Ok)
    }

    /// Ends the onboarding of an active tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finalize_onboarding(&mut self) -> Changed<TenantRow> {
        let row = accept!(self.active_tenant()?);
        let step = accept!(row.onboarding.finalized().map_err(ControlRefusal::from));
        self.advance(row, step).map(Ok)
    }

    /// Creates an integration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create_integration(&mut self, draft: IntegrationDraft) -> Changed<IntegrationRow> {
        accept!(self.active_tenant()?);
        if self.tx.integration_named(self.tenant_id, &draft.name)?.is_some() {
            return Ok(Err(ControlRefusal::NameTaken));
        }
        accept!(self.caps.check_integrations(self.tx, self.tenant_id)?);
        let integration_id = id(IntegrationId::from_number, self.tx.allocate_ids(1)?)?;
        let now = self.tx.now();
        let row = IntegrationRow {
            tenant_id: self.tenant_id,
            integration_id,
            name: draft.name,
            provider_type: draft.provider_type,
            credential_ref: draft.credential_ref,
            config: draft.config,
            origin: draft.origin,
            rules: Integration::new(draft.limits, draft.cost_basis),
            health_checked_at: None,
            health_message: None,
            default_model: draft.default_model,
            created_at: now,
            updated_at: now,
            created_by: self.actor.actor_id.clone(),
            deleted_at: None,
        };
        self.tx.put_integration(&row)?;
        let detail = serde_json::json!({
            "name": row.name,
            "provider_type": row.provider_type,
            "budget_limit_cents": draft.limits.budget_limit_cents,
            "token_limit_month": draft.limits.token_limit_month,
            "rate_limit_rpm": draft.limits.rate_limit_rpm,
        });
        self.audit("integration.create", "integration", integration_id.to_string(), detail)?;
        Ok(Ok(row))
    }

    /// Changes an integration.
    ///
    /// A new origin without a new credential reference removes the old reference, so that the
    /// credential is not sent to another host.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn update_integration(
        &mut self,
        integration_id: IntegrationId,
        edit: IntegrationEdit,
    ) -> Changed<IntegrationRow> {
        let mut row = accept!(self.live_integration(integration_id)?);
        let fields = edit.field_names();
        if let Some(name) = &edit.name
            && self
                .tx
                .integration_named(self.tenant_id, name)?
                .is_some_and(|taken| taken != integration_id)
        {
            return Ok(Err(ControlRefusal::NameTaken));
        }
        let moved = edit.config.as_ref().is_some_and(|(_, origin)| *origin != row.origin);
        if moved && edit.credential_ref.is_none() {
            row.credential_ref = None;
        }
        apply_edit(&mut row, edit);
        row.updated_at = self.tx.now();
        self.tx.put_integration(&row)?;
        let limits = row.rules.limits;
        let detail = serde_json::json!({
            "fields": fields,
            "budget_limit_cents": limits.budget_limit_cents,
            "token_limit_month": limits.token_limit_month,
            "rate_limit_rpm": limits.rate_limit_rpm,
        });
        self.audit("integration.update", "integration", integration_id.to_string(), detail)?;
        Ok(Ok(row))
    }

    /// Enables an integration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn enable_integration(&mut self, integration_id: IntegrationId) -> Changed<IntegrationRow> {
        let row = accept!(self.live_integration(integration_id)?);
        let status = accept!(row.rules.enabled().map_err(ControlRefusal::from));
        self.set_status(row, status, "integration.enable")
    }

    /// Disables an integration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn disable_integration(
        &mut self,
        integration_id: IntegrationId,
    ) -> Changed<IntegrationRow> {
        let row = accept!(self.live_integration(integration_id)?);
        let status = accept!(row.rules.disabled().map_err(ControlRefusal::from));
        self.set_status(row, status, "integration.disable")
    }

    /// Deletes an integration. Its usage stays, its name is free again, and its keys stop working.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_integration(&mut self, integration_id: IntegrationId) -> Changed<IntegrationRow> {
        let mut row = accept!(self.live_integration(integration_id)?);
        row.deleted_at = Some(self.tx.now());
        row.credential_ref = None;
        self.set_status(row, IntegrationStatus::Deleted, "integration.delete")
    }

    /// Overrides a threshold of a tenant in any lifecycle state, until an instant; 0 is unlimited.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn override_protection(
        &mut self,
        dimension: Dimension,
        allowed_value: u32,
        expires_at: Timestamp,
        reason: &str,
    ) -> Changed<OverrideRow> {
        accept!(self.existing_tenant()?);
        let row = OverrideRow {
            tenant_id: self.tenant_id,
            dimension,
            allowed_value,
            expires_at,
            reason: reason.to_owned(),
            created_at: self.tx.now(),
            created_by: self.actor.actor_id.clone(),
        };
        self.tx.put_override(&row)?;
        let detail = serde_json::json!({
            "allowed_value": allowed_value,
            "expires_at_micros": expires_at.micros(),
            "reason": reason,
        });
        let target = dimension.as_str().to_owned();
        self.audit("protection.override", "protection", target, detail)?;
        Ok(Ok(row))
    }

    /// Replaces the tag names whose usage is added up by value, from the next records on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_tag_names(&mut self, names: &TagNames) -> Changed<()> {
        accept!(self.active_tenant()?);
        self.tx.put_tag_names(self.tenant_id, names)?;
        let detail = serde_json::json!({ "names": names.iter().collect::<Vec<_>>() });
        self.audit("tag_names.update", "tenant", self.tenant_id.to_string(), detail)?;
        Ok(Ok(()))
    }

    fn set_status(
        &mut self,
        mut row: IntegrationRow,
        status: IntegrationStatus,
        action: &'static str,
    ) -> Changed<IntegrationRow> {
        let before = row.rules.status;
        if before == status {
            return Ok(Ok(row));
        }
        row.rules.status = status;
        row.updated_at = self.tx.now();
        self.tx.put_integration(&row)?;
        let detail = serde_json::json!({ "from": before.as_str(), "to": status.as_str() });
        self.audit(action, "integration", row.integration_id.to_string(), detail)?;
        Ok(Ok(row))
    }

    pub(crate) fn advance(
        &mut self,
        mut row: TenantRow,
        step: OnboardingState,
    ) -> Result<TenantRow, StoreError> {
        let from = row.onboarding;
        row.onboarding = from.reached(step);
        if row.onboarding == from {
            return Ok(row);
        }
        let detail = serde_json::json!({ "from": from.as_str(), "to": row.onboarding.as_str() });
        self.put_tenant(row, "tenant.onboarding", detail)
    }

    fn put_tenant(
        &mut self,
        mut row: TenantRow,
        action: &'static str,
        detail: serde_json::Value,
    ) -> Result<TenantRow, StoreError> {
        row.updated_at = self.tx.now();
        self.tx.put_tenant(&row)?;
        self.audit(action, "tenant", row.tenant_id.to_string(), detail)?;
        Ok(row)
    }

    fn existing_tenant(&mut self) -> Changed<TenantRow> {
        Ok(self.tx.tenant(self.tenant_id)?.ok_or(ControlRefusal::TenantNotFound))
    }

    /// The tenant, if it is active or suspended.
    fn unterminated_tenant(&mut self) -> Changed<TenantRow> {
        let tenant = accept!(self.existing_tenant()?);
        Ok(match tenant.lifecycle {
            TenantLifecycle::Active | TenantLifecycle::Suspended => Ok(tenant),
            TenantLifecycle::Terminated | TenantLifecycle::Archived => {
                Err(ControlRefusal::TenantTerminated)
            }
        })
    }

    pub(crate) fn active_tenant(&mut self) -> Changed<TenantRow> {
        let tenant = accept!(self.unterminated_tenant()?);
        Ok(match tenant.lifecycle {
            TenantLifecycle::Active => Ok(tenant),
            TenantLifecycle::Suspended
            | TenantLifecycle::Terminated
            | TenantLifecycle::Archived => Err(ControlRefusal::TenantSuspended),
        })
    }

    /// The integration, if it is not deleted and its tenant is active.
    pub(crate) fn live_integration(
        &mut self,
        integration_id: IntegrationId,
    ) -> Changed<IntegrationRow> {
        accept!(self.active_tenant()?);
        let row = self.tx.integration(self.tenant_id, integration_id)?;
        Ok(row
            .filter(|row| row.rules.status != IntegrationStatus::Deleted)
            .ok_or(ControlRefusal::IntegrationNotFound))
    }

    pub(crate) fn audit(
        &mut self,
        action: &'static str,
        target_type: &'static str,
        target_id: String,
        detail: serde_json::Value,
    ) -> Result<(), StoreError> {
        let row = AuditRow {
            tenant_id: self.tenant_id,
            audit_id: id(AuditId::from_number, self.tx.allocate_ids(1)?)?,
            at: self.tx.now(),
            actor: self.actor.clone(),
            action,
            target_type,
            target_id,
            detail: on_one_line(&detail),
        };
        self.tx.put_audit(&row)
    }
}

/// JSON on one line, also for readers that treat Unicode line separators as line ends.
///
/// The separators can occur only in strings, where they can be escaped.
fn on_one_line(detail: &serde_json::Value) -> String {
    const ESCAPES: [(char, &str); 3] =
        [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    let text = detail.to_string();
    ESCAPES.into_iter().fold(text, |text, (separator, escape)| text.replace(separator, escape))
}

fn apply_edit(row: &mut IntegrationRow, edit: IntegrationEdit) {
    let IntegrationEdit {
        name,
        credential_ref,
        config,
        default_model,
        budget_limit_cents,
        token_limit_month,
        rate_limit_rpm,
        cost_basis,
    } = edit;
    set(&mut row.name, name);
    set(&mut row.credential_ref, credential_ref);
    set(&mut row.default_model, default_model);
    set(&mut row.rules.cost_basis, cost_basis);
    let limits = &mut row.rules.limits;
    set(&mut limits.budget_limit_cents, budget_limit_cents);
    set(&mut limits.token_limit_month, token_limit_month);
    set(&mut limits.rate_limit_rpm, rate_limit_rpm);
    if let Some((config, origin)) = config {
        row.config = config;
        row.origin = origin;
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
