//! Who may use a route: the kinds of access that routes declare.

/// What a person of a tenant may; each role may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Viewer,
    /// Changes things too.
    Admin,
}

impl Role {
    /// The word on the wire.
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
    /// Whoever proved who they are.
    AnyCaller,
    /// A tenant, and the operator on the tenant that is named.
    Tenant {
        /// The scope that an API key needs; nothing when no key is good for it.
        scope: Option<&'static str>,
        /// Whether the key of an integration is good for it, for that integration.
        integration_key: bool,
        /// What a person must be at least.
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
pub const OPERATOR: Access = Access::Operator;
/// Reads what is registered.
pub const READ: Access = key("integrations:read", Role::Viewer);
/// Changes what is registered.
pub const WRITE: Access = key("integrations:write", Role::Admin);
/// Makes, lists and ends keys.
pub const KEYS: Access = key("keys:write", Role::Admin);
/// Reads what was recorded.
pub const USAGE: Access = key("telemetry:read", Role::Viewer);
pub const INGEST: Access = both_keys("telemetry:write", Role::Admin);
/// Reads the limits of an integration.
pub const LIMITS: Access = both_keys("integrations:read", Role::Viewer);
/// Asks, and changes nothing.
pub const ASK: Access = both_keys("enforcement:check", Role::Viewer);
/// Holds money for a call, and gives it back.
pub const RESERVE: Access = both_keys("enforcement:check", Role::Admin);
/// Administrators of the tenant; no key is good for it.
pub const ADMIN: Access = Access::Tenant { scope: None, integration_key: false, role: Role::Admin };

/// Whether a path is of a route that watches the server: it is answered when all connections are busy.
pub fn is_monitoring_path(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics")
        || path.starts_with("/fdr/")
}
