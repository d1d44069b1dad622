//! Checks every request and response of the tests against the OpenAPI document.
//!
//! Responses are checked more strictly than the document promises to clients: a field that is not
//! documented fails, so that every new field gets documented.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use axum::http::{HeaderMap, Method, StatusCode};
use bursar_server::openapi;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The schemas of the document, with unknown fields forbidden.
static STRICT: LazyLock<Value> = LazyLock::new(|| {
    let mut components = openapi::document()["components"]["schemas"].clone();
    for schema in components.as_object_mut().unwrap().values_mut() {
        close(schema);
    }
    components
});

fn close(schema: &mut Value) {
    if schema["properties"].is_object() {
        schema["additionalProperties"] = false.into();
    }
}

/// The target of a reference, or the value itself.
pub(crate) fn follow(value: &'static Value) -> &'static Value {
    let reference = value["$ref"].as_str().unwrap_or("#");
    let pointer = reference.trim_start_matches('#');
    if pointer.is_empty() { value } else { openapi::document().pointer(pointer).unwrap() }
}

/// Compiled schemas by their place in the document.
static COMPILED: LazyLock<Mutex<HashMap<String, &'static Validator>>> =
    LazyLock::new(Mutex::default);

/// Asserts that the document has this response to this request.
#[track_caller]
pub(crate) fn check_response(
    (method, uri): (&Method, &str),
    status: StatusCode,
    headers: &HeaderMap,
    body: &str,
) {
    let path = uri.split('?').next().unwrap_or_default();
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    let request = format!("{method} {path} -> {status}");
    // The route may be on the other listener.
    let is_elsewhere = status == 404 && body.contains("\"ROUTE_NOT_FOUND\"");
    let found = operation(&method, path).filter(|_| !is_elsewhere);
    let Some((template, operation)) = found else {
        let is_refused = matches!(status.as_u16(), 404 | 405 | 414 | 431);
        assert!(is_refused, "{request}: the document has no such route");
        return;
    };
    let response = follow(&operation["responses"][status.as_str()]);
    assert!(response.is_object(), "{request}: {template} has no such response\n{body}");
    for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
        let is_optional = name.starts_with("RateLimit") || (name == "Retry-After" && status != 503);
        assert!(is_optional || headers.contains_key(name), "{request}: lacks {name}");
    }
    let sent = headers.get("content-type").map(|value| value.to_str().unwrap());
    let sent = sent.map(|sent| sent.split(';').next().unwrap_or_default());
    let documented = response["content"].as_object().cloned().unwrap_or_else(Map::new);
    match sent {
        Some(sent) => assert!(documented.contains_key(sent), "{request}: {sent}"),
        None => assert!(documented.is_empty(), "{request} has no content"),
    }
    if sent == Some("application/json") && !body.is_empty() {
        let place = format!("{method} {template} {status}");
        let mut schema = response["content"]["application/json"]["schema"].clone();
        close(&mut schema);
        let value = serde_json::from_str(body).unwrap();
        check(&place, &schema, &STRICT, &value);
    }
}

/// Asserts that the document allows a body that the server accepted.
#[track_caller]
pub(crate) fn check_request(method: &str, path: &str, body: &str) {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let path = path.split('?').next().unwrap_or_default();
    let Some((template, operation)) = operation(&method, path) else { return };
    let body_of = &operation["requestBody"];
    if body.trim().is_empty() {
        assert_ne!(body_of["required"], true, "{method} {template} needs a body");
    } else if body_of.is_object()
        // `serde_json` cannot parse deeply nested JSON.
        && let Ok(value) = serde_json::from_str(body)
    {
        let place = format!("{method} {template} body");
        let schema = &body_of["content"]["application/json"]["schema"];
        check(&place, schema, &openapi::document()["components"]["schemas"], &value);
    }
}

/// The operation of a request, with the template of its path.
fn operation(method: &Method, path: &str) -> Option<(&'static str, &'static Value)> {
    let method = method.as_str().to_lowercase();
    let paths = openapi::document()["paths"].as_object()?;
    let fits = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template
                .zip(path)
                .all(|(part, given)| part == given || (part.starts_with('{') && !given.is_empty()))
    };
    // A literal path takes precedence over one with parameters.
    let exact = paths.get_key_value(path);
    let (template, item) = exact.or_else(|| paths.iter().find(|(template, _)| fits(template)))?;
    Some((template, item.get(&method)?))
}

#[track_caller]
fn check(place: &str, schema: &Value, schemas: &Value, value: &Value) {
    let validator = *COMPILED.lock().unwrap().entry(place.to_owned()).or_insert_with(|| {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": { "schemas": schemas },
        });
        let options = jsonschema::options().should_validate_formats(true);
        Box::leak(Box::new(options.build(&whole).unwrap()))
    });
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{place} is not as documented:\n{}\n{value}", wrong.join("\n"));
}
