//! The OpenAPI document: made from the handlers and the types that they read and write.
//!
//! A handler says its path, its parameters, its body, its successes, and in `x-refuses` the
//! failures that are its own. [`finish`] adds what is true of every handler of its kind: the
//! envelope, the failures of credentials, bodies and storage, and the headers.

use std::sync::LazyLock;

use serde_json::Value;
use utoipa::OpenApi;

use crate::api::enforcement::{checks, decisions, reservations};
use crate::api::integrations::integration;
use crate::api::keys::{api_keys, integration_keys};
use crate::api::operator::{caches, clock, docs, health, metrics, protection};
use crate::api::telemetry::{history, ingest, series, summaries};
use crate::api::tenants::{audit, onboarding, session, tenant};
use crate::openapi::finish;
use crate::wire::envelope::ListMeta;
use crate::wire::error::ApiError;

/// Every handler. A route that is missing here fails a test.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bursar",
        description = "Meters, budgets and guards calls to large language models that are made \
            with keys of their customers' own.\n\n\
            Bodies are JSON of at most 256 KiB (a batch 8 MiB) and may be gzip-encoded. Fields and \
            parameters that a route does not know are refused by name, except in usage records. \
            After a 503 send the same again: call ids make every write safe to repeat.\n\n\
            A path that is not here answers 404 `ROUTE_NOT_FOUND`, a method that a path does not \
            have 405 `METHOD_NOT_ALLOWED`. Both have the envelope too. What cannot be read as \
            HTTP, or has more than 100 headers or 32 KiB of them, may be refused without it.\n\n\
            Every answer has a `traceparent` of the caller's trace, if the request had a valid \
            one, or of a new one.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "This server.")),
    tags(
        (name = "telemetry", description = "Calls that were made, and what they add up to."),
        (name = "enforcement", description = "May this call go on? Decisions and reservations."),
        (name = "integrations", description = "Providers, credentials' references and limits."),
        (name = "keys", description = "Keys of a tenant and of one integration."),
        (name = "session", description = "Who calls, and how far the tenant is set up."),
        (name = "audit", description = "Who changed what."),
        (name = "tenants", description = "Tenants, for the operator."),
        (name = "protection", description = "Too many requests of a tenant, for the operator."),
        (name = "server", description = "The server itself."),
    ),
    paths(
        tenant::create_tenant,
        tenant::list_tenants,
        tenant::get_tenant,
        tenant::update_tenant,
        tenant::suspend_tenant,
        tenant::resume_tenant,
        tenant::terminate_tenant,
        tenant::archive_tenant,
        session::get_session_context,
        onboarding::finalize_onboarding,
        audit::list_audit,
        audit::export_audit,
        api_keys::create_key,
        api_keys::list_keys,
        api_keys::revoke_key,
        api_keys::rotate_key,
        integration::list_integrations,
        integration::create_integration,
        integration::get_integration,
        integration::update_integration,
        integration::delete_integration,
        integration::enable_integration,
        integration::disable_integration,
        integration::get_integration_health,
        integration::get_integration_limits,
        integration_keys::create_integration_key,
        integration_keys::list_integration_keys,
        integration_keys::revoke_integration_key,
        integration_keys::rotate_integration_key,
        ingest::record_usage,
        ingest::record_usage_batch,
        summaries::get_usage_summary,
        summaries::list_daily_aggregates,
        history::list_usage_history,
        history::export_usage,
        series::get_usage_series,
        series::get_usage_breakdown,
        checks::check_call,
        checks::check_calls,
        checks::get_status,
        decisions::list_decisions,
        reservations::create_reservation,
        reservations::list_reservations,
        reservations::release_reservation,
        reservations::extend_reservation,
        protection::list_signals,
        protection::override_protection,
        caches::list_caches,
        caches::clear_cache,
        clock::get_clock,
        clock::confirm_clock,
        health::get_ready,
        health::get_live,
        metrics::get_metrics,
        docs::get_openapi,
        docs::get_docs,
        docs::get_docs_style,
    ),
    components(schemas(ApiError, ListMeta)),
)]
struct Handlers;

/// The document.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let handlers = serde_json::to_value(Handlers::openapi());
        // The types of the document are always written as JSON.
        handlers.map(finish::finish).unwrap_or_default()
    });
    &DOCUMENT
}
