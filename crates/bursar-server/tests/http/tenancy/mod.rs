//! Isolation of tenants: a table of all routes, each tested with every credential that is not
//! allowed.

mod credentials;
mod tenants;

use std::collections::BTreeSet;

use Access::{Admin, AnyCaller, IntegrationKey, Key, Operator};
use Foreign::{HardBlocked, NotFound, Unnamed};
use axum::http::Method;
use bursar_server::api::route::Audience;
use bursar_server::auth::access;
use bursar_server::auth::access::Role;
use bursar_server::router::API;
use serde_json::{Value, json};

use crate::oidc::People;
use crate::support::{ApiResponse, Client, Tenant, TestApp, record, reservation};

/// The credentials that a route accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The operator.
    Operator,
    /// An API key with this scope.
    Key(&'static str),
    /// An API key with this scope, and the key of an integration for that integration.
    IntegrationKey(&'static str),
    /// A person who is an admin, but no key.
    Admin,
    /// Any credential.
    AnyCaller,
}

/// The response to an id of another tenant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Foreign {
    /// 404 with this code.
    NotFound(&'static str),
    /// The decision for an integration that does not exist.
    HardBlocked,
    /// The route takes no id; its list has nothing of other tenants.
    Unnamed,
}

/// Method, path template, accepted credentials, response to a foreign id.
type Route = (&'static str, &'static str, Access, Foreign);

const NO_INTEGRATION: Foreign = NotFound("INTEGRATION_NOT_FOUND");
const NO_KEY: Foreign = NotFound("KEY_NOT_FOUND");
const NO_RESERVATION: Foreign = NotFound("RESERVATION_NOT_FOUND");
const READ: Access = Key("integrations:read");
const WRITE: Access = Key("integrations:write");
const KEYS: Access = Key("keys:write");
const INGEST: Access = IntegrationKey("telemetry:write");
const USAGE: Access = Key("telemetry:read");
const DECIDE: Access = IntegrationKey("enforcement:check");

/// Public routes, which return nothing about a tenant. This list may only shrink.
const OPEN: [&str; 6] =
    ["/health", "/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/style.css"];

/// Routes of the operator outside of the API.
const METRICS: &str = "/metrics";

const ROUTES: &[Route] = &[
    ("post", "/tenants", Operator, Unnamed),
    ("get", "/tenants", Operator, Unnamed),
    ("get", "/tenants/{id}", Operator, Unnamed),
    ("patch", "/tenants/{id}", Operator, Unnamed),
    ("post", "/tenants/{id}/suspend", Operator, Unnamed),
    ("post", "/tenants/{id}/resume", Operator, Unnamed),
    ("post", "/tenants/{id}/terminate", Operator, Unnamed),
    ("post", "/tenants/{id}/archive", Operator, Unnamed),
    ("get", "/session/context", AnyCaller, Unnamed),
    ("post", "/onboarding/finalize", Admin, Unnamed),
    ("get", METRICS, Operator, Unnamed),
    ("get", "/audit", Admin, Unnamed),
    ("get", "/audit/export", Admin, Unnamed),
    ("get", "/fdr/abuse/signals/{tenant_id}", Operator, Unnamed),
    ("post", "/fdr/abuse/override", Operator, Unnamed),
    ("get", "/fdr/caches", Operator, Unnamed),
    ("delete", "/fdr/caches/{name}", Operator, Unnamed),
    ("get", "/fdr/clock", Operator, Unnamed),
    ("post", "/fdr/clock/confirm", Operator, Unnamed),
    ("post", "/keys", KEYS, Unnamed),
    ("get", "/keys", KEYS, Unnamed),
    ("delete", "/keys/{id}", KEYS, NO_KEY),
    ("post", "/keys/{id}/rotate", KEYS, NO_KEY),
    ("get", "/integrations", READ, Unnamed),
    ("post", "/integrations", WRITE, Unnamed),
    ("get", "/integrations/{id}", READ, NO_INTEGRATION),
    ("put", "/integrations/{id}", WRITE, NO_INTEGRATION),
    ("patch", "/integrations/{id}", WRITE, NO_INTEGRATION),
    ("delete", "/integrations/{id}", WRITE, NO_INTEGRATION),
    ("post", "/integrations/{id}/enable", WRITE, NO_INTEGRATION),
    ("post", "/integrations/{id}/disable", WRITE, NO_INTEGRATION),
    ("get", "/integrations/{id}/health", READ, NO_INTEGRATION),
    ("get", "/integrations/{id}/limits", IntegrationKey("integrations:read"), NO_INTEGRATION),
    ("post", "/integrations/{id}/keys", KEYS, NO_INTEGRATION),
    ("get", "/integrations/{id}/keys", READ, NO_INTEGRATION),
    ("delete", "/integrations/{id}/keys/{key_id}", KEYS, NO_KEY),
    ("post", "/integrations/{id}/keys/{key_id}/rotate", KEYS, NO_INTEGRATION),
    ("post", "/telemetry/llm-usage", INGEST, NO_INTEGRATION),
    ("post", "/telemetry/llm-usage/batch", INGEST, NO_INTEGRATION),
    ("get", "/telemetry/usage-summary", USAGE, NO_INTEGRATION),
    ("get", "/telemetry/usage-history", USAGE, NO_INTEGRATION),
    ("get", "/telemetry/export", USAGE, NO_INTEGRATION),
    ("get", "/telemetry/usage-series", USAGE, NO_INTEGRATION),
    ("get", "/telemetry/usage-breakdown", USAGE, NO_INTEGRATION),
    ("get", "/telemetry/daily-aggregates", USAGE, NO_INTEGRATION),
    ("post", "/enforcement/check", DECIDE, HardBlocked),
    ("post", "/enforcement/batch", DECIDE, HardBlocked),
    ("get", "/enforcement/status", DECIDE, NO_INTEGRATION),
    ("get", "/enforcement/decisions", DECIDE, NO_INTEGRATION),
    ("post", "/enforcement/reservations", DECIDE, HardBlocked),
    ("get", "/enforcement/reservations", DECIDE, NO_INTEGRATION),
    ("delete", "/enforcement/reservations/{call_id}", DECIDE, NO_RESERVATION),
    ("post", "/enforcement/reservations/{call_id}/extend", DECIDE, NO_RESERVATION),
];

/// An id that does not exist.
const UNKNOWN: &str = "00000000-0000-8000-8000-000000000000";

/// Two tenants. The first has one resource of each kind, the second nothing.
struct World {
    app: TestApp,
    people: People,
    owner: Tenant,
    other: Tenant,
    owned: Owned,
}

/// The resources of the owner.
struct Owned {
    integration: String,
    api_key: String,
    integration_key: String,
}

impl World {
    async fn new() -> Self {
        let (people, app) = People::with_app().await;
        let (owner, other) = (app.tenant("owner").await, app.tenant("other").await);
        let integration = owner.integration("i", json!({})).await;
        let api_key = owner.new_key(&["keys:write"]).await.text("/data/id").to_owned();
        let founder = owner.founder();
        let key = founder.post(&format!("/integrations/{integration}/keys")).await;
        let integration_key = key.is(201).text("/data/id").to_owned();
        let reserve = reservation(&integration, "reserved");
        founder.post("/enforcement/reservations").json(&reserve).await.is(201);
        founder.post("/telemetry/llm-usage").json(&record(&integration, "used")).await.is(201);
        let owned = Owned { integration, api_key, integration_key };
        Self { app, people, owner, other, owned }
    }

    /// A person of a tenant.
    fn person(&self, tenant: &Tenant, role: Role) -> Client {
        self.people.person(&self.app, &tenant.id, role.as_str())
    }

    /// Sends a request of a route with the owner's ids.
    async fn send(&self, client: &Client, route: &Route) -> ApiResponse {
        self.send_about(client, route, &self.owned).await
    }

    async fn send_about(&self, client: &Client, route: &Route, owned: &Owned) -> ApiResponse {
        let (method, template, _, foreign) = route;
        let integration = &owned.integration;
        let id = match *template {
            _ if template.starts_with("/tenants/") => &self.owner.id,
            "/keys/{id}" | "/keys/{id}/rotate" => &owned.api_key,
            _ => integration,
        };
        let mut path = template
            .replace("{id}", id)
            .replace("{key_id}", &owned.integration_key)
            .replace("{tenant_id}", &self.owner.id)
            .replace("{call_id}", "reserved");
        let named_in_query = *method == "get" && !path.contains(integration.as_str());
        if named_in_query && *foreign == NO_INTEGRATION {
            path.push_str(&format!("?integration_id={integration}"));
        }
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let request = if is_of_the_api(template) {
            client.request(method, &path)
        } else {
            client.root(&path).method(method)
        };
        match body(route, integration) {
            Some(body) => request.json(&body).await,
            None => request.await,
        }
    }

    /// All data of the owner that can be read.
    async fn owners_state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for path in [
            "/keys".to_owned(),
            "/integrations".to_owned(),
            format!("/integrations/{}", self.owned.integration),
            format!("/integrations/{}/keys", self.owned.integration),
            format!("/integrations/{}/limits", self.owned.integration),
            "/telemetry/usage-summary".to_owned(),
            "/telemetry/usage-history".to_owned(),
            "/enforcement/reservations".to_owned(),
        ] {
            state.push(self.owner.founder().get(&path).await.is(200).data().to_string());
        }
        state
    }
}

/// A body that the route accepts from the owner.
fn body(route: &Route, integration: &str) -> Option<Value> {
    let question = json!({ "integration_id": integration, "estimated_cost_cents": 1 });
    match (route.0, route.1) {
        ("post", "/tenants") => Some(json!({ "name": "t" })),
        ("post", "/fdr/abuse/override") => Some(json!({
            "tenant_id": integration,
            "dimension": "rate",
            "allowed_value": 1,
            "expires_at": "2026-03-15T00:00:00Z",
            "reason": "a test",
        })),
        ("post", "/keys") => Some(json!({ "name": "k", "scopes": ["keys:write"] })),
        ("post", "/integrations") => Some(json!({ "name": "n", "provider_type": "custom" })),
        ("put" | "patch", _) => Some(json!({ "name": "stolen" })),
        ("post", "/telemetry/llm-usage") => Some(record(integration, "new")),
        ("post", "/telemetry/llm-usage/batch") => {
            Some(json!({ "records": [record(integration, "new")] }))
        }
        ("post", "/enforcement/check") => Some(question),
        ("post", "/enforcement/batch") => Some(json!({ "requests": [question] })),
        ("post", "/enforcement/reservations") => Some(reservation(integration, "newly-reserved")),
        _ => None,
    }
}

/// The methods and paths of the router, except the public ones.
fn routed() -> BTreeSet<(String, String)> {
    let entries = API.table().entries().iter();
    let entries = entries.filter(|entry| entry.audience != Audience::Everyone);
    entries
        .map(|entry| {
            let path = entry.path.strip_prefix("/api/v1").unwrap_or(entry.path);
            (entry.method.as_str().to_lowercase(), path.to_owned())
        })
        .collect()
}

/// Every route by its path in the OpenAPI document.
pub(crate) fn all_routes() -> BTreeSet<(String, String)> {
    let open = OPEN.iter().map(|path| ("get".to_owned(), (*path).to_owned()));
    let table = ROUTES.iter().map(|(method, path, ..)| ((*method).to_owned(), in_api(path)));
    open.chain(table).collect()
}

/// The `security` that the document must have for a route.
pub(crate) fn security(method: &str, path: &str) -> Value {
    let route = ROUTES.iter().find(|route| route.0 == method && in_api(route.1) == path);
    let by_key = |scope: &str| {
        let [key, header] = ["api_key", "api_key_header"].map(|name| json!({ name: [scope] }));
        vec![key, header, json!({ "operator": [] }), json!({ "person": [] })]
    };
    let person = json!({ "person": [] });
    match route.map(|route| route.2) {
        None => json!([{}]),
        Some(Operator) if path == METRICS => json!([{ "operator": [] }, { "metrics_token": [] }]),
        Some(Operator) => json!([{ "operator": [] }]),
        Some(AnyCaller) => {
            let schemes = ["api_key", "api_key_header", "integration_key", "person", "operator"];
            schemes.map(|name| json!({ name: [] })).to_vec().into()
        }
        Some(Admin) => json!([{ "operator": [] }, person]),
        Some(Key(scope)) => by_key(scope).into(),
        Some(IntegrationKey(scope)) => {
            let mut all = by_key(scope);
            all.push(json!({ "integration_key": [] }));
            all.into()
        }
    }
}

fn is_of_the_api(path: &str) -> bool {
    path != METRICS && !path.starts_with("/fdr/")
}

fn in_api(path: &str) -> String {
    if is_of_the_api(path) { format!("/api/v1{path}") } else { path.to_owned() }
}

#[test]
fn no_route_is_missing_from_the_table() {
    let table: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path, ..)| ((*method).into(), (*path).into())).collect();
    assert_eq!(table.len(), ROUTES.len(), "a route is twice in the table");
    assert_eq!(routed(), table);
}

#[test]
fn every_route_declares_the_access_of_the_table() {
    let expected: BTreeSet<String> = ROUTES
        .iter()
        .filter(|route| route.1 != METRICS)
        .map(|(method, path, access, _)| {
            // A read-only credential changes nothing.
            let reads =
                *method == "get" || ["/enforcement/check", "/enforcement/batch"].contains(path);
            let is_sensitive = path.starts_with("/keys") || path.starts_with("/audit");
            let role = if reads && !is_sensitive { Role::Viewer } else { Role::Admin };
            let tenant =
                |scope, integration_key| access::Access::Tenant { scope, integration_key, role };
            let access = match access {
                Operator => access::Access::Operator,
                AnyCaller => access::Access::AnyCaller,
                Admin => tenant(None, false),
                Key(scope) => tenant(Some(*scope), false),
                IntegrationKey(scope) => tenant(Some(*scope), true),
            };
            format!("{} {} {access:?}", method.to_uppercase(), in_api(path))
        })
        .collect();
    let declared = API.table().entries().iter().filter_map(|entry| match entry.audience {
        Audience::Caller(access) => Some(format!("{} {} {access:?}", entry.method, entry.path)),
        Audience::Everyone | Audience::Scraper => None,
    });
    assert_eq!(declared.collect::<BTreeSet<String>>(), expected);
}
