//! All of the history as a file.

use serde_json::{Value, json};

use crate::support::{Tenant, TestApp, record, with};

/// As many records as make an export read more than one page, in batches.
async fn record_many(tenant: &Tenant, count: usize) -> String {
    let id = tenant.integration("i", json!({})).await;
    for batch in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let of_call = |at: &usize| {
            let more = json!({
                "occurred_at": "2026-03-14T08:00:00Z",
                "model": if at.is_multiple_of(2) { "even" } else { "odd" },
            });
            with(record(&id, &format!("call-{at}")), more)
        };
        let records: Vec<Value> = batch.iter().map(of_call).collect();
        let batch = json!({ "records": records });
        tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await.is(200);
    }
    id
}

#[tokio::test]
async fn a_line_of_json_is_what_the_history_shows() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let odd = json!({
        "session_id": "with \"quotes\", commas",
        "error_code": "E",
        "error_message": "two\nlines",
        "metadata": { "a": [1, { "b": null }] },
        "latency_ms": 7,
    });
    let founder = tenant.founder();
    founder.post("/telemetry/llm-usage").json(&with(record(&id, "c"), odd)).await.is(201);
    founder.post("/telemetry/llm-usage").json(&record(&id, "d")).await.is(201);
    let key = tenant.key(&["telemetry:read"]).await;
    let history = key.get("/telemetry/usage-history").await;
    let export = key.get("/telemetry/export?format=ndjson").await;
    assert_eq!(export.status, 200);
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    let disposition = &export.headers["content-disposition"];
    assert_eq!(disposition, "attachment; filename=\"usage.ndjson\"");
    assert_eq!(export.headers["cache-control"], "no-store");
    assert!(export.headers.contains_key("x-request-id"));
    let lines: Vec<Value> =
        export.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&Value::from(lines), history.is(200).data());
}

#[tokio::test]
async fn a_csv_file_has_the_same_fields() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let odd = json!({ "session_id": "a \"b\", c", "error_message": "two\nlines" });
    let founder = tenant.founder();
    founder.post("/telemetry/llm-usage").json(&with(record(&id, "c"), odd)).await.is(201);
    let history = founder.get("/telemetry/usage-history").await;
    let export = founder.get("/telemetry/export").await;
    assert_eq!(export.status, 200);
    assert_eq!(export.headers["content-type"], "text/csv; charset=utf-8");
    let mut reader = csv::Reader::from_reader(export.body.as_bytes());
    let row = history.at("/data/0").as_object().unwrap();
    let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let mut names: Vec<&String> = row.keys().collect();
    let mut sorted: Vec<&String> = columns.iter().collect();
    names.sort();
    sorted.sort();
    assert_eq!(sorted, names);
    let record = reader.records().next().unwrap().unwrap();
    for (name, found) in columns.iter().zip(&record) {
        let shown = match &row[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                row[name].to_string()
            }
        };
        assert_eq!(found, shown, "{name}");
    }
    assert_eq!(reader.records().count(), 0);
}

#[tokio::test]
async fn a_csv_file_has_no_formula_and_no_terminal_escape_that_a_client_wrote() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.integration_key(&id).await;
    let texts = json!({
        "session_id": "=HYPERLINK(\"https://evil.example\",\"x\")",
        "agent_id": "@SUM(1+1)",
        "provider": "+1",
        "model": "＝1+1",
        "error_code": "\t=1",
        "error_message": "\u{1b}]0;owned\u{7}\u{9b}2J",
        "metadata": { "a": "\u{9b};=1" },
        "cost_cents": 7,
    });
    key.post("/telemetry/llm-usage").json(&with(record(&id, "-2+3"), texts)).await.is(201);
    let export = tenant.founder().get("/telemetry/export").await;
    let mut reader = csv::Reader::from_reader(export.body.as_bytes());
    let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let row = reader.records().next().unwrap().unwrap();
    let cell = |name: &str| row.get(columns.iter().position(|c| c == name).unwrap()).unwrap();
    for (name, expected) in [
        ("call_id", "'-2+3"),
        ("session_id", "'=HYPERLINK(\"https://evil.example\",\"x\")"),
        ("agent_id", "'@SUM(1+1)"),
        ("provider", "'+1"),
        ("model", "'＝1+1"),
        ("error_code", r#"'"\t=1""#),
        ("error_message", r#"'"\u001b]0\u003bowned\u0007\u009b2J""#),
        ("metadata", r#"'"{\"a\":\"\u009b\u003b=1\"}""#),
        ("cost_cents", "7"),
    ] {
        assert_eq!(cell(name), expected, "{name}");
    }
    assert!(!export.body.replace('\n', "").contains(char::is_control), "{:?}", export.body);
    // For programs: as it was recorded.
    let line = tenant.founder().get("/telemetry/export?format=ndjson").await;
    let line: Value = serde_json::from_str(&line.body).unwrap();
    assert_eq!((&line["call_id"], &line["error_code"]), (&json!("-2+3"), &json!("\t=1")));
}

#[tokio::test]
async fn an_export_goes_on_past_a_page_and_obeys_its_filters() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = record_many(&tenant, 2_500).await;
    for (query, calls) in [
        ("", 2_500),
        ("model=odd", 1_250),
        ("model=nobody", 0),
        ("end=2026-03-13", 0),
        ("start=2026-03-14&policy_result=allowed", 2_500),
        (&format!("integration_id={id}&model=even"), 1_250),
    ] {
        let path = format!("/telemetry/export?format=ndjson&{query}");
        let export = tenant.founder().get(&path).await;
        let found: std::collections::BTreeSet<&str> = export.body.lines().collect();
        assert_eq!((export.status.as_u16(), found.len()), (200, calls), "{query}");
        let csv = tenant.founder().get(&format!("/telemetry/export?{query}")).await;
        assert_eq!(csv.body.lines().count(), calls + 1, "{query}");
    }
}

#[tokio::test]
async fn an_export_that_cannot_begin_is_an_error_in_the_envelope() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    for (query, field) in [
        ("format=xlsx", "format"),
        ("start=yesterday", "start"),
        ("policy_result=maybe", "policy_result"),
        ("integration_id=1", "integration_id"),
    ] {
        let path = format!("/telemetry/export?{query}");
        tenant.founder().get(&path).await.refused(422, "INVALID_FIELD").on(field);
    }
    for name in ["limit", "cursor", "offset"] {
        let path = format!("/telemetry/export?{name}=1");
        tenant.founder().get(&path).await.refused(422, "UNKNOWN_FIELD").on(name);
    }
}
