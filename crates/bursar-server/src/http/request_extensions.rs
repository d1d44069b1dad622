//! What is known of a request beside its head and body: how it came, and whose it is. Each fact is
//! an extension of the request.

use std::sync::{Arc, OnceLock};

use bursar_core::{IntegrationId, TenantId};

use crate::http::holder::Holder;

/// On which listener a request came; an extension of every request that came by a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Where tenants call.
    Public,
    /// Where only the operator's network calls.
    Operator,
}

/// That a request came over TLS; an extension of such requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTls;

/// That a request came on a connection of the reserve; an extension of such requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverflowConnection;

/// Whose request it is, once that is proved; an extension of every request.
#[derive(Clone, Debug, Default)]
pub struct RequestTenant(Arc<OnceLock<Proved>>);

/// Who was proved to send a request.
#[derive(Clone, Copy, Debug)]
enum Proved {
    /// The operator, on no tenant, or who may read the metrics.
    Operator,
    /// Someone on this tenant, with the key of an integration or not.
    Tenant(TenantId, Option<IntegrationId>),
}

impl RequestTenant {
    /// Someone proved to be of this tenant, with the key of this integration or not.
    pub(crate) fn proved(&self, tenant_id: TenantId, only: Option<IntegrationId>) {
        // A request has one tenant, whoever asks for it how often.
        let _ = self.0.set(Proved::Tenant(tenant_id, only));
    }

    /// The request is the operator's own.
    pub(crate) fn proved_operator(&self) {
        let _ = self.0.set(Proved::Operator);
    }

    /// Whether anyone was proved to send the request.
    pub(crate) fn is_proved(&self) -> bool {
        self.0.get().is_some()
    }

    /// Who holds what the request takes.
    pub fn holder(&self) -> Holder {
        match self.0.get() {
            Some(Proved::Tenant(tenant_id, only)) => Holder::tenant(*tenant_id, *only),
            Some(Proved::Operator) => Holder::OPERATOR,
            None => Holder::ANONYMOUS,
        }
    }
}
