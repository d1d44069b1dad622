//! Secrets in the wrong place: in every field, parameter, header and path of every route of the
//! server's OpenAPI document.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::folder::Folder;
use super::http::{Answer, Http};
use super::server::Server;
use super::tenant::Tenant;

/// The marks of the made-up secrets.
const OF_A_PROVIDER: &str = "CanaryOfAProvider78901234567890";
const OF_A_PERSON: &str = "Y2FuYXJ5LW9mLWEtcGVyc29uLTc4OTA";
/// The timeout of a response.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The depth to which a schema is read.
const DEPTH_MAX: usize = 6;

/// A secret, and the part of it that must not be found.
#[derive(Clone, Debug)]
pub struct Canary {
    pub name: &'static str,
    pub text: String,
    mark: String,
}

/// One of each kind.
#[derive(Clone, Debug)]
pub struct Canaries(pub Vec<Canary>);

impl Canaries {
    fn new(operator_token: &str, api_key: &str, integration_key: &str) -> Self {
        let person =
            format!("{}.{}.{OF_A_PERSON}", concat!("eyJ", "hbGciOiJSUzI1NiJ9"), "eyJzdWIiOiJ4In0");
        let last = |text: &str| text.rsplit('_').next().unwrap_or_default().to_owned();
        let canary = |name, text: String, mark: String| Canary { name, text, mark };
        Self(vec![
            canary(
                "provider",
                format!("{}{OF_A_PROVIDER}", concat!("sk-", "proj-")),
                OF_A_PROVIDER.to_owned(),
            ),
            canary("person", person, OF_A_PERSON.to_owned()),
            canary("operator", operator_token.to_owned(), last(operator_token)),
            canary("api key", api_key.to_owned(), last(api_key)),
            canary("integration key", integration_key.to_owned(), last(integration_key)),
        ])
    }

    /// The name of a canary whose mark is in the bytes.
    pub fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        let found = |mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
        self.0.iter().find(|canary| found(&canary.mark)).map(|canary| canary.name)
    }
}

/// A server, and the objects that its requests name.
pub struct CanaryRequests {
    address: String,
    document: Value,
    operator: String,
    tenant_id: String,
    /// The ids for path parameters. Routes that delete something delete these.
    path_ids: Vec<(&'static str, String)>,
    integration_id: String,
    pub canaries: Canaries,
    /// The number of requests.
    pub sent: usize,
    /// The number of responses with `SECRET_REFUSED`.
    pub refused: usize,
}

/// A request without a canary.
#[derive(Clone)]
struct Plain {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
}

/// A step to a place in a body.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    First,
}

fn created(answer: Answer, field: &str) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.data(field).as_str().expect("a text").to_owned()
}

impl CanaryRequests {
    /// Creates a tenant with one object of each kind, and canaries of its keys.
    pub fn new(folder: &Folder, server: &Server) -> Self {
        let operator_token = folder.operator_token();
        let mut operator = server.operator(folder);
        let mut post = |path: &str, body: Value| operator.post(path, &body).expect("an answer");
        let victim_tenant = created(post("/api/v1/tenants", json!({ "name": "victim" })), "id");
        let mut tenant = Tenant::new(folder, server);
        let mut http = tenant.client(server);
        let integration_id = tenant.add_integration(server, 1_000_000);
        let victim = tenant.add_integration(server, 1_000_000);
        let mut post = |path: &str, body: Value| http.post(path, &body).expect("an answer");
        let key = json!({ "name": "key", "scopes": ["*"] });
        let victim_key = created(post("/api/v1/keys", key.clone()), "id");
        let api_key = created(post("/api/v1/keys", key), "secret");
        let keys = format!("/api/v1/integrations/{integration_id}/keys");
        let integration_key = created(post(&keys, json!({})), "secret");
        let keys = format!("/api/v1/integrations/{victim}/keys");
        let victim_integration_key = created(post(&keys, json!({})), "id");
        let document = openapi_document(server);
        Self {
            address: server.address().to_owned(),
            document,
            operator: folder.operator_bearer(),
            path_ids: vec![
                ("/api/v1/tenants/{id}", victim_tenant),
                ("/api/v1/keys/{id}", victim_key),
                ("{key_id}", victim_integration_key),
                ("{id}", victim),
                ("{call_id}", "unknown-call".to_owned()),
                ("{tenant_id}", tenant.id.clone()),
            ],
            tenant_id: tenant.id,
            integration_id,
            canaries: Canaries::new(&operator_token, &api_key, &integration_key),
            sent: 0,
            refused: 0,
        }
    }

    /// Sends canaries to every route, and asserts that no response shows one. Outside bodies one
    /// canary is sent per place, in turn, unless `every_canary` is set.
    pub fn send_all(&mut self, every_canary: bool) {
        let mut turn = 0;
        for (path, method, operation) in self.operations() {
            let plain = self.plain(&path, &method, &operation);
            for canary in self.canaries.0.clone() {
                for body in self.bodies(&operation, &plain, &canary.text) {
                    self.send_request(&Plain { body: Some(body), ..plain.clone() });
                }
            }
            let mut requests = Vec::new();
            for canary in &self.canaries.0 {
                requests.push(self.outside_body(&path, &operation, &plain, &canary.text));
            }
            let places = requests.first().map_or(0, Vec::len);
            for place in 0..places {
                for (number, of_canary) in requests.iter().enumerate() {
                    if every_canary || number == turn % requests.len() {
                        self.send_request(of_canary.get(place).expect("as many places"));
                    }
                }
                turn += 1;
            }
        }
        for canary in self.canaries.0.clone() {
            self.send_malformed(&canary.text);
        }
    }

    /// Reads every route with GET, and asserts that no response shows a canary.
    pub fn read_all(&mut self) -> String {
        let mut all = String::new();
        for (path, method, operation) in self.operations() {
            if method == "GET" {
                let plain = self.plain(&path, &method, &operation);
                all.push_str(&self.send_request(&plain));
                for format in ["csv", "ndjson"].iter().filter(|_| path.ends_with("/export")) {
                    let query = format!("?format={format}");
                    all.push_str(&self.send_request(&Plain { query, ..plain.clone() }));
                }
            }
        }
        all
    }

    /// Every operation of the document; those that delete or end something come last.
    fn operations(&self) -> Vec<(String, String, Value)> {
        let paths = self.document.get("paths").and_then(Value::as_object).expect("paths");
        let mut all = Vec::new();
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().expect("methods") {
                all.push((path.clone(), method.to_uppercase(), operation.clone()));
            }
        }
        let ends = |path: &str, method: &str| {
            method == "DELETE" || ["/terminate", "/archive"].iter().any(|end| path.ends_with(end))
        };
        all.sort_by_key(|(path, method, _)| ends(path, method));
        all
    }

    fn plain(&self, path: &str, method: &str, operation: &Value) -> Plain {
        let mut filled = path.to_owned();
        for (place, id) in &self.path_ids {
            let name = place.rsplit('/').next().unwrap_or(place);
            if filled.contains(place) {
                filled = filled.replace(name, id);
            }
        }
        let example = operation.pointer("/requestBody/content/application~1json/example");
        let mut body = example.cloned();
        if let Some(body) = &mut body {
            set_integration(body, &self.integration_id);
        }
        let headers = [("Authorization", &self.operator), ("X-Tenant-ID", &self.tenant_id)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.clone()));
        Plain {
            method: method.to_owned(),
            path: filled,
            query: String::new(),
            headers: headers.to_vec(),
            body,
        }
    }

    /// The body with a canary in each of its strings, as an unknown field, and as the whole body.
    fn bodies(&self, operation: &Value, plain: &Plain, canary: &str) -> Vec<Value> {
        let schema = operation.pointer("/requestBody/content/application~1json/schema");
        let Some(schema) = schema else { return Vec::new() };
        let mut places = Vec::new();
        self.strings(schema, &mut Vec::new(), &mut places);
        let base = plain.body.clone().unwrap_or_else(|| json!({}));
        let mut bodies: Vec<Value> = Vec::new();
        for place in places {
            let mut body = base.clone();
            put(&mut body, &place, json!(canary));
            bodies.push(body);
        }
        let mut unknown = base;
        put(&mut unknown, &[Step::Field(canary.to_owned())], json!(canary));
        bodies.extend([unknown, json!(canary), json!([canary])]);
        bodies
    }

    /// Collects the places of strings in a schema. Free-form objects get two.
    fn strings(&self, schema: &Value, at: &mut Vec<Step>, places: &mut Vec<Vec<Step>>) {
        if at.len() > DEPTH_MAX {
            return;
        }
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.document.pointer(name.trim_start_matches('#')).expect("a schema");
            return self.strings(target, at, places);
        }
        for kind in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(kind).and_then(Value::as_array).into_iter().flatten() {
                self.strings(part, at, places);
            }
        }
        if let Some(items) = schema.get("items") {
            at.push(Step::First);
            self.strings(items, at, places);
            at.pop();
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            at.push(Step::Field(name.clone()));
            self.strings(property, at, places);
            at.pop();
        }
        let is = |kind: &str| match schema.get("type") {
            Some(Value::String(one)) => one == kind,
            Some(Value::Array(all)) => all.iter().any(|one| one == kind),
            _ => false,
        };
        if properties.is_none() && (is("object") || schema.get("type").is_none()) {
            let inside = |name: &str| [at.as_slice(), &[Step::Field(name.to_owned())]].concat();
            places.extend([inside("note"), inside("headers")]);
        }
        if !is("object") && !is("array") {
            places.push(at.clone());
        }
    }

    /// The request with a canary in each parameter, each part of the path and each header.
    fn outside_body(
        &self,
        path: &str,
        operation: &Value,
        plain: &Plain,
        canary: &str,
    ) -> Vec<Plain> {
        let mut all = Vec::new();
        let parameters = operation.get("parameters").and_then(Value::as_array);
        for parameter in parameters.into_iter().flatten() {
            let parameter = match parameter.get("$ref").and_then(Value::as_str) {
                Some(name) => {
                    self.document.pointer(name.trim_start_matches('#')).expect("a parameter")
                }
                None => parameter,
            };
            let text = |field| parameter.get(field).and_then(Value::as_str).unwrap_or_default();
            if text("in") == "query" {
                let query = format!("?{}={canary}", text("name"));
                all.push(Plain { query, ..plain.clone() });
            }
        }
        let query = format!("?{canary}={canary}");
        all.push(Plain { query, ..plain.clone() });
        for (at, part) in path.split('/').enumerate().filter(|(_, part)| part.starts_with('{')) {
            let mut parts: Vec<&str> = plain.path.split('/').collect();
            *parts.get_mut(at).unwrap_or_else(|| panic!("{part} is in {path}")) = canary;
            all.push(Plain { path: parts.join("/"), ..plain.clone() });
        }
        all.push(Plain { path: format!("{}/{canary}", plain.path), ..plain.clone() });
        for (name, value) in HEADERS {
            let mut headers = plain.headers.clone();
            // A canary in `Authorization` replaces the operator's token.
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            headers.push(((*name).to_owned(), value.replace("{}", canary)));
            all.push(Plain { headers, ..plain.clone() });
        }
        all
    }

    /// Sends malformed requests.
    fn send_malformed(&mut self, canary: &str) {
        let head = format!("Host: x\r\nAuthorization: {}\r\n", self.operator);
        let post = format!("POST /api/v1/tenants HTTP/1.1\r\n{head}");
        let json = format!("{post}Content-Type: application/json\r\n");
        let length = canary.len() + 1;
        let name = canary.replace(':', "-");
        for request in [
            format!("{name} /health HTTP/1.1\r\n{head}\r\n"),
            format!("GET /{canary} HTTP/1.1\r\n{head}\r\n"),
            format!("GET /{canary} HTTP/9.9\r\n{head}\r\n"),
            format!("GET {canary} HTTP/1.1\r\n{head}\r\n"),
            format!("{canary}\r\n\r\n"),
            format!("GET /health HTTP/1.1\r\nHost: {canary}\r\n\r\n"),
            format!("GET /health HTTP/1.1\r\n{head}{name}: {canary}\r\n\r\n"),
            format!("GET /health HTTP/1.1\r\n{head}X\u{1}: {canary}\r\n\r\n"),
            format!("{json}Content-Length: {length}\r\n\r\n{{{canary}"),
            format!("{json}Content-Length: {canary}\r\n\r\n{{}}"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n{canary}"),
        ] {
            let answer = self.send(&request, true);
            self.check(&request, &answer);
        }
    }

    fn send_request(&mut self, plain: &Plain) -> String {
        let Plain { method, path, query, headers, body } = plain;
        let body = body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {path}{query} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            head.push_str("Content-Type: application/json\r\n");
        }
        let length = body.len();
        let request = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = self.send(&request, false);
        let is_answered =
            ["HTTP/1.1 2", "HTTP/1.1 4"].iter().any(|begin| answer.starts_with(begin));
        assert!(is_answered, "{request}\ngot\n{answer}");
        self.check(&request, &answer);
        answer
    }

    /// Sends a text. `half_close` tells the server that no more follows.
    fn send(&self, request: &str, half_close: bool) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a deadline");
        // The server may respond or close the connection before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        if half_close {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn check(&mut self, request: &str, answer: &str) {
        self.sent += 1;
        self.refused += usize::from(answer.contains("SECRET_REFUSED"));
        let shown = self.canaries.find(answer.as_bytes());
        assert_eq!(shown, None, "{request}\ngot\n{answer}");
    }
}

/// Headers of a client. `{}` is the place of the canary.
const HEADERS: &[(&str, &str)] = &[
    ("X-Request-ID", "{}"),
    ("traceparent", "00-{}-b7ad6b7169203331-01"),
    ("tracestate", "vendor={}"),
    ("User-Agent", "client/1 ({})"),
    ("X-Tenant-ID", "{}"),
    ("X-Forwarded-For", "{}"),
    ("X-Real-IP", "{}"),
    ("Forwarded", "for={}"),
    ("Authorization", "Basic {}"),
    ("Authorization", "Digest username={}"),
    ("Authorization", "{}"),
    ("Proxy-Authorization", "Bearer {}"),
    ("X-AOS-Key", "{}"),
    ("X-CUS-Integration-Key", "{}"),
    ("X-API-Key", "{}"),
    ("api-key", "{}"),
    ("Cookie", "session={}"),
    ("Content-Type", "application/{}"),
    ("Content-Encoding", "{}"),
    ("Accept", "{}"),
    ("Accept-Encoding", "{}"),
    ("Origin", "https://{}"),
    ("Referer", "https://x/{}"),
    ("Idempotency-Key", "{}"),
    ("If-None-Match", "{}"),
];

fn openapi_document(server: &Server) -> Value {
    let answer = Http::new(server.address(), &[]).get("/openapi.json").expect("an answer");
    assert_eq!(answer.status, 200);
    answer.body
}

/// Replaces the integration ids of an example.
fn set_integration(value: &mut Value, integration_id: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "integration_id" {
                    *value = json!(integration_id);
                }
                set_integration(value, integration_id);
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| set_integration(item, integration_id));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Puts a value at a place, and creates the objects and lists on the way.
fn put(value: &mut Value, at: &[Step], new: Value) {
    let Some((step, rest)) = at.split_first() else {
        *value = new;
        return;
    };
    match step {
        Step::Field(name) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            if let Some(fields) = value.as_object_mut() {
                put(fields.entry(name.clone()).or_insert(Value::Null), rest, new);
            }
        }
        Step::First => {
            if value.as_array().is_none_or(Vec::is_empty) {
                *value = json!([null]);
            }
            if let Some(first) = value.as_array_mut().and_then(|items| items.first_mut()) {
                put(first, rest, new);
            }
        }
    }
}
