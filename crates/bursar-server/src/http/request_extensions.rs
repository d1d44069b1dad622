//! Extensions of a request: the listener, the kind of connection, and the authenticated caller.

use std::sync::{Arc, OnceLock};

use bursar_core::{IntegrationId, TenantId};

use crate::http::holder::Holder;

/// The listener that accepted the request; an extension of every request that came by a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// The listener for tenants.
    Public,
    /// The listener for the operator's network.
    Operator,
}

/// Marks a request that came over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverTls;

/// Marks a request on an overflow connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverflowConnection;

/// The authenticated owner of a request; an extension of every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestTenant(Arc<OnceLock<Proved>>);

/// The authenticated owner.
#[derive(Clone, Copy, Debug)]
enum Proved {
    /// The operator without a tenant, or a metrics scraper.
    Operator,
    /// A tenant, with the integration of an integration key.
    Tenant(TenantId, Option<IntegrationId>),
}

impl RequestTenant {
    /// Records the tenant of the request, and the integration of an integration key.
    pub(crate) fn proved(&self, tenant_id: TenantId, restricted_to: Option<IntegrationId>) {
        // A request has one owner. Setting it again changes nothing.
        let _ = self.0.set(Proved::Tenant(tenant_id, restricted_to));
    }

    /// Records that the request is the operator's.
    pub(crate) fn proved_operator(&self) {
        let _ = self.0.set(Proved::Operator);
    }

    /// Whether the caller is authenticated.
    pub(crate) fn is_proved(&self) -> bool {
        self.0.get().is_some()
    }

    /// The holder of the memory and slots that the request uses.
    pub(crate) fn holder(&self) -> Holder {
        match self.0.get() {
            Some(Proved::Tenant(tenant_id, restricted_to)) => {
                Holder::tenant(*tenant_id, *restricted_to)
            }
            Some(Proved::Operator) => Holder::OPERATOR,
            None => Holder::ANONYMOUS,
        }
    }
}
