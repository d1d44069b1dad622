//! The OpenAPI document: generated from the handlers, complete, valid and committed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use axum::http::Method;
use bursar_server::openapi;
use bursar_server::wire::schema::EXAMPLE_ID;
use serde_json::{Value, json};

use crate::support::{TestApp, conformance};
use crate::tenancy;

/// The methods and paths of the document.
fn documented() -> BTreeSet<(String, String)> {
    let paths = openapi::document()["paths"].as_object().unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            documented.insert((method.clone(), path.clone()));
        }
    }
    documented
}

fn operations() -> impl Iterator<Item = (&'static String, &'static String, &'static Value)> {
    let paths = openapi::document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
    })
}

#[test]
fn the_committed_document_matches_the_handlers() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../openapi.json");
    let text = format!("{:#}\n", openapi::document());
    if std::env::var_os("BURSAR_WRITE_OPENAPI").is_some_and(|value| value == "1") {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "openapi.json is not what the handlers say; write it with \
         BURSAR_WRITE_OPENAPI=1 cargo test -p bursar-server --test http committed_document"
    );
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    assert_eq!(documented(), tenancy::all_routes());
}

#[test]
fn every_operation_says_who_may_use_it_as_the_tenancy_table_does() {
    for (path, method, operation) in operations() {
        assert_eq!(
            operation["security"],
            tenancy::security(method, path),
            "{method} {path} and the table disagree"
        );
    }
}

#[test]
fn every_operation_has_a_unique_id_and_descriptions() {
    let mut names = BTreeSet::new();
    for (path, method, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap_or_default();
        assert!(!name.is_empty() && names.insert(name), "{method} {path}: {name}");
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(!summary.is_empty() && !summary.ends_with('.'), "{method} {path}: {summary}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let described =
                conformance::follow(response)["description"].as_str().unwrap_or_default();
            assert!(!described.is_empty(), "{method} {path} {status}");
        }
        assert!(operation.get("x-refuses").is_none(), "{method} {path}");
    }
}

#[test]
fn every_reference_resolves_and_every_component_is_used() {
    let mut references = BTreeSet::new();
    collect_references(openapi::document(), &mut references);
    for reference in &references {
        let pointer = reference.trim_start_matches('#');
        assert!(openapi::document().pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "responses", "headers", "parameters"] {
        for name in openapi::document()["components"][kind].as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(references.contains(&reference), "{reference} is unused");
        }
    }
}

fn collect_references(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                references.insert(reference.clone());
            }
            fields.values().for_each(|field| collect_references(field, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_example_matches_its_schema() {
    let mut examples = 0;
    for (path, method, operation) in operations() {
        let content = &operation["requestBody"]["content"]["application/json"];
        if let Some(example) = content.get("example") {
            conformance::check_request(method, path, &example.to_string());
            examples += 1;
        } else {
            assert!(operation.get("requestBody").is_none(), "{method} {path} has no example");
        }
    }
    assert!(examples >= 10, "{examples}");
}

#[tokio::test]
async fn the_examples_of_enforcement_and_telemetry_work() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({ "budget_limit_cents": 10_000 })).await;
    for path in [
        "/enforcement/check",
        "/enforcement/batch",
        "/enforcement/reservations",
        "/telemetry/llm-usage",
        "/telemetry/llm-usage/batch",
    ] {
        let operation = &openapi::document()["paths"][format!("/api/v1{path}")]["post"];
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        let body = example.to_string().replace(EXAMPLE_ID, &id);
        let answer = tenant.founder().post(path).body(body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.body);
        assert!(answer.at("/data/errors").as_u64().unwrap_or(0) == 0, "{path}: {}", answer.body);
    }
}

#[test]
fn docs_api_lists_the_same_routes() {
    let page = include_str!("../../../../docs/api.md");
    for (path, method, _) in operations() {
        let shown = path.strip_prefix("/api/v1").unwrap_or(path);
        let route = format!("`{} {shown}`", method.to_uppercase());
        assert!(page.contains(&route), "docs/api.md does not name {route}");
    }
    for code in page.split('`').skip(1).step_by(2) {
        let Some((method, path)) = code.split_once(' ') else { continue };
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            continue;
        }
        let known = |prefix: &str| {
            let path = format!("{prefix}{path}");
            documented().contains(&(method.to_lowercase(), path))
        };
        assert!(known("") || known("/api/v1"), "docs/api.md names {code}, which is no route");
    }
}

#[tokio::test]
async fn the_document_is_public_and_cacheable() {
    let app = TestApp::new();
    let answer = app.anonymous().root("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), *openapi::document());
    for path in ["/openapi.json", "/docs", "/docs/style.css"] {
        let first = app.anonymous().root(path).await;
        assert_eq!(first.status, 200);
        let etag = first.headers["etag"].to_str().unwrap();
        let again = app.anonymous().root(path).header("if-none-match", etag).await;
        assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""), "{path}");
        let other = app.anonymous().root(path).header("if-none-match", "\"other\"").await;
        assert_eq!(other.status, 200, "{path}");
        let head = app.anonymous().root(path).method(Method::HEAD).await;
        assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.headers["content-length"], first.body.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn the_document_is_not_on_the_operators_listener() {
    let app = TestApp::new();
    for path in ["/openapi.json", "/docs", "/docs/style.css"] {
        app.anonymous_at_operator_listener().root(path).await.refused(404, "ROUTE_NOT_FOUND");
    }
}

#[tokio::test]
async fn the_page_needs_no_other_host_and_no_script() {
    let page = TestApp::new().anonymous().root("/docs").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains("script"), "{policy}");
    assert!(!page.body.contains("<script") && !page.body.contains(" style="), "{}", page.body);
    for attribute in ["src=\"", "href=\"", "action=\"", "url("] {
        for target in page.body.split(attribute).skip(1) {
            let is_own =
                target.starts_with('#') || target.starts_with('/') && !target.starts_with("//");
            assert!(is_own, "{attribute}{}", target.split('"').next().unwrap_or_default());
        }
    }
    for (_, _, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap();
        assert!(page.body.contains(&format!("id=\"{name}\"")), "{name} is not on the page");
    }
}
