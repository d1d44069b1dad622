//! The history as a file.

use serde_json::{Value, json};

use crate::support::{Tenant, TestApp, record, with};

/// Stores this many records in batches; returns their integration.
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
async fn an_ndjson_line_equals_the_row_of_the_history() {
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

/// The lines of a text for a reader that splits at every line separator of Unicode.
fn lines(text: &str) -> Vec<&str> {
    let ends =
        |c: char| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}');
    let lines = text.split(|c| ends(c) || matches!(c, '\u{2028}' | '\u{2029}'));
    lines.filter(|line| !line.is_empty()).collect()
}

/// A record with this metadata, as JSON that is not compact.
fn pretty(integration_id: &str, call_id: &str, metadata: &str) -> String {
    let message = "one\\r\\ntwo\u{2028}three\u{85}";
    let base = serde_json::to_string_pretty(&record(integration_id, call_id)).unwrap();
    let base = base.trim_end().trim_end_matches('}').trim_end();
    format!("{base},\n  \"error_message\": \"{message}\",\n  \"metadata\": {metadata}\n}}")
}

#[tokio::test]
async fn an_export_has_a_line_for_each_record_however_its_json_was_written() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let key = tenant.integration_key(&id).await;
    let metadata = "{\n    \"a\": [\r\n 1.10,\t12345678901234567890123 ],\n \"b\": \"x\u{2029}\"}";
    let sent = pretty(&id, "single", metadata);
    key.post("/telemetry/llm-usage").body(sent).await.is(201);
    let batch = format!("{{\"records\":[\n{}\n]}}", pretty(&id, "batch", metadata));
    let answer = key.post("/telemetry/llm-usage/batch").body(batch).await;
    assert_eq!(answer.is(200).at("/data/accepted"), 1);
    let export = tenant.founder().get("/telemetry/export?format=ndjson").await;
    assert_eq!(lines(&export.body).len(), 2, "{:?}", export.body);
    let stored = r#""metadata":{"a":[1.10,12345678901234567890123],"b":"x\u2029"}"#;
    for line in lines(&export.body) {
        assert!(line.contains(stored), "{line}");
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["error_message"], "one\r\ntwo\u{2028}three\u{85}");
    }
    // In CSV, line ends are quoted.
    let export = tenant.founder().get("/telemetry/export").await;
    assert_eq!(csv::Reader::from_reader(export.body.as_bytes()).records().count(), 2);
}

#[tokio::test]
async fn of_duplicate_names_only_the_checked_value_is_stored() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let raw_key = "sk-proj-Ab3dEfGh1jKlMn0pQrStUvWx";
    let metadata = format!(
        r#"{{"a":"{raw_key}","b":[{{"c":"{raw_key}","\u0063":1}}],"a":"x","b\u0000":1,"b\u0000":2}}"#
    );
    let nul = tenant.founder().post("/telemetry/llm-usage").body(pretty(&id, "nul", &metadata));
    nul.await.refused(422, "INVALID_FIELD").on("metadata");
    let metadata = metadata.replace("\\u0000", "");
    let sent = pretty(&id, "c", &metadata);
    tenant.founder().post("/telemetry/llm-usage").body(sent).await.is(201);
    for path in ["/telemetry/export?format=ndjson", "/telemetry/export", "/telemetry/usage-history"]
    {
        let answer = tenant.founder().get(path).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(!answer.body.contains(raw_key), "{path}: {}", answer.body);
    }
    let history = tenant.founder().get("/telemetry/usage-history").await;
    assert!(history.body.contains(r#""metadata":{"a":"x","b":2}"#), "{}", history.body);
    // The last value counts: in the other order it is a key.
    let metadata = format!(r#"{{"a":"x","a":"{raw_key}"}}"#);
    let sent = pretty(&id, "d", &metadata);
    let refused = tenant.founder().post("/telemetry/llm-usage").body(sent).await;
    refused.refused(422, "SECRET_REFUSED").on("metadata.a");
}

/// Generates random JSON, the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    fn blank(&mut self) -> &'static str {
        self.one_of(&["", "", " ", "\n", "\r\n\t"])
    }

    fn value(&mut self, depth: usize) -> String {
        let blank = self.blank();
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0..4 => self.one_of(LEAVES).to_owned(),
            4 | 5 => format!("\"{} {}\"", self.one_of(TEXTS), self.one_of(TEXTS)),
            6 => {
                let items = (0..self.below(4)).map(|_| self.value(depth - 1));
                format!("[{blank}{}{blank}]", items.collect::<Vec<_>>().join(","))
            }
            _ => self.object(depth - 1),
        }
    }

    /// An object with few distinct names, so that many repeat.
    fn object(&mut self, depth: usize) -> String {
        let member = |random: &mut Self| {
            let (name, blank) = (random.one_of(NAMES), random.blank());
            format!("{blank}\"{name}\"{blank}:{blank}{}", random.value(depth))
        };
        let members: Vec<String> = (0..self.below(6)).map(|_| member(self)).collect();
        format!("{{{}}}", members.join(","))
    }
}

const LEAVES: &[&str] =
    &["1.10", "12345678901234567890123", "-0", "1E+2", "0", "true", "null", "\"\""];
const NAMES: &[&str] = &["a", "\\u0061", "b", "\u{e4}", "\\u00e4", "\u{2028}", "a b"];
const TEXTS: &[&str] = &[
    "",
    "plain",
    "\\n",
    "\\\"",
    "\\\\",
    "\\u2028\u{2029}",
    "\\ud83d\\ude00",
    "\u{85}{[,:]}",
    "sk-proj-Ab3dEfGh1jKlMn0pQrStUvWx",
    "\\u0073k-proj-Ab3dEfGh1jKlMn0pQrStUvWx",
    "AKIAABCDEFGHIJKLMNOP",
];

/// Asserts that a compact text has no object with a repeated name and no value with a key.
fn check_object(text: &str) {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;
    let value: Value = serde_json::from_str(text).unwrap();
    match &value {
        Value::Object(fields) => {
            let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap();
            let bytes: usize = raw.values().map(|value| value.get().len()).sum();
            let names: usize = fields
                .keys()
                .map(|name| {
                    let mut line = Vec::new();
                    bursar_server::wire::json_line::write(&mut line, name).unwrap();
                    line.len() + 1
                })
                .sum();
            let commas = fields.len().saturating_sub(1);
            assert_eq!(text.len(), 2 + bytes + names + commas, "{text} has more in it");
            raw.values().for_each(|value| check_object(value.get()));
        }
        Value::Array(_) => {
            let raw: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            raw.iter().for_each(|value| check_object(value.get()));
        }
        Value::String(text) => assert!(!text.contains("sk-proj-") && !text.contains("AKIA")),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    assert!(!text.contains("sk-proj-") && !text.contains("AKIA"), "{text}");
}

#[tokio::test]
async fn random_metadata_is_exported_as_the_value_that_a_json_parser_reads() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let mut random = Random(7);
    let sent: Vec<String> = (0..600).map(|_| random.object(4)).collect();
    let records: Vec<String> =
        (0..).zip(&sent).map(|(at, text)| pretty(&id, &format!("{at}"), text)).collect();
    let batch = format!("{{\"records\":[{}]}}", records.join(",\n"));
    let answer = tenant.founder().post("/telemetry/llm-usage/batch").body(batch).await;
    let results = answer.is(200).at("/data/results").as_array().unwrap();
    let is_accepted = |at: usize| results[at]["status"] == "accepted";
    let accepted: Vec<usize> = (0..sent.len()).filter(|at| is_accepted(*at)).collect();
    assert!(accepted.len() > 300 && accepted.len() < 600, "{} accepted", accepted.len());
    for result in results.iter().filter(|result| result["status"] != "accepted") {
        assert_eq!(result["error"]["code"], "SECRET_REFUSED", "{result}");
    }
    let export = tenant.founder().get("/telemetry/export?format=ndjson").await;
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for line in self::lines(&export.body) {
        let row: Value = serde_json::from_str(line).unwrap();
        let at: usize = row["call_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(row["metadata"], serde_json::from_str::<Value>(&sent[at]).unwrap());
        let (_, rest) = line.split_once("\"metadata\":").unwrap();
        let (metadata, _) = rest.rsplit_once(",\"source\"").unwrap();
        check_object(metadata);
        lines.push((at, line));
    }
    lines.sort_unstable();
    assert!(lines.iter().map(|(at, _)| *at).eq(accepted), "{} lines", lines.len());
}

#[tokio::test]
async fn a_csv_export_has_the_fields_of_the_history() {
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
async fn a_csv_export_has_no_formula_and_no_terminal_escape_of_a_client() {
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
        ("error_code", "'=1"),
        ("error_message", r#"'"\u001b]0\u003bowned\u0007\u009b2J""#),
        ("metadata", r#"'"{\"a\":\"\u009b\u003b=1\"}""#),
        ("cost_cents", "7"),
    ] {
        assert_eq!(cell(name), expected, "{name}");
    }
    assert!(!export.body.replace('\n', "").contains(char::is_control), "{:?}", export.body);
    // NDJSON is for programs and has the text as recorded.
    let line = tenant.founder().get("/telemetry/export?format=ndjson").await;
    let line: Value = serde_json::from_str(&line.body).unwrap();
    assert_eq!((&line["call_id"], &line["error_code"]), (&json!("-2+3"), &json!("=1")));
}

#[tokio::test]
async fn an_export_continues_past_a_page_and_applies_its_filters() {
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
async fn an_invalid_export_is_an_error_in_the_envelope() {
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
