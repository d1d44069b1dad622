//! The character NUL, which PostgreSQL can neither store nor compare: in every text of a request it
//! is refused by field on both databases, or replaced in the labels of records.

use axum::http::Method;
use bursar_server::openapi;
use bursar_server::wire::schema::EXAMPLE_ID;
use serde_json::{Value, json};

use crate::databases;
use crate::support::{Client, conformance};

/// An operation of the OpenAPI document, with ids that exist in its path.
struct Operation {
    method: Method,
    /// Its path in the document.
    template: &'static str,
    path: String,
    parameters: Vec<&'static Value>,
    example: Option<Value>,
}

/// Every operation, with the ids of an integration and a tenant.
fn operations(integration_id: &str, tenant_id: &str) -> Vec<Operation> {
    let paths = openapi::document()["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(template, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| {
            let id = if template.contains("/tenants/") { tenant_id } else { integration_id };
            let path = template.replace("{id}", id).replace("{tenant_id}", tenant_id);
            let path = path.replace("{key_id}", id).replace("{call_id}", "call");
            let parameters = operation["parameters"].as_array().map(Vec::as_slice);
            let example = operation["requestBody"]["content"]["application/json"].get("example");
            Operation {
                method: method.to_uppercase().parse().unwrap(),
                template,
                path: path.replace("{name}", "none"),
                parameters: parameters
                    .unwrap_or_default()
                    .iter()
                    .map(conformance::follow)
                    .collect(),
                example: example.map(|example| {
                    let text = example.to_string().replace(EXAMPLE_ID, integration_id);
                    serde_json::from_str(&text).unwrap()
                }),
            }
        })
    });
    operations.collect()
}

/// For each text of a body, the body with a NUL in that text.
fn with_nul(body: &Value) -> Vec<Value> {
    match body {
        Value::String(text) => vec![json!(format!("{text}\u{0}"))],
        Value::Array(items) => {
            let of_item = |(at, item): (usize, &Value)| {
                let changed = with_nul(item).into_iter();
                changed.map(|item| with_item(items, at, item)).collect::<Vec<_>>()
            };
            items.iter().enumerate().flat_map(of_item).collect()
        }
        Value::Object(fields) => {
            let of_field = |(name, field): (&String, &Value)| {
                let changed = with_nul(field).into_iter();
                changed.map(|field| with_field(body, name, field)).collect::<Vec<_>>()
            };
            fields.iter().flat_map(of_field).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// Whether a usage record, or one of a batch, has a NUL in a label that is cleaned.
fn has_nul_in_label(body: Option<&Value>) -> bool {
    let Some(body) = body else { return false };
    let record = body.pointer("/records/0").unwrap_or(body);
    ["provider", "model"]
        .iter()
        .any(|field| record[field].as_str().is_some_and(|label| label.contains('\0')))
}

fn with_item(items: &[Value], at: usize, item: Value) -> Value {
    let mut items = items.to_vec();
    items[at] = item;
    Value::Array(items)
}

fn with_field(body: &Value, name: &str, field: Value) -> Value {
    let mut body = body.clone();
    body[name] = field;
    body
}

/// Sends a NUL in each query parameter of each operation; returns how many there are.
async fn check_queries(founder: &Client, operations: &[Operation]) -> usize {
    let mut count = 0;
    for Operation { method, path, parameters, .. } in operations {
        let queries = parameters.iter().filter(|parameter| parameter["in"] == "query");
        for name in queries.map(|parameter| parameter["name"].as_str().unwrap()) {
            for value in ["%00", "a%00b", "%00%00"] {
                let uri = format!("{path}?{name}={value}");
                let answer = founder.root(&uri).method(method.clone()).await;
                answer.refused(422, "INVALID_FIELD").on(name);
                count += 1;
            }
        }
    }
    count
}

/// Sends a NUL in each path parameter and each text of a body; returns how many there are. None may
/// fail in the database; the tests of the routes check the errors.
async fn check_paths_and_bodies(founder: &Client, operations: &[Operation]) -> usize {
    let mut count = 0;
    for Operation { method, template, path, parameters, example } in operations {
        let mut requests = Vec::new();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
            let name = parameter["name"].as_str().unwrap();
            let (before, after) = template.split_once(&format!("{{{name}}}")).unwrap();
            let rest = after.replace("{key_id}", "key");
            requests.push((format!("{before}a%00b{rest}"), example.clone()));
        }
        for body in example.iter().flat_map(with_nul) {
            requests.push((path.clone(), Some(body)));
        }
        for (uri, body) in requests {
            let request = founder.root(&uri).method(method.clone());
            let request = if let Some(body) = &body { request.json(body) } else { request };
            let answer = request.await;
            assert!(!answer.body.contains("\\u0000"), "{}", answer.body);
            // A batch is accepted for its valid records, and labels of a record are cleaned.
            let is_refused = answer.status.is_client_error() || answer.at("/data/errors") == 1;
            let is_cleaned = has_nul_in_label(body.as_ref());
            assert!(is_refused || is_cleaned, "{method} {uri} {body:?}: {}", answer.body);
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn a_nul_in_any_query_parameter_is_refused_by_field() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        let operations = operations(&id, &tenant.id);
        let count = check_queries(&tenant.founder(), &operations).await;
        assert!(count >= 3 * 40, "{count}");
    }
}

#[tokio::test]
async fn a_nul_in_any_path_or_body_is_refused_without_a_server_error() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        let operations = operations(&id, &tenant.id);
        let count = check_paths_and_bodies(&tenant.founder(), &operations).await;
        assert!(count >= 40, "{count}");
    }
}
