//! Whether what came back, and what was taken, is what the OpenAPI document says.
//!
//! Every answer of every test passes here. Answers are held to more than the document promises to
//! clients: a field that is not documented fails, or new fields would go undocumented.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use axum::http::{HeaderMap, Method, StatusCode};
use bursar_server::openapi;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The document, its answers closed against fields that it does not know.
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

/// What a reference leads to, or the value itself.
pub(crate) fn follow(value: &'static Value) -> &'static Value {
    let reference = value["$ref"].as_str().unwrap_or("#");
    let pointer = reference.trim_start_matches('#');
    if pointer.is_empty() { value } else { openapi::document().pointer(pointer).unwrap() }
}

/// The schemas that were compiled, by their place in the document.
static COMPILED: LazyLock<Mutex<HashMap<String, &'static Validator>>> =
    LazyLock::new(Mutex::default);

/// Claims that an answer is one that the document gives to this request.
#[track_caller]
pub(crate) fn check_answer(
    (method, uri): (&Method, &str),
    status: StatusCode,
    headers: &HeaderMap,
    body: &str,
) {
    let path = uri.split('?').next().unwrap_or_default();
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    let asked = format!("{method} {path} -> {status}");
    // A route may be on the other listener.
    let is_elsewhere = status == 404 && body.contains("\"ROUTE_NOT_FOUND\"");
    let found = operation(&method, path).filter(|_| !is_elsewhere);
    let Some((template, operation)) = found else {
        let is_refused = matches!(status.as_u16(), 404 | 405 | 414 | 431);
        assert!(is_refused, "{asked}: the document has no such route");
        return;
    };
    let response = follow(&operation["responses"][status.as_str()]);
    assert!(response.is_object(), "{asked}: {template} has no such answer\n{body}");
    for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
        let is_optional = name.starts_with("RateLimit") || (name == "Retry-After" && status != 503);
        assert!(is_optional || headers.contains_key(name), "{asked}: lacks {name}");
    }
    let sent = headers.get("content-type").map(|value| value.to_str().unwrap());
    let sent = sent.map(|sent| sent.split(';').next().unwrap_or_default());
    let documented = response["content"].as_object().cloned().unwrap_or_else(Map::new);
    match sent {
        Some(sent) => assert!(documented.contains_key(sent), "{asked}: {sent}"),
        None => assert!(documented.is_empty(), "{asked} has no content"),
    }
    if sent == Some("application/json") && !body.is_empty() {
        let place = format!("{method} {template} {status}");
        let mut schema = response["content"]["application/json"]["schema"].clone();
        close(&mut schema);
        let value = serde_json::from_str(body).unwrap();
        check(&place, &schema, &STRICT, &value);
    }
}

/// Claims that a body that a route took is one that the document lets a client send.
#[track_caller]
pub(crate) fn check_request(method: &str, path: &str, body: &str) {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let path = path.split('?').next().unwrap_or_default();
    let Some((template, operation)) = operation(&method, path) else { return };
    let body_of = &operation["requestBody"];
    if body.trim().is_empty() {
        assert_ne!(body_of["required"], true, "{method} {template} needs a body");
    } else if body_of.is_object()
        // What nests too deeply to be read here is told by no schema.
        && let Ok(value) = serde_json::from_str(body)
    {
        let place = format!("{method} {template} body");
        let schema = &body_of["content"]["application/json"]["schema"];
        check(&place, schema, &openapi::document()["components"]["schemas"], &value);
    }
}

/// The operation that answers a request, with its path.
fn operation(method: &Method, path: &str) -> Option<(&'static str, &'static Value)> {
    let method = method.as_str().to_lowercase();
    let paths = openapi::document()["paths"].as_object()?;
    let fits = |template: &str| {
        let (own, asked) = (template.split('/'), path.split('/'));
        own.clone().count() == asked.clone().count()
            && own
                .zip(asked)
                .all(|(own, asked)| own == asked || (own.starts_with('{') && !asked.is_empty()))
    };
    // A path of fixed words goes before one with parameters.
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
