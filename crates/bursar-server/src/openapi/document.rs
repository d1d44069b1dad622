//! The OpenAPI document, generated from the handlers and their types.
//!
//! A handler declares its path, parameters, body and successes, and in `x-refuses` its own
//! failures. [`finish`] adds what is common to all handlers of a kind: the envelope, failures of
//! credentials, bodies and storage, and headers.

use std::sync::LazyLock;

use serde_json::Value;
use utoipa::OpenApi;

use crate::openapi::finish;
use crate::router::API;
use crate::wire::envelope::ListMeta;
use crate::wire::error::ApiError;

/// The parts of the document that concern the whole API. The routes add the rest.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bursar",
        description = "Meters and budgets calls to large language models that software makes with \
            the keys of its customers.\n\n\
            Bodies are JSON of at most 256 KiB (a batch 8 MiB) and may be gzip-encoded. Fields and \
            parameters that a route does not know are refused by name, except in usage records. \
            After a 503, send the request again: call ids make every write safe to repeat.\n\n\
            An unknown path gets 404 `ROUTE_NOT_FOUND`, and an unsupported method gets 405 \
            `METHOD_NOT_ALLOWED`, both in the envelope. A request that is not valid HTTP, or has \
            more than 100 headers or 32 KiB of them, may be refused without the envelope.\n\n\
            Every response has a `traceparent`: of the caller's trace if the request had a valid \
            one, otherwise of a new trace.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "This server.")),
    tags(
        (name = "telemetry", description = "Usage records and their totals."),
        (name = "enforcement", description = "Decisions about calls, and reservations."),
        (name = "integrations", description = "Providers, references to credentials, and limits."),
        (name = "keys", description = "API keys and integration keys."),
        (name = "session", description = "The caller, and the onboarding of its tenant."),
        (name = "audit", description = "The audit log."),
        (name = "tenants", description = "Tenants. For the operator."),
        (name = "protection", description = "Protection from floods. For the operator."),
        (name = "server", description = "Health, metrics, documentation, caches and the clock."),
    ),
    components(schemas(ApiError, ListMeta)),
)]
struct ApiDocument;

pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let mut whole = ApiDocument::openapi();
        API.describe(&mut whole);
        // The types of the document always serialize.
        let described = serde_json::to_value(whole).unwrap_or_default();
        finish::finish(described, API.table())
    });
    &DOCUMENT
}
