//! Route declarations: who may use a route and how protection treats it.
//!
//! The router, the guard's table, the OpenAPI document and docs/api.md are built from them.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::openapi::path::{PathItem, Paths};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::app::App;
use crate::auth::access::Access;
use crate::protection::rule::RouteNumber;
use crate::protection::thresholds::RequestClass;
use crate::protection::{RefusalMode, RouteProtection};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Anyone who can reach the listener; no credential is asked for.
    Everyone,
    /// The operator, or a client with the metrics token. The handler checks the credential.
    Scraper,
    /// A caller with a credential and this access. The guard checks both.
    Caller(Access),
}

/// What a route declares about all of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    audience: Audience,
    class: RequestClass,
    refusal: RefusalMode,
    is_exempt: bool,
}

impl Rule {
    /// A route for management or reads. Requests above a threshold are refused at once.
    pub(crate) const fn of(access: Access) -> Self {
        // Protection never refuses the operator.
        let is_exempt = matches!(access, Access::Operator);
        Self { is_exempt, ..Self::to(Audience::Caller(access)) }
    }

    /// A route without an authenticated caller. Protection does not see its requests.
    pub(crate) const fn open(audience: Audience) -> Self {
        Self { is_exempt: true, ..Self::to(audience) }
    }

    const fn to(audience: Audience) -> Self {
        let (class, refusal) = (RequestClass::Management, RefusalMode::AtOnce);
        Self { audience, class, refusal, is_exempt: false }
    }

    /// Clients send its requests along with each model call, so the thresholds for traffic apply.
    pub(crate) const fn traffic(self) -> Self {
        Self { class: RequestClass::Traffic, ..self }
    }

    /// The route releases a hold or ends access. Protection must not refuse it.
    pub(crate) const fn never_refused(self) -> Self {
        Self { refusal: RefusalMode::Never, ..self }
    }

    /// Above a threshold the ledger refuses only records of calls that are neither reserved nor
    /// recorded.
    pub(crate) const fn refused_unless_known(self) -> Self {
        Self { refusal: RefusalMode::UnlessKnown, ..self }
    }

    /// Protection does not see its requests: a new tenant needs this route to get started.
    pub(crate) const fn exempt(self) -> Self {
        Self { is_exempt: true, ..self }
    }
}

/// Routes with their rules, in the order of declaration.
#[derive(Default)]
pub(crate) struct Routes(Vec<(Rule, UtoipaMethodRouter<App>)>);

impl Routes {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds the methods of one path.
    #[must_use]
    pub(crate) fn add(mut self, rule: Rule, handlers: UtoipaMethodRouter<App>) -> Self {
        self.0.push((rule, handlers));
        self
    }

    /// Adds all routes of `other`.
    #[must_use]
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Builds the routers, and adds the routes to `table`.
    pub(crate) fn into_parts(self, table: &mut RouteTable) -> RouteParts {
        let mut parts = RouteParts::default();
        for (rule, handlers) in self.0 {
            table.extend(rule, &handlers.1);
            let router = match rule.audience {
                Audience::Caller(_) => &mut parts.guarded,
                Audience::Everyone | Audience::Scraper => &mut parts.open,
            };
            *router = std::mem::take(router).routes(handlers);
        }
        parts
    }
}

/// Routers by whether the guard surrounds them.
#[derive(Default)]
pub(crate) struct RouteParts {
    /// Routes whose callers must authenticate.
    pub(crate) guarded: OpenApiRouter<App>,
    /// All other routes.
    pub(crate) open: OpenApiRouter<App>,
}

/// One method of one path, with its rule.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// The method. GET also stands for HEAD.
    pub method: Method,
    /// The path template of the router.
    pub path: &'static str,
    pub audience: Audience,
    /// How protection treats the route. `None` when the route is exempt.
    pub(crate) protection: Option<RouteProtection>,
}

impl RouteEntry {
    /// The access and the protection of the route. `None` when callers need not authenticate.
    pub(crate) fn guarded(&'static self) -> Option<(Access, Option<&'static RouteProtection>)> {
        match self.audience {
            Audience::Caller(access) => Some((access, self.protection.as_ref())),
            Audience::Everyone | Audience::Scraper => None,
        }
    }
}

/// All routes by path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    entries: Vec<RouteEntry>,
    by_path: HashMap<&'static str, Vec<usize>>,
    protected_routes: u16,
}

impl RouteTable {
    fn extend(&mut self, rule: Rule, paths: &Paths) {
        for (path, item) in &paths.paths {
            // Leaked once per route; the table lives as long as the process.
            let path: &'static str = Box::leak(path.clone().into_boxed_str());
            for method in methods(item) {
                self.push(rule, method, path);
            }
        }
    }

    fn push(&mut self, rule: Rule, method: Method, path: &'static str) {
        let protection = (!rule.is_exempt).then(|| {
            let route = RouteNumber(self.protected_routes);
            self.protected_routes += 1;
            RouteProtection {
                endpoint: path,
                operation: name_of(&method),
                route,
                class: rule.class,
                refusal: rule.refusal,
            }
        });
        self.by_path.entry(path).or_default().push(self.entries.len());
        self.entries.push(RouteEntry { method, path, audience: rule.audience, protection });
    }

    /// Finds a route. `None` when it was not declared.
    pub fn find(&self, method: &Method, path: &str) -> Option<&RouteEntry> {
        // HEAD has the rule of GET.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let of_path = self.by_path.get(path)?;
        of_path.iter().filter_map(|at| self.entries.get(*at)).find(|entry| entry.method == *method)
    }

    /// All routes in the order of declaration.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// The number of routes that protection sees.
    pub(crate) fn protected_routes(&self) -> u32 {
        self.protected_routes.into()
    }
}

/// The methods that a path item declares.
fn methods(item: &PathItem) -> impl Iterator<Item = Method> {
    let declared = [
        (Method::GET, item.get.is_some()),
        (Method::POST, item.post.is_some()),
        (Method::PUT, item.put.is_some()),
        (Method::PATCH, item.patch.is_some()),
        (Method::DELETE, item.delete.is_some()),
    ];
    declared.into_iter().filter_map(|(method, is_declared)| is_declared.then_some(method))
}

/// The name of a method in signals and metrics.
const fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "",
    }
}
