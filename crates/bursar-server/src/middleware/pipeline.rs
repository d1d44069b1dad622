//! The outermost layer around all routes.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::http::client_address;
use crate::http::client_address::ClientAddress;
use crate::middleware::{access_log, response_headers};
use crate::observe::trace::TraceContext;
use crate::wire::request_id;

/// The route name of a request that matches no route.
const NO_ROUTE: &str = "none";

/// Sets the request id, the trace and the client, logs the request, and applies the headers.
pub(crate) async fn run(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id::identify(request.headers());
    let trace = TraceContext::of(request.headers());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let client = request.extensions().get::<ClientAddress>().copied();
    // Boxed: otherwise each future around it would reserve space for it twice.
    let answer = Box::pin(response_headers::apply(&app.answers.budgets, request, next));
    let answer = client_address::within(client, answer);
    request_id::within(id, access_log::log_request(&app.metrics, trace, route, &method, answer))
        .await
}
