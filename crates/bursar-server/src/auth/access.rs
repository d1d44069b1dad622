//! Who may use which route: one table, in which whatever is not named is refused.
//!
//! The guard asks it for every request, the OpenAPI document and docs/api.md are written from it, and
//! the tenancy test asks each of its rows with every kind of actor.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::Method;

/// What a person of a tenant may; each role may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes things too.
    Admin,
}

impl Role {
    /// The contract's word.
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
    /// The operator.
    Operator,
    /// Whoever proved who they are.
    Anyone,
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

/// A route and who may use it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The method; GET stands for HEAD too.
    pub method: Method,
    /// The path as the router has it.
    pub path: &'static str,
    /// Who.
    pub access: Access,
}

const fn key(scope: &'static str, role: Role) -> Access {
    Access::Tenant { scope: Some(scope), integration_key: false, role }
}

const fn both_keys(scope: &'static str, role: Role) -> Access {
    Access::Tenant { scope: Some(scope), integration_key: true, role }
}

const fn rule(method: Method, path: &'static str, access: Access) -> Rule {
    Rule { method, path, access }
}

const OPERATOR: Access = Access::Operator;
const READ: Access = key("integrations:read", Role::Viewer);
const WRITE: Access = key("integrations:write", Role::Admin);
const KEYS: Access = key("keys:write", Role::Admin);
const USAGE: Access = key("telemetry:read", Role::Viewer);
const INGEST: Access = both_keys("telemetry:write", Role::Admin);
const LIMITS: Access = both_keys("integrations:read", Role::Viewer);
/// Asks, and changes nothing.
const ASK: Access = both_keys("enforcement:check", Role::Viewer);
const RESERVE: Access = both_keys("enforcement:check", Role::Admin);
const ADMIN: Access = Access::Tenant { scope: None, integration_key: false, role: Role::Admin };

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// Every route that is not open to all.
pub static ACCESS: &[Rule] = &[
    rule(GET, "/api/v1/session/context", Access::Anyone),
    rule(POST, "/api/v1/onboarding/finalize", ADMIN),
    rule(POST, "/api/v1/tenants", OPERATOR),
    rule(GET, "/api/v1/tenants", OPERATOR),
    rule(GET, "/api/v1/tenants/{id}", OPERATOR),
    rule(PATCH, "/api/v1/tenants/{id}", OPERATOR),
    rule(POST, "/api/v1/tenants/{id}/suspend", OPERATOR),
    rule(POST, "/api/v1/tenants/{id}/resume", OPERATOR),
    rule(POST, "/api/v1/tenants/{id}/terminate", OPERATOR),
    rule(POST, "/api/v1/tenants/{id}/archive", OPERATOR),
    rule(GET, "/api/v1/audit", ADMIN),
    rule(GET, "/api/v1/audit/export", ADMIN),
    rule(GET, "/fdr/abuse/signals/{tenant_id}", OPERATOR),
    rule(POST, "/fdr/abuse/override", OPERATOR),
    rule(GET, "/fdr/caches", OPERATOR),
    rule(DELETE, "/fdr/caches/{name}", OPERATOR),
    rule(GET, "/fdr/clock", OPERATOR),
    rule(POST, "/fdr/clock/confirm", OPERATOR),
    rule(POST, "/api/v1/keys", KEYS),
    rule(GET, "/api/v1/keys", KEYS),
    rule(DELETE, "/api/v1/keys/{id}", KEYS),
    rule(POST, "/api/v1/keys/{id}/rotate", KEYS),
    rule(GET, "/api/v1/integrations", READ),
    rule(POST, "/api/v1/integrations", WRITE),
    rule(GET, "/api/v1/integrations/{id}", READ),
    rule(PUT, "/api/v1/integrations/{id}", WRITE),
    rule(PATCH, "/api/v1/integrations/{id}", WRITE),
    rule(DELETE, "/api/v1/integrations/{id}", WRITE),
    rule(POST, "/api/v1/integrations/{id}/enable", WRITE),
    rule(POST, "/api/v1/integrations/{id}/disable", WRITE),
    rule(GET, "/api/v1/integrations/{id}/health", READ),
    rule(GET, "/api/v1/integrations/{id}/limits", LIMITS),
    rule(POST, "/api/v1/integrations/{id}/keys", KEYS),
    rule(GET, "/api/v1/integrations/{id}/keys", READ),
    rule(DELETE, "/api/v1/integrations/{id}/keys/{key_id}", KEYS),
    rule(POST, "/api/v1/integrations/{id}/keys/{key_id}/rotate", KEYS),
    rule(POST, "/api/v1/telemetry/llm-usage", INGEST),
    rule(POST, "/api/v1/telemetry/llm-usage/batch", INGEST),
    rule(GET, "/api/v1/telemetry/usage-summary", USAGE),
    rule(GET, "/api/v1/telemetry/usage-history", USAGE),
    rule(GET, "/api/v1/telemetry/export", USAGE),
    rule(GET, "/api/v1/telemetry/usage-series", USAGE),
    rule(GET, "/api/v1/telemetry/usage-breakdown", USAGE),
    rule(GET, "/api/v1/telemetry/daily-aggregates", USAGE),
    rule(POST, "/api/v1/enforcement/check", ASK),
    rule(POST, "/api/v1/enforcement/batch", ASK),
    rule(GET, "/api/v1/enforcement/status", ASK),
    rule(GET, "/api/v1/enforcement/decisions", ASK),
    rule(POST, "/api/v1/enforcement/reservations", RESERVE),
    rule(GET, "/api/v1/enforcement/reservations", ASK),
    rule(DELETE, "/api/v1/enforcement/reservations/{call_id}", RESERVE),
    rule(POST, "/api/v1/enforcement/reservations/{call_id}/extend", RESERVE),
];

type Methods = HashMap<Method, Access>;

static BY_PATH: LazyLock<HashMap<&'static str, Methods>> = LazyLock::new(|| {
    let mut by_path: HashMap<&str, Methods> = HashMap::new();
    for rule in ACCESS {
        by_path.entry(rule.path).or_default().insert(rule.method.clone(), rule.access);
    }
    by_path
});

/// Who may use a route; nothing when it is not named.
pub fn access(method: &Method, path: &str) -> Option<Access> {
    // Whoever may read a body may read its head.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    BY_PATH.get(path)?.get(method).copied()
}

/// Whether a path is of a route that watches the server: it is answered when all connections are busy.
pub fn watches_the_server(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics")
        || path.starts_with("/fdr/")
}

/// The table as the documents show it.
pub fn as_markdown() -> String {
    let mut text = String::from(
        "| route | API key | integration key | person | operator |\n|---|---|---|---|---|\n",
    );
    for Rule { method, path, access } in ACCESS {
        let (scope, integration_key, person) = match access {
            Access::Operator => ("-".to_owned(), "-", "-"),
            Access::Anyone => ("any".to_owned(), "yes", "viewer"),
            Access::Tenant { scope, integration_key, role } => (
                scope.map_or_else(|| "-".to_owned(), |scope| format!("`{scope}`")),
                if *integration_key { "yes" } else { "-" },
                role.as_str(),
            ),
        };
        let row = format!("| `{method} {path}` | {scope} | {integration_key} | {person} | yes |\n");
        text.push_str(&row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands around the table in the documents.
    const MARKS: [&str; 2] = ["<!-- access -->\n", "<!-- end of access -->"];

    #[test]
    fn the_documents_have_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
        let documents = std::fs::read_to_string(path).unwrap();
        let (before, rest) = documents.split_once(MARKS[0]).unwrap();
        let (table, after) = rest.split_once(MARKS[1]).unwrap();
        if std::env::var_os("BURSAR_WRITE_OPENAPI").is_some() {
            let [first, last] = MARKS;
            let written = format!("{before}{first}{}{last}{after}", as_markdown());
            std::fs::write(path, written).unwrap();
        } else {
            assert_eq!(table, as_markdown(), "docs/api.md: set BURSAR_WRITE_OPENAPI to write it");
        }
    }

    #[test]
    fn whoever_may_change_something_is_an_admin() {
        for rule in ACCESS.iter().filter(|rule| rule.method != Method::GET) {
            let changes =
                !matches!(rule.path, "/api/v1/enforcement/check" | "/api/v1/enforcement/batch");
            let allowed = match rule.access {
                Access::Operator => true,
                Access::Anyone => false,
                Access::Tenant { role, .. } => role == Role::Admin || !changes,
            };
            assert!(allowed, "{} {}", rule.method, rule.path);
        }
    }

    #[test]
    fn what_is_not_named_is_nobodys() {
        assert_eq!(access(&Method::GET, "/api/v1/nothing"), None);
        assert_eq!(access(&Method::POST, "/api/v1/session/context"), None);
        assert_eq!(access(&Method::HEAD, "/api/v1/keys"), Some(KEYS));
    }
}
