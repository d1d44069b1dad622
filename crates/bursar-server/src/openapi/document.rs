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

/// What concerns the whole API. The routes add the rest.
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
