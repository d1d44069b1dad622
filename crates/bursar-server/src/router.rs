//! The whole API on one page: all routes, and the layers around them.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Method;
use axum::middleware::{self, Next};
use utoipa::openapi::OpenApi;

use crate::api::operator::{caches, clock, docs, health, metrics, protection};
use crate::api::route::{RouteEntry, RouteParts, RouteTable};
use crate::api::{enforcement, integrations, keys, telemetry, tenants};
use crate::app::App;
use crate::auth::access::Access;
use crate::middleware::{guard, pipeline, require_database};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The declared routes by the listener that serves them.
pub struct Api {
    tenants: RouteParts,
    operator: RouteParts,
    health: RouteParts,
    table: RouteTable,
}

/// The declared routes, collected once. [`router`] combines them with an app.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    let mut table = RouteTable::default();
    let tenants = tenants::routes()
        .with(integrations::routes())
        .with(keys::routes())
        .with(telemetry::routes())
        .with(enforcement::routes())
        .with(docs::routes());
    // Monitoring routes. Each authenticates its caller, because without a listener of its own it is
    // reachable on the public one.
    let operator =
        protection::routes().with(caches::routes()).with(clock::routes()).with(metrics::routes());
    // Health checks are served by every listener.
    let health = health::routes();
    let [tenants, operator, health] =
        [tenants, operator, health].map(|of| of.into_parts(&mut table));
    Api { tenants, operator, health, table }
});

impl Api {
    /// Every route by path and method.
    pub const fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Adds the declarations of the routes to the OpenAPI document.
    pub(crate) fn describe(&self, document: &mut OpenApi) {
        for parts in [&self.tenants, &self.operator, &self.health] {
            for router in [&parts.guarded, &parts.open] {
                document.merge(router.get_openapi().clone());
            }
        }
    }
}

/// All routes: what a server with one listener serves.
pub fn router(app: App) -> Router {
    with_layers(tenant_routes(&app).merge(operator_routes(&app)), app)
}

/// All routes plus `open` ones and guarded ones, for benchmarks.
///
/// The guarded ones have this access and pass the same protection as a usage record.
pub fn router_with(open: Router<App>, more: Router<App>, access: Access, app: App) -> Router {
    let guarded = app.clone();
    let guard = move |request: Request, next: Next| {
        let app = guarded.clone();
        async move {
            let protection = API.table().find(&Method::POST, "/api/v1/telemetry/llm-usage");
            let protection =
                protection.and_then(RouteEntry::guarded).and_then(|(_, protection)| protection);
            guard::authorize_as(&app, (access, protection), request, next).await
        }
    };
    let more = more.layer(middleware::from_fn(guard));
    with_layers(tenant_routes(&app).merge(operator_routes(&app)).merge(open).merge(more), app)
}

/// The routes of the public listener if the operator has a listener of its own.
pub(crate) fn public_router(app: App) -> Router {
    with_layers(tenant_routes(&app), app)
}

/// The routes of the operator's own listener.
pub fn operator_router(app: App) -> Router {
    with_layers(operator_routes(&app), app)
}

/// The monitoring routes.
pub(crate) fn operator_routes(app: &App) -> Router<App> {
    guarded_routes(&API.operator, app)
}

/// The routes of tenants and the API description.
fn tenant_routes(app: &App) -> Router<App> {
    guarded_routes(&API.tenants, app)
}

/// Adds the guard, and the check of the database, to routes.
fn guarded_routes(parts: &RouteParts, app: &App) -> Router<App> {
    let guard = middleware::from_fn_with_state((app.clone(), API.table()), guard::authorize);
    let guarded = Router::from(parts.guarded.clone());
    let guarded = if guarded.has_routes() { guarded.route_layer(guard) } else { guarded };
    let guarded = match &app.database_probe {
        Some(_) => guarded
            .layer(middleware::from_fn_with_state(app.clone(), require_database::require_database)),
        None => guarded,
    };
    guarded.merge(Router::from(parts.open.clone()))
}

/// Adds health checks and the layers around every route.
fn with_layers(routes: Router<App>, app: App) -> Router {
    routes
        .merge(guarded_routes(&API.health, &app))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        // Each route limits its own body, before and after decompression.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(app.clone(), pipeline::run))
        .with_state(app)
}

async fn no_route() -> ApiError {
    ApiError::of(ErrorCode::RouteNotFound)
}

async fn no_method() -> ApiError {
    ApiError::of(ErrorCode::MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route::Audience;
    use crate::auth::access::{KEYS, Role};
    use crate::protection::thresholds::RequestClass;
    use crate::protection::{RefusalMode, RouteProtection};

    /// The marks around the table in docs/api.md.
    const MARKS: [&str; 2] = ["<!-- access -->\n", "<!-- end of access -->"];

    /// The table of access in docs/api.md.
    fn access_as_markdown() -> String {
        let mut text = String::from(
            "| route | API key | integration key | person | operator |\n|---|---|---|---|---|\n",
        );
        for RouteEntry { method, path, audience, .. } in API.table().entries() {
            let Audience::Caller(access) = audience else { continue };
            let (scope, integration_key, person) = match access {
                Access::Operator => ("-".to_owned(), "-", "-"),
                Access::AnyCaller => ("any".to_owned(), "yes", "viewer"),
                Access::Tenant { scope, integration_key, role } => (
                    scope.map_or_else(|| "-".to_owned(), |scope| format!("`{scope}`")),
                    if *integration_key { "yes" } else { "-" },
                    role.as_str(),
                ),
            };
            let row =
                format!("| `{method} {path}` | {scope} | {integration_key} | {person} | yes |\n");
            text.push_str(&row);
        }
        text
    }

    #[test]
    fn the_documents_have_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
        let documents = std::fs::read_to_string(path).unwrap();
        let (before, rest) = documents.split_once(MARKS[0]).unwrap();
        let (table, after) = rest.split_once(MARKS[1]).unwrap();
        if std::env::var_os("BURSAR_WRITE_OPENAPI").is_some() {
            let [first, last] = MARKS;
            let written = format!("{before}{first}{}{last}{after}", access_as_markdown());
            std::fs::write(path, written).unwrap();
        } else {
            let wanted = access_as_markdown();
            assert_eq!(table, wanted, "docs/api.md: set BURSAR_WRITE_OPENAPI to write it");
        }
    }

    fn entry(method: &Method, path: &str) -> &'static RouteEntry {
        API.table().find(method, path).unwrap_or_else(|| panic!("no {method} {path}"))
    }

    fn protection(method: &Method, path: &str) -> Option<&'static RouteProtection> {
        entry(method, path).protection.as_ref()
    }

    /// Routes with an authenticated caller, except those of the operator.
    fn of_tenants() -> impl Iterator<Item = (&'static RouteEntry, Access)> {
        API.table().entries().iter().filter_map(|entry| match entry.audience {
            Audience::Everyone | Audience::Scraper | Audience::Caller(Access::Operator) => None,
            Audience::Caller(access) => Some((entry, access)),
        })
    }

    #[test]
    fn whoever_may_change_something_is_an_admin() {
        for (entry, access) in of_tenants().filter(|(entry, _)| entry.method != Method::GET) {
            let changes =
                !matches!(entry.path, "/api/v1/enforcement/check" | "/api/v1/enforcement/batch");
            let is_admin = matches!(access, Access::Tenant { role: Role::Admin, .. });
            assert!(is_admin || !changes, "{} {}", entry.method, entry.path);
        }
    }

    #[test]
    fn what_was_not_declared_is_nobodys() {
        let table = API.table();
        assert!(table.find(&Method::GET, "/api/v1/nothing").is_none());
        assert!(table.find(&Method::POST, "/api/v1/session/context").is_none());
        assert_eq!(entry(&Method::HEAD, "/api/v1/keys").audience, Audience::Caller(KEYS));
    }

    #[test]
    fn a_route_is_declared_once() {
        let entries = API.table().entries();
        for (at, RouteEntry { method, path, .. }) in entries.iter().enumerate() {
            let again = entries.iter().skip(at + 1);
            let again = again.filter(|other| (&other.method, other.path) == (method, *path));
            assert_eq!(again.count(), 0, "{method} {path}");
        }
    }

    #[track_caller]
    fn check(method: &Method, path: &str, class: RequestClass, refusal: RefusalMode) {
        let found =
            protection(method, path).map(|protection| (protection.class, protection.refusal));
        assert_eq!(found, Some((class, refusal)), "{method} {path}");
    }

    #[test]
    fn each_route_has_its_class() {
        use RefusalMode::{AtOnce, Never, UnlessKnown};
        use RequestClass::{Management, Traffic};
        check(&Method::POST, "/api/v1/telemetry/llm-usage", Traffic, UnlessKnown);
        check(&Method::POST, "/api/v1/telemetry/llm-usage/batch", Traffic, UnlessKnown);
        check(&Method::GET, "/api/v1/telemetry/usage-summary", Management, AtOnce);
        check(&Method::HEAD, "/api/v1/keys", Management, AtOnce);
        check(&Method::POST, "/api/v1/integrations", Management, AtOnce);
        check(&Method::POST, "/api/v1/enforcement/check", Traffic, AtOnce);
        check(&Method::POST, "/api/v1/enforcement/batch", Traffic, AtOnce);
        check(&Method::GET, "/api/v1/enforcement/status", Management, AtOnce);
        let reservations = "/api/v1/enforcement/reservations";
        check(&Method::POST, reservations, Traffic, AtOnce);
        let one = "/api/v1/enforcement/reservations/{call_id}";
        check(&Method::DELETE, one, Traffic, Never);
        check(&Method::POST, &format!("{one}/extend"), Traffic, AtOnce);
    }

    #[test]
    fn what_software_sends_with_its_calls_is_traffic() {
        for (entry, _) in of_tenants() {
            let of_calls = ["/api/v1/telemetry/", "/api/v1/enforcement/"];
            let of_calls = of_calls.iter().any(|start| entry.path.starts_with(start));
            let is_traffic = of_calls && entry.method != Method::GET;
            let class = entry
                .protection
                .as_ref()
                .map(|protection| protection.class == RequestClass::Traffic);
            assert_eq!(class.unwrap_or_default(), is_traffic, "{} {}", entry.method, entry.path);
        }
    }

    #[test]
    fn what_ends_a_key_or_an_integration_is_never_refused() {
        use RefusalMode::{AtOnce, Never};
        use RequestClass::Management;
        check(&Method::DELETE, "/api/v1/keys/{id}", Management, Never);
        let integration = "/api/v1/integrations/{id}";
        check(&Method::DELETE, integration, Management, Never);
        check(&Method::POST, &format!("{integration}/disable"), Management, Never);
        check(&Method::POST, &format!("{integration}/enable"), Management, AtOnce);
        let key = format!("{integration}/keys/{{key_id}}");
        check(&Method::DELETE, &key, Management, Never);
        // The operator suspends and terminates tenants; protection never refuses the operator.
        for end in ["suspend", "terminate", "archive"] {
            assert!(protection(&Method::POST, &format!("/api/v1/tenants/{{id}}/{end}")).is_none());
        }
        for (entry, _) in of_tenants().filter(|(entry, _)| entry.method == Method::DELETE) {
            let refusal = entry.protection.as_ref().map(|protection| protection.refusal);
            assert_eq!(refusal, Some(Never), "{}: may a flood keep it from ending?", entry.path);
        }
    }

    #[test]
    fn every_route_of_tenants_but_the_first_steps_is_held_to_something() {
        for (entry, _) in of_tenants() {
            let is_exempt = entry.path == "/api/v1/onboarding/finalize";
            assert_eq!(entry.protection.is_none(), is_exempt, "{} {}", entry.method, entry.path);
        }
        let others = API.table().entries().iter().filter(|entry| {
            matches!(
                entry.audience,
                Audience::Everyone | Audience::Scraper | Audience::Caller(Access::Operator)
            )
        });
        for entry in others {
            assert!(entry.protection.is_none(), "{} {}", entry.method, entry.path);
        }
    }
}
