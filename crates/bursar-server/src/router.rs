//! The whole API on one page.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::routing::{delete, get, post};

use crate::api::enforcement::{checks, decisions, reservations};
use crate::api::integrations::integration;
use crate::api::keys::{api_keys, integration_keys};
use crate::api::operator::{caches, clock, docs, health, metrics, protection};
use crate::api::telemetry::{history, ingest, series, summaries};
use crate::api::tenants::{audit, onboarding, session, tenant};
use crate::app::App;
use crate::auth::access::Access;
use crate::middleware::{database_gate, guard, pipeline};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// Every route, over an app: what a server with one listener serves.
pub fn router(app: App) -> Router {
    finish(tenant_routes(&app).merge(operator_routes(&app)), app)
}

/// The same with more routes, for measuring: some that are open, and some of this access, which pass
/// whatever a usage record passes.
pub fn router_with(open: Router<App>, more: Router<App>, access: Access, app: App) -> Router {
    let guarded = app.clone();
    let guard = move |request: Request, next: Next| {
        let app = guarded.clone();
        async move {
            guard::authorize_as(&app, access, "/api/v1/telemetry/llm-usage", request, next).await
        }
    };
    let more = more.layer(middleware::from_fn(guard));
    finish(tenant_routes(&app).merge(operator_routes(&app)).merge(open).merge(more), app)
}

/// What the public listener serves when the operator's routes have a listener of their own.
pub fn public_router(app: App) -> Router {
    finish(tenant_routes(&app), app)
}

/// What the operator's own listener serves.
pub fn operator_router(app: App) -> Router {
    finish(operator_routes(&app), app)
}

/// The routes that watch the server rather than use it. Each proves its caller, because without a
/// listener of its own it is open to whoever reaches the public one.
pub fn operator_routes(app: &App) -> Router<App> {
    let founder = Router::new()
        .route("/fdr/abuse/signals/{tenant_id}", get(protection::list_signals))
        .route("/fdr/abuse/override", post(protection::override_protection))
        .route("/fdr/caches", get(caches::list_caches))
        .route("/fdr/caches/{name}", delete(caches::clear_cache))
        .route("/fdr/clock", get(clock::get_clock))
        .route("/fdr/clock/confirm", post(clock::confirm_clock));
    guarded(founder, app).route("/metrics", get(metrics::get_metrics))
}

/// What tenants use, and what describes it to them.
fn tenant_routes(app: &App) -> Router<App> {
    let api = Router::new()
        .route("/session/context", get(session::get_session_context))
        .route("/onboarding/finalize", post(onboarding::finalize_onboarding))
        .route("/tenants", post(tenant::create_tenant).get(tenant::list_tenants))
        .route("/tenants/{id}", get(tenant::get_tenant).patch(tenant::update_tenant))
        .route("/tenants/{id}/suspend", post(tenant::suspend_tenant))
        .route("/tenants/{id}/resume", post(tenant::resume_tenant))
        .route("/tenants/{id}/terminate", post(tenant::terminate_tenant))
        .route("/tenants/{id}/archive", post(tenant::archive_tenant))
        .route("/audit", get(audit::list_audit))
        .route("/audit/export", get(audit::export_audit))
        .route("/keys", post(api_keys::create_key).get(api_keys::list_keys))
        .route("/keys/{id}", delete(api_keys::revoke_key))
        .route("/keys/{id}/rotate", post(api_keys::rotate_key))
        .route(
            "/integrations",
            get(integration::list_integrations).post(integration::create_integration),
        )
        .route(
            "/integrations/{id}",
            get(integration::get_integration)
                .put(integration::update_integration)
                .patch(integration::update_integration)
                .delete(integration::delete_integration),
        )
        .route("/integrations/{id}/enable", post(integration::enable_integration))
        .route("/integrations/{id}/disable", post(integration::disable_integration))
        .route("/integrations/{id}/health", get(integration::get_integration_health))
        .route("/integrations/{id}/limits", get(integration::get_integration_limits))
        .route(
            "/integrations/{id}/keys",
            post(integration_keys::create_integration_key)
                .get(integration_keys::list_integration_keys),
        )
        .route("/integrations/{id}/keys/{key_id}", delete(integration_keys::revoke_integration_key))
        .route(
            "/integrations/{id}/keys/{key_id}/rotate",
            post(integration_keys::rotate_integration_key),
        )
        .route("/telemetry/llm-usage", post(ingest::record_usage))
        .route("/telemetry/llm-usage/batch", post(ingest::record_usage_batch))
        .route("/telemetry/usage-summary", get(summaries::get_usage_summary))
        .route("/telemetry/usage-history", get(history::list_usage_history))
        .route("/telemetry/export", get(history::export_usage))
        .route("/telemetry/usage-series", get(series::get_usage_series))
        .route("/telemetry/usage-breakdown", get(series::get_usage_breakdown))
        .route("/telemetry/daily-aggregates", get(summaries::list_daily_aggregates))
        .route("/enforcement/check", post(checks::check_call))
        .route("/enforcement/batch", post(checks::check_calls))
        .route("/enforcement/status", get(checks::get_status))
        .route("/enforcement/decisions", get(decisions::list_decisions))
        .route(
            "/enforcement/reservations",
            post(reservations::create_reservation).get(reservations::list_reservations),
        )
        .route("/enforcement/reservations/{call_id}", delete(reservations::release_reservation))
        .route(
            "/enforcement/reservations/{call_id}/extend",
            post(reservations::extend_reservation),
        );
    Router::new()
        .nest("/api/v1", guarded(api, app))
        .route("/openapi.json", get(docs::get_openapi))
        .route("/docs", get(docs::get_docs))
        .route("/docs/style.css", get(docs::get_docs_style))
}

/// Routes whose callers the table of access knows; whatever is in them asks the database.
fn guarded(routes: Router<App>, app: &App) -> Router<App> {
    let routes = routes.route_layer(middleware::from_fn_with_state(app.clone(), guard::authorize));
    match &app.pulse {
        Some(_) => routes
            .layer(middleware::from_fn_with_state(app.clone(), database_gate::require_database)),
        None => routes,
    }
}

/// Health, and what is around every route. Health is on each listener: load balancers and whoever
/// starts the server ask where they can reach it.
fn finish(routes: Router<App>, app: App) -> Router {
    routes
        .route("/health", get(health::get_ready))
        .route("/health/live", get(health::get_live))
        .route("/health/ready", get(health::get_ready))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        // Each route bounds its own body, before and after inflation.
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
