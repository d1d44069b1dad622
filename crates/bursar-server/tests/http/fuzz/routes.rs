//! Random requests to every route: each response is documented, and the ledger is consistent
//! afterwards.

use std::io::Write;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use serde_json::Value;

use crate::fuzz::raw_keys::KEYS;
use crate::fuzz::responses::{HIDDEN, check_response};
use crate::fuzz::server::{Known, METRICS_TOKEN, OPERATOR_TOKEN, Reply, Server};

/// A method, a path, and its bodies and query parameters. `{...}` is a placeholder.
type Route = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const PAGED: &[&str] = &["offset", "limit"];
const HISTORY: &[&str] = &[
    "limit",
    "offset",
    "cursor",
    "integration_id",
    "model",
    "agent_id",
    "session_id",
    "policy_result",
    "errors_only",
    "start",
    "end",
];
const DAYS: &[&str] = &["integration_id", "start_date", "end_date"];
const SERIES: &[&str] =
    &["integration_id", "start_date", "end_date", "by", "group_by", "step", "limit", "groups"];
const RECORD: &str = r#"{"integration_id":"{integration}","call_id":"{call}","provider":"openai",
    "model":"gpt-4o","tokens_in":80,"tokens_out":20,"cost_cents":1.25,"agent_id":"a-1"}"#;
const LARGE: &str = r#"{"integration_id":"{integration}","call_id":"{call}","provider":"other",
    "model":"m","tokens_in":1000000000,"tokens_out":1000000000,"cost_cents":100000000,
    "latency_ms":1000000000,"policy_result":"blocked","occurred_at":"2026-02-28T23:59:59.5Z"}"#;
const HELD: &str = r#"{"integration_id":"{integration}","call_id":"{call}","estimated_tokens":100,
    "estimated_cost_cents":10,"ttl_seconds":60}"#;
const CHECK: &str = r#"{"integration_id":"{integration}","estimated_cost_cents":0.5}"#;

const ROUTES: &[Route] = &[
    ("POST", "/api/v1/telemetry/llm-usage", &[RECORD, LARGE], &[]),
    ("POST", "/api/v1/telemetry/llm-usage/batch", &[r#"{"records":[{record},{record},7]}"#], &[]),
    ("POST", "/api/v1/enforcement/reservations", &[HELD], &[]),
    ("POST", "/api/v1/enforcement/reservations/{call}/extend", &[r#"{"ttl_seconds":9}"#, ""], &[]),
    ("DELETE", "/api/v1/enforcement/reservations/{call}", &[""], &[]),
    ("GET", "/api/v1/enforcement/reservations", &[""], &["offset", "limit", "integration_id"]),
    ("POST", "/api/v1/enforcement/check", &[CHECK, "{}"], &[]),
    ("POST", "/api/v1/enforcement/batch", &[r#"{"requests":[{check},{check}]}"#], &[]),
    ("GET", "/api/v1/enforcement/status", &[""], &["integration_id"]),
    (
        "GET",
        "/api/v1/enforcement/decisions",
        &[""],
        &["limit", "cursor", "result", "reason", "integration_id", "call_id", "start", "end"],
    ),
    ("GET", "/api/v1/telemetry/usage-history", &[""], HISTORY),
    ("GET", "/api/v1/telemetry/export", &[""], &["format", "model", "start", "end"]),
    ("GET", "/api/v1/telemetry/usage-summary", &[""], DAYS),
    ("GET", "/api/v1/telemetry/daily-aggregates", &[""], DAYS),
    ("GET", "/api/v1/telemetry/usage-series", &[""], SERIES),
    ("GET", "/api/v1/telemetry/usage-breakdown", &[""], SERIES),
    ("GET", "/api/v1/integrations", &[""], &["offset", "limit", "status", "provider_type"]),
    (
        "POST",
        "/api/v1/integrations",
        &[
            r#"{"name":"{call}","provider_type":"openai","budget_limit_cents":9223372036854775807}"#,
            r#"{"name":"n","provider_type":"custom","credential_ref":"vault://a/{hidden}",
                "config":{"base_url":"https://a","region":"{hidden}"},"cost_basis":"computed"}"#,
        ],
        &[],
    ),
    ("GET", "/api/v1/integrations/{integration}", &[""], &[]),
    (
        "PATCH",
        "/api/v1/integrations/{integration}",
        &[r#"{"rate_limit_rpm":3,"default_model":null}"#, r#"{"name":"{call}"}"#, "{}"],
        &[],
    ),
    ("PUT", "/api/v1/integrations/{integration}", &[r#"{"token_limit_month":9}"#], &[]),
    ("DELETE", "/api/v1/integrations/{integration}", &[""], &[]),
    ("POST", "/api/v1/integrations/{integration}/enable", &[""], &[]),
    ("POST", "/api/v1/integrations/{integration}/disable", &[""], &[]),
    ("GET", "/api/v1/integrations/{integration}/health", &[""], &[]),
    ("GET", "/api/v1/integrations/{integration}/limits", &[""], &["period"]),
    ("POST", "/api/v1/integrations/{integration}/keys", &[r#"{"name":"k"}"#, ""], &[]),
    ("GET", "/api/v1/integrations/{integration}/keys", &[""], PAGED),
    ("DELETE", "/api/v1/integrations/{integration}/keys/{id}", &[""], &[]),
    ("POST", "/api/v1/keys", &[r#"{"name":"k","scopes":["telemetry:*","keys:write"]}"#], &[]),
    ("GET", "/api/v1/keys", &[""], PAGED),
    ("DELETE", "/api/v1/keys/{id}", &[""], &[]),
    ("POST", "/api/v1/tenants", &[r#"{"name":"{call}"}"#], &[]),
    ("GET", "/api/v1/tenants", &[""], PAGED),
    ("GET", "/api/v1/tenants/{tenant}", &[""], &[]),
    ("GET", "/metrics", &[""], &[]),
    ("GET", "/health", &[""], &[]),
    ("GET", "/health/live", &[""], &[]),
    ("GET", "/health/ready", &[""], &[]),
    ("GET", "/nowhere", &[""], &[]),
];

/// Query parameters with values that are valid on some route.
const PARAMETERS: &[(&str, &[&str])] = &[
    ("offset", &["0", "1", "10000", "1000000", "4294967296"]),
    ("limit", &["1", "2", "100", "1000", "0"]),
    ("cursor", &["{cursor}", "{id}", "AAAAAAAAAAAAAAAAAAAAAA", "~"]),
    ("integration_id", &["{integration}"]),
    ("model", &["gpt-4o", "m", "other"]),
    ("agent_id", &["a-1", "other"]),
    ("session_id", &["s"]),
    ("policy_result", &["allowed", "warned", "blocked"]),
    ("errors_only", &["true", "0"]),
    ("start", &["2026-03-01", "2026-03-14T00:00:00Z", "1970-01-01", "9999-12-31"]),
    ("end", &["2026-03-15", "9999-12-31T23:59:59.999999Z", "9999-12-31", "1970-01-01"]),
    ("start_date", &["2026-03-01", "2026-03-14", "1970-01-01", "2025-03-14"]),
    ("end_date", &["2026-03-14", "2026-04-01", "9999-12-31", "1970-01-01"]),
    ("by", &["model", "agent", "integration", "session"]),
    ("group_by", &["model", "agent", "integration"]),
    ("step", &["day", "hour"]),
    ("groups", &["1", "100"]),
    ("format", &["csv", "ndjson"]),
    ("result", &["warned", "throttled", "blocked", "hard_blocked"]),
    ("reason", &["budget_exceeded", "integration_not_found"]),
    ("call_id", &["{call}"]),
    ("status", &["created", "enabled"]),
    ("provider_type", &["openai"]),
    ("period", &["2026-03", "2026-02", "9999-12"]),
];
const WORDS: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    ",",
    ":",
    "null",
    "1e400",
    "%2F",
    "%00",
    "?",
    "&",
    "=",
    "+",
    "{integration}",
    "{call}",
    "-0.0",
    "\"metadata\":{\"a\":1},",
];

/// The ids and cursors of a server that requests can name; responses add to them.
struct World {
    known: Known,
    ids: Vec<String>,
    cursors: Vec<String>,
}

impl World {
    /// Replaces the placeholders of a text.
    fn fill(&self, choices: &mut Choices<'_>, text: &str) -> String {
        let mut text = text.to_owned();
        // Bounded, because a value may contain another placeholder.
        for _ in 0..24 {
            let Some((before, rest)) = text.split_once('{') else { break };
            let Some((name, after)) = rest.split_once('}') else { break };
            let calls = ["c-1", "c-2", "c-3", "\u{e4}"];
            let value = match name {
                "record" => choices.one_of(&[RECORD, LARGE, "[]"]).replace('{', "\u{1}"),
                "check" => CHECK.replace('{', "\u{1}"),
                "hidden" => HIDDEN.to_owned(),
                "tenant" => choices.one_of(&self.known.tenants),
                "integration" => choices.one_of(&self.known.integrations),
                "call" => choices.one_of(&calls).to_owned(),
                "id" => choices.one_of(&self.ids),
                "cursor" => choices.one_of(&self.cursors),
                _ => format!("\u{1}{name}\u{2}"),
            };
            text = format!("{before}{value}{after}");
        }
        text.replace('\u{1}', "{").replace('\u{2}', "}")
    }

    /// Remembers the ids and the cursor of a response.
    fn learn(&mut self, path: &str, reply: &Reply) {
        let text = |pointer: &str| reply.json.pointer(pointer).and_then(Value::as_str);
        if let Some(id) = text("/data/id").or_else(|| text("/data/0/id")) {
            self.ids.push(id.to_owned());
            if path == "/api/v1/integrations" {
                self.known.integrations.push(id.to_owned());
            }
        }
        self.cursors.extend(text("/meta/next_cursor").map(str::to_owned));
    }

    fn any_uri(&self, choices: &mut Choices<'_>, route: &Route) -> String {
        let (_, path, _, names) = route;
        let mut uri = self.fill(choices, path);
        let count = if names.is_empty() { choices.one_of(&[0, 0, 0, 1]) } else { choices.below(5) };
        for number in 0..count {
            let named = names.get(choices.below(names.len() + 1));
            let known = PARAMETERS.iter().find(|(name, _)| Some(name) == named);
            let (name, values) = known.copied().unwrap_or_else(|| choices.one_of(PARAMETERS));
            let value = choices.one_of(values);
            let value = self.fill(choices, value);
            let value = if choices.one_in(8) { choices.mutated(&value, WORDS) } else { value };
            let sign = if number == 0 { '?' } else { '&' };
            uri += &format!("{sign}{name}={}", encode(&value));
        }
        if choices.one_in(12) { choices.mutated(&uri, WORDS) } else { uri }
    }

    fn any_body(&self, choices: &mut Choices<'_>, route: &Route) -> Vec<u8> {
        let (_, _, bodies, _) = route;
        let body = choices.one_of(bodies);
        let text = self.fill(choices, body);
        // A mutation may turn a secret value into a field name, which errors may quote.
        if body.contains("{hidden}") || !choices.one_in(3) {
            return text.into_bytes();
        }
        let words = if choices.one_in(4) { KEYS } else { WORDS };
        let broken = choices.mutated_bytes(text.as_bytes(), words);
        let Ok(broken_text) = std::str::from_utf8(&broken) else { return broken };
        self.fill(choices, broken_text).into_bytes()
    }

    fn any_headers(&self, choices: &mut Choices<'_>) -> HeaderMap {
        let Known { tenants, api_key, small_key, integration_key, .. } = &self.known;
        let tenant = choices.one_of(tenants);
        let key = choices.one_of(&[api_key, small_key]);
        let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
        let mut named = match choices.below(8) {
            0..=2 => vec![bearer(OPERATOR_TOKEN), ("x-tenant-id", tenant)],
            3 => vec![bearer(api_key)],
            4 => vec![("x-aos-key", key.clone())],
            5 => vec![("x-cus-integration-key", integration_key.clone())],
            6 => vec![bearer(choices.one_of(&[OPERATOR_TOKEN, METRICS_TOKEN]))],
            _ => Vec::new(),
        };
        if choices.one_in(12) {
            named.push(("x-aos-key", choices.mutated(key, &["bur_"])));
        }
        if choices.one_in(4) {
            let types = ["application/json", "application/json; charset=utf-8", "text/plain", ""];
            named.push(("content-type", choices.one_of(&types).to_owned()));
        }
        if choices.one_in(8) {
            named.push(("x-request-id", choices.mutated("req-1", &[" "])));
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            named.push(("traceparent", choices.mutated(trace, &["-"])));
            named.push(("tracestate", choices.mutated("a=1,b=2", &["=", ","])));
        }
        let is_broken = choices.one_in(16);
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            let bytes = value.as_bytes();
            let bytes =
                if is_broken { choices.mutated_bytes(bytes, WORDS) } else { bytes.to_vec() };
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        headers
    }
}

/// Percent-encodes a value for a query.
fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let encoded = text.bytes().map(|byte| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Sends one request; `None` if its parts are not valid HTTP.
async fn send_any(
    choices: &mut Choices<'_>,
    server: &Server,
    world: &mut World,
) -> Option<Outcome> {
    let route = choices.one_of(ROUTES);
    let others = [route.0, "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"];
    let method = if choices.one_in(12) { choices.one_of(&others) } else { route.0 };
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let uri: Uri = world.any_uri(choices, &route).parse().ok()?;
    let mut headers = world.any_headers(choices);
    let mut body = world.any_body(choices, &route);
    if choices.one_in(12) {
        headers.insert("content-encoding", HeaderValue::from_static("gzip"));
        body = if choices.one_in(4) { body } else { compress(&body) };
    }
    let reply = server.send(method.clone(), uri.clone(), headers, body).await;
    check_response(&method, uri.path(), &reply);
    world.learn(uri.path(), &reply);
    Some(if reply.status.is_success() { Outcome::Accepted } else { Outcome::Refused })
}

#[test]
fn random_requests_get_documented_responses_and_keep_the_ledger_consistent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let effort = Effort { inputs: 40, seconds: 60, bytes_max: 8_192 };
    fuzz(bolero::check!(), effort, |choices| {
        runtime.block_on(async {
            let server = Server::new();
            let known = server.create_known().await;
            let (ids, cursors) = (known.integrations.clone(), vec!["x".to_owned()]);
            let mut world = World { known, ids, cursors };
            let mut last = Outcome::Refused;
            for _ in 0..1 + choices.below(40) {
                match choices.below(12) {
                    0 => server.advance(choices.one_of(&[1, 61, 3_600, 86_400, 31 * 86_400])),
                    1 => server.tick().await,
                    _ => last = send_any(choices, &server, &mut world).await.unwrap_or(last),
                }
            }
            server.close_and_verify().await;
            last
        })
    });
}
