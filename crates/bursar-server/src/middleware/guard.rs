//! The access guard: authenticates and authorizes the caller, and asks protection, before a
//! handler.
//!
//! A request for a route that was not declared is refused, whatever its handler would do.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bursar_store::Requester;

use crate::api::route::{RouteEntry, RouteTable};
use crate::app::App;
use crate::auth::access::Access;
use crate::auth::authorize;
use crate::auth::authorize::Admitted;
use crate::http::request_extensions::RequestTenant;
use crate::protection::RouteProtection;
use crate::protection::protector::ProtectedCaller;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Applies the rule of the request's route.
pub(crate) async fn authorize(
    State((app, table)): State<(App, &'static RouteTable)>,
    request: Request,
    next: Next,
) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let path = matched.as_ref().map_or("", MatchedPath::as_str);
    let entry = table.find(request.method(), path);
    let Some((access, protection)) = entry.and_then(RouteEntry::guarded) else {
        return refuse(request.method(), path);
    };
    authorize_as(&app, (access, protection), request, next).await
}

/// Applies this access and protection to a request.
pub(crate) async fn authorize_as(
    app: &App,
    rule: (Access, Option<&'static RouteProtection>),
    request: Request,
    next: Next,
) -> Response {
    // Boxed, so that its memory is freed before the handler, which may wait for a slow client.
    match Box::pin(attach_caller(app, rule, request)).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Adds the authorized caller to the request.
async fn attach_caller(
    app: &App,
    (access, protection): (Access, Option<&'static RouteProtection>),
    mut request: Request,
) -> Result<Request, ApiError> {
    let admitted = authorize::authorize(&app.authenticator, request.headers(), access).await?;
    let (tenant, integration_id) = match &admitted {
        Admitted::Operator(_) => (None, None),
        Admitted::AnyCaller(anyone) => (anyone.tenant, anyone.restricted_to),
        Admitted::Tenant(authorized) => (Some(authorized.tenant()), authorized.restricted_to),
    };
    // Set before protection: how much of a refused body is discarded depends on the caller.
    let proved = request.extensions().get::<RequestTenant>().cloned().unwrap_or_default();
    match &admitted {
        Admitted::Operator(_) => proved.proved_operator(),
        Admitted::AnyCaller(_) => {}
        Admitted::Tenant(authorized) => {
            proved.proved(authorized.tenant_id, authorized.restricted_to)
        }
    }
    if let (Some(tenant), Some(protection)) = (tenant, protection) {
        // The operator may act on a tenant that floods the server.
        let caller =
            ProtectedCaller { tenant, integration_id, is_operator: admitted.is_operator() };
        app.protection.protect(caller, protection, &mut request).await?;
    }
    let requester = if admitted.is_operator() { Requester::Operator } else { Requester::Tenant };
    request.extensions_mut().insert(requester);
    match admitted {
        Admitted::Operator(operator) => {
            request.extensions_mut().insert(operator);
        }
        Admitted::AnyCaller(anyone) => {
            request.extensions_mut().insert(anyone);
        }
        Admitted::Tenant(authorized) => {
            request.extensions_mut().insert(authorized);
        }
    }
    Ok(request)
}

/// Refuses a route without a declaration.
fn refuse(method: &Method, path: &str) -> Response {
    tracing::error!(
        %method,
        route = path,
        "a route has no access rule, so its requests are refused; this is a bug"
    );
    ApiError::of(ErrorCode::Forbidden).into_response()
}
