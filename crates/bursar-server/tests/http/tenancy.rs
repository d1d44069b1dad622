//! Isolation of tenants: a table of all routes, each tested with every credential that is not allowed.

use std::collections::BTreeSet;

use axum::http::Method;
use bursar_core::{IntegrationId, KeyId};
use bursar_server::api::route::Audience;
use bursar_server::auth::access;
use bursar_server::auth::access::Role;
use bursar_server::router::API;
use bursar_testing::oidc::signer::Signer;
use serde_json::{Value, json};

use crate::oidc::{People, with_token};
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

use Access::{Admin, AnyCaller, IntegrationKey, Key, Operator};
use Foreign::{HardBlocked, NotFound, Unnamed};

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

/// Asserts the response to a foreign or unknown id.
#[track_caller]
fn check_foreign(route: &Route, answer: &ApiResponse) {
    match (route.1, route.3) {
        ("/telemetry/llm-usage/batch", _) => {
            assert_eq!(answer.is(200).at("/data/errors"), 1);
            assert_eq!(answer.text("/data/results/0/error/code"), "INTEGRATION_NOT_FOUND");
        }
        (_, NotFound(code)) => {
            answer.refused(404, code);
        }
        ("/enforcement/batch", HardBlocked) => {
            assert_eq!(answer.is(200).text("/data/0/result"), "hard_blocked");
            assert_eq!(answer.text("/data/0/reasons/0/code"), "integration_not_found");
        }
        (_, HardBlocked) => {
            assert_eq!(answer.is(200).text("/data/result"), "hard_blocked");
            assert_eq!(answer.text("/data/reasons/0/code"), "integration_not_found");
            assert!(answer.at("/data/reservation").is_null());
        }
        (_, Unnamed) => {}
    }
}

/// The body without the ids of the request, to compare responses for different ids.
fn without_ids(answer: &ApiResponse, owned: &Owned) -> String {
    let mut shown = answer.redacted().to_string();
    for id in [&owned.integration, &owned.api_key, &owned.integration_key] {
        shown = shown.replace(id.as_str(), "id");
    }
    shown
}

#[tokio::test]
async fn another_tenant_reads_nothing_and_changes_nothing() {
    let world = World::new().await;
    let before = world.owners_state().await;
    // Valid ids that do not exist.
    let number = 1 << 40;
    let unknown = Owned {
        integration: IntegrationId::from_number(number).unwrap().to_string(),
        api_key: KeyId::from_number(number).unwrap().to_string(),
        integration_key: KeyId::from_number(number).unwrap().to_string(),
    };
    let person = world.person(&world.other, Role::Admin);
    for stranger in [world.other.key(&["*"]).await, person] {
        for route in ROUTES.iter().filter(|route| route.2 != Operator) {
            let answer = world.send(&stranger, route).await;
            // No key may use these routes; a person may use those of their own tenant.
            if route.2 == Admin && answer.status == 403 {
                answer.refused(403, "FORBIDDEN");
                continue;
            }
            check_foreign(route, &answer);
            assert!(
                route.3 == Unnamed || !answer.body.contains(&world.owner.id),
                "{}",
                answer.body
            );
            if matches!(route.3, NotFound(_) | HardBlocked) {
                let of_unknown = world.send_about(&stranger, route, &unknown).await;
                assert_eq!(without_ids(&answer, &world.owned), without_ids(&of_unknown, &unknown));
            }
            if route.0 == "get" && route.3 == Unnamed {
                assert_eq!(answer.status, 200, "{}", route.1);
                assert!(!answer.body.contains(&world.owned.integration), "{}", route.1);
                assert!(!answer.body.contains(&world.owned.api_key), "{}", route.1);
            }
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_person_can_use_exactly_the_routes_of_their_role() {
    let rule = |route: &Route| {
        let method = Method::from_bytes(route.0.to_uppercase().as_bytes()).unwrap();
        match API.table().find(&method, &in_api(route.1))?.audience {
            Audience::Caller(access::Access::Tenant { role, .. }) => Some(role),
            Audience::Caller(access::Access::AnyCaller) => Some(Role::Viewer),
            Audience::Caller(access::Access::Operator) | Audience::Everyone | Audience::Scraper => {
                None
            }
        }
    };
    for role in [Role::Viewer, Role::Admin] {
        let world = World::new().await;
        let person = world.person(&world.owner, role);
        let before = world.owners_state().await;
        let may = |route: &&Route| rule(route).is_some_and(|needed| role >= needed);
        for route in ROUTES.iter().filter(|route| !may(route)) {
            world.send(&person, route).await.refused(403, "FORBIDDEN");
        }
        assert_eq!(world.owners_state().await, before);
        for route in ROUTES.iter().filter(may) {
            let world = World::new().await;
            let answer = world.send(&world.person(&world.owner, role), route).await;
            assert!(answer.status.is_success(), "{}: {}", route.1, answer.body);
        }
    }
}

#[tokio::test]
async fn an_unfiltered_list_shows_only_the_callers_tenant() {
    let world = World::new().await;
    let stranger = world.other.key(&["*"]).await;
    for path in [
        "/integrations",
        "/telemetry/usage-summary",
        "/telemetry/usage-history",
        "/telemetry/daily-aggregates",
        "/enforcement/reservations",
    ] {
        let answer = stranger.get(path).await;
        assert!(!answer.is(200).body.contains(&world.owned.integration), "{path}");
        assert!(!answer.body.contains(&world.owner.id), "{path}");
    }
}

#[tokio::test]
async fn every_route_without_a_credential_is_401() {
    let world = World::new().await;
    let before = world.owners_state().await;
    let anonymous = world.app.anonymous();
    for route in ROUTES {
        let answer = world.send(&anonymous, route).await;
        assert_eq!(answer.refused(401, "UNAUTHENTICATED").headers["www-authenticate"], "Bearer");
        let named = anonymous.clone().with("x-tenant-id", &world.owner.id);
        world.send(&named, route).await.refused(401, "UNAUTHENTICATED");
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused_and_one_with_it_is_not() {
    const SCOPES: [&str; 8] = [
        "integrations:read",
        "integrations:write",
        "telemetry:read",
        "telemetry:write",
        "enforcement:check",
        "credentials:write",
        "keys:write",
        "gateway:use",
    ];
    for route in ROUTES {
        let world = World::new().await;
        let (Key(needed) | IntegrationKey(needed)) = route.2 else { continue };
        let others: Vec<&str> = SCOPES.into_iter().filter(|scope| *scope != needed).collect();
        let before = world.owners_state().await;
        let without = world.owner.key(&others).await;
        world.send(&without, route).await.refused(403, "MISSING_SCOPE");
        let resource = needed.split(':').next().unwrap_or_default();
        let after = world.owners_state().await;
        assert_eq!(after[1..], before[1..], "{}", route.1);
        for granted in [needed, &format!("{resource}:*"), "*"] {
            let mut granted = vec![granted];
            // A key can grant only its own scopes, and an integration key has these.
            if route.0 == "post" && route.1.starts_with("/integrations/{id}/keys") {
                granted.extend(["telemetry:write", "enforcement:check", "integrations:read"]);
            }
            let key = world.owner.key(&granted).await;
            let answer = world.send(&key, route).await;
            assert!(!matches!(answer.status.as_u16(), 401 | 403), "{}: {}", route.1, answer.body);
            assert!(answer.status.as_u16() < 500, "{}: {}", route.1, answer.body);
        }
    }
}

#[tokio::test]
async fn only_the_operator_can_use_the_operators_routes() {
    let world = World::new().await;
    let id = &world.owned.integration;
    let person = world.person(&world.owner, Role::Admin);
    let keys = [world.owner.key(&["*"]).await, world.owner.integration_key(id).await];
    for client in keys.into_iter().chain([person]) {
        for route in ROUTES.iter().filter(|route| route.2 == Operator) {
            world.send(&client, route).await.refused(403, "FORBIDDEN");
        }
    }
    assert_eq!(world.app.founder().get("/tenants").await.at("/meta/total"), 2);
}

#[tokio::test]
async fn an_integration_key_works_only_on_the_routes_that_accept_it() {
    let world = World::new().await;
    let key = world.owner.integration_key(&world.owned.integration).await;
    let before = world.owners_state().await;
    for route in ROUTES.iter().filter(|route| matches!(route.2, Key(_))) {
        world.send(&key, route).await.refused(403, "MISSING_SCOPE");
    }
    assert_eq!(world.owners_state().await, before);
    for route in ROUTES.iter().filter(|route| matches!(route.2, IntegrationKey(_))) {
        // A new world for each route, because a released reservation cannot be extended.
        let world = World::new().await;
        let key = world.owner.integration_key(&world.owned.integration).await;
        let answer = world.send(&key, route).await;
        assert!(matches!(answer.status.as_u16(), 200 | 201), "{}: {}", route.1, answer.body);
    }
}

#[tokio::test]
async fn the_key_of_another_integration_reads_nothing_and_changes_nothing() {
    let world = World::new().await;
    let sibling = world.owner.integration("sibling", json!({})).await;
    let foreign = world.other.integration("foreign", json!({})).await;
    let keys =
        [world.owner.integration_key(&sibling).await, world.other.integration_key(&foreign).await];
    let before = world.owners_state().await;
    for key in &keys {
        for route in ROUTES.iter().filter(|route| matches!(route.2, IntegrationKey(_))) {
            let answer = world.send(key, route).await;
            match route.1 {
                // The integration of the key and the one in the request must agree.
                "/telemetry/llm-usage" => {
                    answer.refused(422, "INVALID_FIELD").on("integration_id");
                }
                "/telemetry/llm-usage/batch" => {
                    assert_eq!(answer.is(200).at("/data/errors"), 1);
                    assert_eq!(answer.text("/data/results/0/error/field"), "integration_id");
                }
                _ => check_foreign(route, &answer),
            }
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_credential_with_the_id_of_another_tenant_is_refused() {
    let world = World::new().await;
    let before = world.owners_state().await;
    let key = world.other.key(&["*"]).await;
    let integration = world.other.integration("i", json!({})).await;
    let integration_key = world.other.integration_key(&integration).await;
    let person = world.person(&world.other, Role::Admin);
    for named in [world.owner.id.as_str(), UNKNOWN, "nonsense", ""] {
        for route in ROUTES {
            let personas: &[&Client] = match route.2 {
                Operator => &[],
                Admin => &[&person],
                Key(_) => &[&key, &person],
                IntegrationKey(_) | AnyCaller => &[&key, &integration_key, &person],
            };
            for &client in personas {
                let client = client.clone().with("x-tenant-id", named);
                world.send(&client, route).await.refused(403, "TENANT_MISMATCH");
            }
        }
    }
    assert_eq!(world.owners_state().await, before);
}

/// The key with another last character.
fn tampered(key: &str) -> String {
    let (body, last) = key.split_at(key.len() - 1);
    format!("{body}{}", if last == "0" { "1" } else { "0" })
}

#[tokio::test]
async fn an_invalid_credential_is_401_on_every_route() {
    let world = World::new().await;
    let (owner, anonymous) = (&world.owner, world.app.anonymous());
    let founder = owner.founder();
    let revoked = owner.new_key(&["*"]).await;
    founder.delete(&format!("/keys/{}", revoked.text("/data/id"))).await.is(200);
    let expiring = json!({ "name": "k", "scopes": ["*"], "expires_at": "2026-03-14T09:26:54Z" });
    let expiring = founder.post("/keys").json(&expiring).await;
    let expired = expiring.is(201).text("/data/secret");
    let good = owner.new_key(&["*"]).await;
    let of_integration = owner.integration_key(&world.owned.integration).await;
    let of_integration = of_integration.header("x-cus-integration-key");
    let keys = format!("/integrations/{}/keys", world.owned.integration);
    let ended = founder.post(&keys).await;
    founder.delete(&format!("{keys}/{}", ended.is(201).text("/data/id"))).await.is(200);
    let claims = world.people.claims(&owner.id, "admin");
    let outdated = crate::support::with(claims.clone(), json!({ "exp": 0 }));
    world.app.clock.advance(1);
    let before = world.owners_state().await;
    for client in [
        with_token(&world.app, &world.people.key.token(&outdated)),
        with_token(&world.app, &Signer::p256("a").token(&claims)),
        world.people.person(&world.app, UNKNOWN, "admin"),
        owner.with_key(revoked.text("/data/secret")),
        owner.with_key(expired),
        owner.with_key(&tampered(good.text("/data/secret"))),
        anonymous.clone().with("x-cus-integration-key", ended.text("/data/secret")),
        anonymous.clone().with("x-cus-integration-key", &tampered(of_integration)),
        anonymous.clone().with("authorization", "Bearer operator-token-of-the-wrong-server"),
    ] {
        let named = client.with("x-tenant-id", &owner.id);
        for route in ROUTES {
            world.send(&named, route).await.refused(401, "UNAUTHENTICATED");
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn two_different_credentials_are_ambiguous_on_every_route() {
    let world = World::new().await;
    let first = world.owner.key(&["*"]).await;
    let second = world.owner.new_key(&["*"]).await;
    let of_integration = world.owner.integration_key(&world.owned.integration).await;
    let of_integration = of_integration.header("x-cus-integration-key");
    let before = world.owners_state().await;
    for client in [
        first.clone().with("x-aos-key", second.text("/data/secret")),
        first.with("x-cus-integration-key", of_integration),
        world.owner.founder().with("x-aos-key", second.text("/data/secret")),
        world.person(&world.owner, Role::Admin).with("x-aos-key", second.text("/data/secret")),
    ] {
        for route in ROUTES {
            world.send(&client, route).await.refused(400, "AMBIGUOUS_CREDENTIALS");
        }
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn a_key_may_name_its_own_tenant() {
    let world = World::new().await;
    let own = world.owner.key(&["*"]).await.with("x-tenant-id", &world.owner.id);
    own.get("/integrations").await.is(200);
    let upper = world.owner.key(&["*"]).await.with("x-tenant-id", &world.owner.id.to_uppercase());
    upper.get("/integrations").await.is(200);
}

#[tokio::test]
async fn the_operator_must_name_a_tenant() {
    let world = World::new().await;
    let before = world.owners_state().await;
    for route in ROUTES.iter().filter(|route| !matches!(route.2, Operator | AnyCaller)) {
        world.send(&world.app.founder(), route).await.refused(400, "TENANT_REQUIRED");
        let unknown = world.app.founder().with("x-tenant-id", UNKNOWN);
        world.send(&unknown, route).await.refused(404, "TENANT_NOT_FOUND");
        // With a tenant, the operator sees only that tenant.
        check_foreign(route, &world.send(&world.other.founder(), route).await);
    }
    assert_eq!(world.owners_state().await, before);
}

#[tokio::test]
async fn keys_cannot_use_the_routes_of_admins() {
    let world = World::new().await;
    let integration_key = world.owner.integration_key(&world.owned.integration).await;
    for route in ROUTES.iter().filter(|route| route.2 == Admin) {
        let key = world.owner.key(&["*"]).await;
        world.send(&key, route).await.refused(403, "FORBIDDEN");
        world.send(&integration_key, route).await.refused(403, "FORBIDDEN");
        let answer = world.send(&world.owner.founder(), route).await;
        assert!(answer.status.is_success(), "{}: {}", route.1, answer.body);
    }
}
