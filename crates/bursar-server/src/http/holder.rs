//! Who shares what is bounded: memory, and places to work.

use bursar_core::{IntegrationId, TenantId};

/// A caller, as one who holds a part of something that all callers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Whose part it is.
    pub kind: HolderKind,
    /// The integration whose own key is used: it has a part of its tenant's part.
    pub integration_id: Option<IntegrationId>,
}

/// Whose part something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HolderKind {
    /// Of callers who prove nothing, together.
    Anonymous,
    /// The operator's own.
    Operator,
    Tenant(TenantId),
}

impl Holder {
    /// Callers who prove nothing, together.
    pub const ANONYMOUS: Self = Self { kind: HolderKind::Anonymous, integration_id: None };
    pub const OPERATOR: Self = Self { kind: HolderKind::Operator, integration_id: None };

    /// A tenant, or one of its integrations.
    pub const fn tenant(tenant_id: TenantId, integration_id: Option<IntegrationId>) -> Self {
        Self { kind: HolderKind::Tenant(tenant_id), integration_id }
    }

    /// Everyone of whom this holder is one.
    #[must_use]
    pub const fn tenant_total(self) -> Self {
        Self { kind: self.kind, integration_id: None }
    }
}
