//! Adds to the OpenAPI document what is common to all handlers of a kind.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::api::route::{Audience, RouteTable};
use crate::auth::access::Access;
use crate::wire::error_code::ErrorCode;

type Object = Map<String, Value>;

/// Operations to rename, because one handler serves two methods.
const RENAMED: &[(&str, &str, &str)] = &[("put", "/api/v1/integrations/{id}", "put_integration")];

/// Types that are only parts of others. [`flatten`] merges them.
const PARTS: &[&str] = &["ListMeta", "GroupView"];

/// Completes the generated document.
pub(super) fn finish(mut document: Value, table: &RouteTable) -> Value {
    let mut failures = Map::new();
    if let Some(paths) = object_at(&mut document, "/paths") {
        for (path, item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                if let Some(operation) = operation.as_object_mut() {
                    finish_operation(
                        (path, method),
                        audience(table, method, path),
                        operation,
                        &mut failures,
                    );
                }
            }
        }
    }
    if let Some(components) = object_at(&mut document, "/components") {
        finish_components(components);
        components.insert("responses".to_owned(), failures.into());
    }
    document
}

fn object_at<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Object> {
    value.pointer_mut(pointer).and_then(Value::as_object_mut)
}

/// Whether responses use the envelope. Documents and pages do not.
pub(super) fn is_enveloped(path: &str) -> bool {
    ["/api/", "/fdr/", "/health"].iter().any(|start| path.starts_with(start))
}

fn finish_operation(
    (path, method): (&str, &str),
    audience: Audience,
    operation: &mut Object,
    failures: &mut Object,
) {
    let renamed = RENAMED.iter().find(|renamed| (renamed.0, renamed.1) == (method, path));
    if let Some((.., name)) = renamed {
        operation.insert("operationId".to_owned(), json!(name));
    }
    let mut refusals = refusals(audience, operation);
    if waits_for_the_clock(audience, method, path) {
        add(&mut refusals, ErrorCode::ClockJumped);
    }
    let takes = |name| parameters(operation).any(|parameter| is(parameter, "name", name));
    let (is_limited, goes_on) = (takes("limit"), takes("cursor"));
    finish_security(audience, operation);
    finish_parameters(audience, operation);
    finish_body(operation);
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
        return;
    };
    for response in responses.values_mut() {
        if is_enveloped(path)
            && let Some(content) = object_at(response, "/content/application~1json")
        {
            let data = content.remove("schema").unwrap_or_default();
            // Otherwise the limit applies to a list within a response that sums up the rest.
            let is_paged = is_limited && (goes_on || is(&data, "type", "array"));
            content.insert("schema".to_owned(), success(&data, is_paged));
        }
    }
    for (status, codes) in refusals {
        let reference = format!("#/components/responses/{}", failure_name(&codes));
        responses.insert(status.to_string(), json!({ "$ref": reference }));
        failures.insert(failure_name(&codes), failure(status, &codes));
    }
    let own = |response: &&mut Object| !response.contains_key("$ref");
    for response in responses.values_mut().filter_map(Value::as_object_mut).filter(own) {
        let headers = response.entry("headers").or_insert_with(|| json!({}));
        if let Some(headers) = headers.as_object_mut() {
            headers.extend(headers_of_all());
        }
    }
}

fn is(object: &Value, field: &str, text: &str) -> bool {
    object.get(field).and_then(Value::as_str) == Some(text)
}

fn parameters(operation: &Object) -> impl Iterator<Item = &Value> {
    operation.get("parameters").and_then(Value::as_array).into_iter().flatten()
}

/// Who may use an operation, as its route declares.
fn audience(table: &RouteTable, method: &str, path: &str) -> Audience {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok();
    let entry = method.and_then(|method| table.find(&method, path));
    entry.map_or(Audience::Everyone, |entry| entry.audience)
}

/// All failures of a route by status.
fn refusals(audience: Audience, operation: &mut Object) -> BTreeMap<u16, Vec<ErrorCode>> {
    use ErrorCode::*;
    let own = operation.remove("x-refuses").unwrap_or_default();
    let own: BTreeSet<&str> =
        own.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut codes: Vec<ErrorCode> =
        ErrorCode::ALL.iter().copied().filter(|code| own.contains(code.as_str())).collect();
    codes.extend([BadRequest, UriTooLong, HeadersTooLarge]);
    let of_tenants = [BadRequest, TenantMismatch, TenantTerminated, TenantNotFound];
    match audience {
        Audience::Everyone => {}
        Audience::Scraper | Audience::Caller(Access::Operator) => codes.push(Forbidden),
        Audience::Caller(Access::AnyCaller) => {
            codes.extend(of_tenants);
            codes.extend([RateLimited, Throttled]);
        }
        Audience::Caller(Access::Tenant { scope, .. }) => {
            codes.extend(of_tenants);
            codes.extend([TenantRequired, Forbidden, MissingScope]);
            codes.extend([RateLimited, Throttled]);
            codes.retain(|code| scope.is_some() || *code != MissingScope);
        }
    }
    match audience {
        Audience::Everyone => {}
        Audience::Scraper | Audience::Caller(_) => {
            codes.extend([AmbiguousCredentials, Unauthenticated]);
            codes.extend([Internal, Overloaded, Unavailable]);
        }
    }
    for parameter in parameters(operation) {
        if is(parameter, "in", "path") {
            codes.push(BadRequest);
        }
        if is(parameter, "in", "query") {
            codes.extend([BadRequest, InvalidField, UnknownField, ReadTooLarge]);
        }
    }
    if operation.contains_key("requestBody") {
        let of_bodies = [BadRequest, InvalidJson, BodyTooLarge, UnsupportedMediaType];
        codes.extend(of_bodies);
        codes.extend([InvalidField, RequestTimeout]);
    }
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in ErrorCode::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status
}

/// Whether a route writes or decides, which is refused while the clock is in doubt.
fn waits_for_the_clock(audience: Audience, method: &str, path: &str) -> bool {
    matches!(audience, Audience::Caller(_)) && method != "get" && path != "/fdr/clock/confirm"
}

/// Adds a failure to its status, in the order of all codes.
fn add(refusals: &mut BTreeMap<u16, Vec<ErrorCode>>, code: ErrorCode) {
    let codes = refusals.entry(code.status().as_u16()).or_default();
    codes.push(code);
    codes.sort_by_key(|code| ErrorCode::ALL.iter().position(|known| known == code));
}

/// The envelope of a success.
fn success(data: &Value, is_paged: bool) -> Value {
    let meta = if is_paged { "PageMeta" } else { "Meta" };
    json!({
        "type": "object",
        "required": ["success", "data", "meta"],
        "properties": {
            "success": { "const": true },
            "data": data,
            "meta": { "$ref": format!("#/components/schemas/{meta}") },
        },
    })
}

/// The headers of every response.
fn headers_of_all() -> impl Iterator<Item = (String, Value)> {
    ["X-Request-ID", "traceparent"].into_iter().map(|name| (name.to_owned(), header(name)))
}

fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// Routes with equal failures share a component, which is named after the codes.
fn failure_name(codes: &[ErrorCode]) -> String {
    let words: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    words.join(".")
}

/// The response of a failure: the envelope with its possible codes.
fn failure(status: u16, codes: &[ErrorCode]) -> Value {
    let meaning = |code: &ErrorCode| format!("`{}`: {}", code.as_str(), code.meaning());
    let meanings: Vec<String> = codes.iter().map(meaning).collect();
    let mut headers: Object = headers_of_all().collect();
    let also = match status {
        401 => Some("WWW-Authenticate"),
        429 | 503 => Some("Retry-After"),
        _ => None,
    };
    headers.extend(also.map(|name| (name.to_owned(), header(name))));
    let words: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let narrowed =
        json!({ "properties": { "error": { "properties": { "code": { "enum": words } } } } });
    let schema = json!({ "allOf": [{ "$ref": "#/components/schemas/Failure" }, narrowed] });
    json!({
        "description": meanings.join("\n\n"),
        "headers": headers,
        "content": { "application/json": { "schema": schema } },
    })
}

fn finish_security(audience: Audience, operation: &mut Object) {
    let operator = json!({ "operator": [] });
    let keys = |scope: &[&str]| ["api_key", "api_key_header"].map(|name| json!({ name: scope }));
    let (integration_key, person) = (json!({ "integration_key": [] }), json!({ "person": [] }));
    let (security, sentence) = match audience {
        Audience::Everyone => (vec![json!({})], "No credential is required.".to_owned()),
        Audience::Scraper => (
            vec![operator, json!({ "metrics_token": [] })],
            "Requires the operator's token or the `metrics_token`.".to_owned(),
        ),
        Audience::Caller(Access::Operator) => {
            (vec![operator], "Requires the operator's token.".to_owned())
        }
        Audience::Caller(Access::AnyCaller) => {
            let [bearer, header] = keys(&[]);
            let all = vec![bearer, header, integration_key, person, operator];
            (all, "Requires any valid credential.".to_owned())
        }
        Audience::Caller(Access::Tenant { scope, integration_key: by_its_key, role }) => {
            let mut security: Vec<Value> = scope.iter().flat_map(|scope| keys(&[*scope])).collect();
            security.extend([operator, person]);
            let mut sentence = match scope {
                Some(scope) => {
                    format!("Requires the scope `{scope}` or the role `{}`.", role.as_str())
                }
                None => {
                    format!("Requires the role `{}`. API keys are not accepted.", role.as_str())
                }
            };
            if by_its_key {
                security.push(integration_key);
                sentence.push_str(" An integration key is accepted for its own integration.");
            }
            (security, sentence)
        }
    };
    operation.insert("security".to_owned(), security.into());
    let said = operation.get("description").and_then(Value::as_str);
    let said = said.map(|said| format!("{said}\n\n{sentence}")).unwrap_or(sentence);
    operation.insert("description".to_owned(), json!(said));
}

fn finish_parameters(audience: Audience, operation: &mut Object) {
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    let Some(parameters) = parameters.as_array_mut() else { return };
    for parameter in parameters.iter_mut().filter(|parameter| is(parameter, "in", "query")) {
        // An HTML form sends empty fields, which count as absent.
        if let Some(parameter) = parameter.as_object_mut() {
            parameter.insert("allowEmptyValue".to_owned(), json!(true));
        }
    }
    match audience {
        Audience::Everyone | Audience::Scraper | Audience::Caller(Access::Operator) => {}
        Audience::Caller(Access::AnyCaller | Access::Tenant { .. }) => {
            parameters.push(json!({ "$ref": "#/components/parameters/X-Tenant-ID" }));
        }
    }
    parameters.push(json!({ "$ref": "#/components/parameters/X-Request-ID" }));
}

/// An optional body is an `Option` in the handler. That does not mean it may be null.
fn finish_body(operation: &mut Object) {
    let Some(body) = operation.get_mut("requestBody") else { return };
    let schema = body.pointer("/content/application~1json/schema/oneOf");
    let of_option = schema.and_then(Value::as_array);
    let inner = of_option.and_then(|some| some.iter().find(|one| one.get("$ref").is_some()));
    let inner = inner.cloned();
    let is_optional = inner.is_some();
    if let (Some(inner), Some(content)) = (inner, object_at(body, "/content/application~1json")) {
        content.insert("schema".to_owned(), inner);
    }
    if let Some(body) = body.as_object_mut() {
        body.insert("required".to_owned(), json!(!is_optional));
    }
}

fn finish_components(components: &mut Object) {
    let schemas = components.entry("schemas").or_insert_with(|| json!({}));
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.insert("Meta".to_owned(), meta());
        let both = [
            json!({ "$ref": "#/components/schemas/Meta" }),
            json!({ "$ref": "#/components/schemas/ListMeta" }),
        ];
        let page = json!({ "description": "The metadata of a list.", "allOf": both });
        schemas.insert("PageMeta".to_owned(), page);
        schemas.insert("Failure".to_owned(), envelope_of_failures());
        flatten(schemas);
        for part in PARTS {
            schemas.remove(*part);
        }
    }
    components.insert("securitySchemes".to_owned(), security_schemes());
    let request_id = json!({
        "description": "The id of the request, also in `meta`.",
        "required": true,
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$" },
    });
    let trace = json!({
        "description": "The trace of the request and the server's span in it (W3C Trace Context).",
        "required": true,
        "schema": { "type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$" },
    });
    let seconds = json!({
        "description": "Seconds to wait before the next attempt.",
        "required": true,
        "schema": { "type": "integer", "minimum": 0 },
    });
    let scheme = json!({
        "description": "The scheme of the required credential.",
        "required": true,
        "schema": { "const": "Bearer" },
    });
    let headers = json!({
        "X-Request-ID": request_id,
        "traceparent": trace,
        "Retry-After": seconds,
        "WWW-Authenticate": scheme,
    });
    components.insert("headers".to_owned(), headers);
    let tenant = json!({
        "name": "X-Tenant-ID",
        "in": "header",
        "description": "The tenant. Only the operator must send it.",
        "schema": { "$ref": "#/components/schemas/Id" },
    });
    let request_id = json!({
        "name": "X-Request-ID",
        "in": "header",
        "description": "The id of the request: 1 to 128 of A-Z a-z 0-9 - _ . : or else replaced.",
        "schema": { "type": "string" },
    });
    let parameters = json!({ "X-Tenant-ID": tenant, "X-Request-ID": request_id });
    components.insert("parameters".to_owned(), parameters);
}

fn meta() -> Value {
    json!({
        "description": "The metadata of a response.",
        "type": "object",
        "required": ["timestamp", "request_id"],
        "properties": {
            "timestamp": { "$ref": "#/components/schemas/Instant" },
            "request_id": { "type": "string", "maxLength": 128 },
        },
    })
}

fn envelope_of_failures() -> Value {
    json!({
        "description": "The envelope of an error.",
        "type": "object",
        "required": ["success", "data", "error", "meta"],
        "properties": {
            "success": { "const": false },
            "data": { "type": "null" },
            "error": { "$ref": "#/components/schemas/ApiError" },
            "meta": { "$ref": "#/components/schemas/Meta" },
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "operator": {
            "type": "http",
            "scheme": "bearer",
            "description": "The operator's token. `X-Tenant-ID` names the tenant.",
        },
        "api_key": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "bur_...",
            "description": "An API key of a tenant, with scopes.",
        },
        "api_key_header": {
            "type": "apiKey",
            "in": "header",
            "name": "X-AOS-Key",
            "description": "An API key in its own header.",
        },
        "person": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A person's token from a configured issuer.",
        },
        "metrics_token": {
            "type": "http",
            "scheme": "bearer",
            "description": "The token of the setting `metrics_token`, for the metrics only.",
        },
        "integration_key": {
            "type": "apiKey",
            "in": "header",
            "name": "X-CUS-Integration-Key",
            "description": "A key of one integration.",
        },
    })
}

/// Merges types that consist of several into one object, which is easier to read.
fn flatten(schemas: &mut Object) {
    let parts = |schema: &Value| schema.get("allOf").and_then(Value::as_array).cloned();
    let composed: Vec<(String, Vec<Value>)> =
        schemas.iter().filter_map(|(name, schema)| Some((name.clone(), parts(schema)?))).collect();
    for (name, parts) in composed {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for part in &parts {
            let named = part.get("$ref").and_then(Value::as_str);
            let named = named.and_then(|reference| reference.rsplit('/').next());
            let part = named.and_then(|name| schemas.get(name)).unwrap_or(part);
            let fields = part.get("properties").and_then(Value::as_object).cloned();
            properties.extend(fields.unwrap_or_default());
            required.extend(
                part.get("required").and_then(Value::as_array).into_iter().flatten().cloned(),
            );
        }
        if let Some(schema) = schemas.get_mut(&name).and_then(Value::as_object_mut) {
            schema.remove("allOf");
            schema.insert("type".to_owned(), json!("object"));
            schema.insert("properties".to_owned(), properties.into());
            schema.insert("required".to_owned(), required.into());
        }
    }
}
