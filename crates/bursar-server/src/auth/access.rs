//! The kinds of access that routes declare.

/// The role of a person. Each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Viewer,
    /// May change things as well.
    Admin,
}

impl Role {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Operator,
    /// Any authenticated caller.
    AnyCaller,
    /// A caller of a tenant, or the operator acting on a tenant.
    Tenant {
        /// The scope that an API key needs. `None` when no API key may use the route.
        scope: Option<&'static str>,
        /// Whether an integration key may use the route, for its own integration.
        integration_key: bool,
        /// The role that a person needs at least.
        role: Role,
    },
}

const fn key(scope: &'static str, role: Role) -> Access {
    Access::Tenant { scope: Some(scope), integration_key: false, role }
}

const fn both_keys(scope: &'static str, role: Role) -> Access {
    Access::Tenant { scope: Some(scope), integration_key: true, role }
}

/// The operator alone.
pub(crate) const OPERATOR: Access = Access::Operator;
/// Reads integrations.
pub(crate) const READ: Access = key("integrations:read", Role::Viewer);
/// Changes integrations.
pub(crate) const WRITE: Access = key("integrations:write", Role::Admin);
/// Creates, lists and revokes keys.
pub(crate) const KEYS: Access = key("keys:write", Role::Admin);
/// Reads recorded usage.
pub(crate) const USAGE: Access = key("telemetry:read", Role::Viewer);
pub(crate) const INGEST: Access = both_keys("telemetry:write", Role::Admin);
/// Reads the limits of an integration.
pub(crate) const LIMITS: Access = both_keys("integrations:read", Role::Viewer);
/// Checks calls; changes nothing.
pub(crate) const ASK: Access = both_keys("enforcement:check", Role::Viewer);
/// Reserves the cost of calls and releases it.
pub(crate) const RESERVE: Access = both_keys("enforcement:check", Role::Admin);
/// Administrators of the tenant. No key may use the route.
pub(crate) const ADMIN: Access =
    Access::Tenant { scope: None, integration_key: false, role: Role::Admin };

/// Whether a path serves monitoring. Such paths are answered even when all connections are busy.
pub(crate) fn is_monitoring_path(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics")
        || path.starts_with("/fdr/")
}
