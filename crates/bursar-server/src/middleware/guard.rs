//! What every request of a tenant or the operator passes before its handler: who is it, may they use
//! this route, and should it go on now.
//!
//! A route that the table of access does not name is refused, whatever its handler would do.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bursar_store::Asker;

use crate::app::App;
use crate::auth::access;
use crate::auth::access::Access;
use crate::auth::admit;
use crate::auth::admit::Admitted;
use crate::http::request_facts::RequestTenant;
use crate::protection::Sender;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Lets a request in as the table says.
pub async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let path = matched.as_ref().map_or("", MatchedPath::as_str);
    let Some(access) = access::access(request.method(), path) else {
        return refuse(request.method(), path);
    };
    authorize_as(&app, access, path, request, next).await
}

/// Lets a request in when its caller may use a route of this access, and it goes on now as one of
/// this path does.
pub async fn authorize_as(
    app: &App,
    access: Access,
    path: &str,
    request: Request,
    next: Next,
) -> Response {
    // What this takes is given back before the handler runs, which may wait long for a slow client.
    match Box::pin(enter(app, access, path, request)).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The request with who sends it.
async fn enter(
    app: &App,
    access: Access,
    path: &str,
    mut request: Request,
) -> Result<Request, ApiError> {
    let admitted = admit::admit(&app.authenticator, request.headers(), access).await?;
    let (tenant, integration_id) = match &admitted {
        Admitted::Operator(_) => (None, None),
        Admitted::Anyone(anyone) => (anyone.tenant, anyone.only),
        Admitted::Tenant(authorized) => (Some(authorized.tenant()), authorized.only),
    };
    // Before protection: how much of a refused body the connection discards depends on the caller.
    let proved = request.extensions().get::<RequestTenant>().cloned().unwrap_or_default();
    match &admitted {
        Admitted::Operator(_) => proved.proved_operator(),
        Admitted::Anyone(_) => {}
        Admitted::Tenant(authorized) => proved.proved(authorized.tenant_id, authorized.only),
    }
    if let Some(tenant) = tenant {
        // The operator acts on a tenant that floods the server, too.
        let sender = Sender { tenant, integration_id, is_operator: admitted.is_operator() };
        app.protection.protect(sender, path, &mut request).await?;
    }
    let asker = if admitted.is_operator() { Asker::Operator } else { Asker::Tenant };
    request.extensions_mut().insert(asker);
    match admitted {
        Admitted::Operator(operator) => {
            request.extensions_mut().insert(operator);
        }
        Admitted::Anyone(anyone) => {
            request.extensions_mut().insert(anyone);
        }
        Admitted::Tenant(authorized) => {
            request.extensions_mut().insert(authorized);
        }
    }
    Ok(request)
}

/// A route that nobody was given.
fn refuse(method: &Method, path: &str) -> Response {
    tracing::error!(%method, route = path, "a route is missing from the table of access");
    ApiError::of(ErrorCode::Forbidden).into_response()
}
