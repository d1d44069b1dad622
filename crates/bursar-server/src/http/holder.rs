//! The callers among whom memory and worker slots are shared.

use bursar_core::{IntegrationId, TenantId};

/// A caller that holds a part of a shared resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    pub(crate) kind: HolderKind,
    /// The integration of an integration key, which may hold only a part of its tenant's share.
    pub(crate) integration_id: Option<IntegrationId>,
}

/// The kind of holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HolderKind {
    /// All callers without a valid credential together.
    Anonymous,
    Operator,
    Tenant(TenantId),
}

impl Holder {
    /// All callers without a valid credential together.
    pub(crate) const ANONYMOUS: Self = Self { kind: HolderKind::Anonymous, integration_id: None };
    pub(crate) const OPERATOR: Self = Self { kind: HolderKind::Operator, integration_id: None };

    /// A tenant, or one of its integrations.
    pub const fn tenant(tenant_id: TenantId, integration_id: Option<IntegrationId>) -> Self {
        Self { kind: HolderKind::Tenant(tenant_id), integration_id }
    }

    /// The holder under which the whole tenant is counted.
    #[must_use]
    pub(crate) const fn tenant_total(self) -> Self {
        Self { kind: self.kind, integration_id: None }
    }
}
