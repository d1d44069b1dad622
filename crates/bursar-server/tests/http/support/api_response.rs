//! Responses of the API.

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

/// A response, whose body is the envelope.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The unparsed body.
    pub(crate) body: String,
    json: Value,
}

impl ApiResponse {
    pub(crate) fn new(status: StatusCode, headers: HeaderMap, body: String) -> Self {
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Self { status, headers, body, json }
    }

    /// Asserts the status and an envelope that fits it.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/json", "{}", self.body);
        let success = self.status.is_success();
        assert_eq!(self.json["success"], success, "{}", self.body);
        assert_eq!(self.json["data"].is_null(), !success, "{}", self.body);
        assert_eq!(self.json["error"].is_null(), success, "{}", self.body);
        let request_id = self.headers["x-request-id"].to_str().unwrap();
        assert_eq!(self.json["meta"]["request_id"], request_id, "{}", self.body);
        self
    }

    /// Asserts an error with this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.json["error"]["code"], code, "{}", self.body);
        self.is(status)
    }

    /// Asserts that the error and the start of its message name this field.
    #[track_caller]
    pub(crate) fn on(&self, field: &str) -> &Self {
        assert_eq!(self.json["error"]["field"], field, "{}", self.body);
        assert!(self.text("/error/message").starts_with(field), "{}", self.body);
        self
    }

    pub(crate) fn data(&self) -> &Value {
        &self.json["data"]
    }

    /// The value at a JSON pointer; null when there is none.
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at a JSON pointer; there must be one.
    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> &str {
        let text = self.json.pointer(pointer).and_then(Value::as_str);
        assert!(text.is_some(), "no text at {pointer}: {}", self.body);
        text.unwrap_or_default()
    }

    /// The text at a JSON pointer in every row of the data.
    pub(crate) fn column(&self, pointer: &str) -> Vec<&str> {
        let rows = self.data().as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter().filter_map(|row| row.pointer(pointer)?.as_str()).collect()
    }

    /// The body without what differs between runs. Ids are numbered in the order of their first
    /// appearance.
    pub(crate) fn redacted(&self) -> Value {
        let mut body = self.json.clone();
        body["meta"]["timestamp"] = "[now]".into();
        body["meta"]["request_id"] = "[request id]".into();
        redact(&mut body, &mut Vec::new());
        body
    }
}

fn redact(value: &mut Value, ids: &mut Vec<String>) {
    match value {
        Value::String(text) => *text = numbered(text, ids),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, ids)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "secret" => *field = "[secret]".into(),
                    "next_cursor" => *field = "[cursor]".into(),
                    _ => redact(field, ids),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text with each UUID replaced by its number.
fn numbered(text: &str, ids: &mut Vec<String>) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        match rest.get(..36).filter(|candidate| is_uuid(candidate)) {
            Some(id) => {
                let known = ids.iter().position(|known| known == id);
                let number = known.unwrap_or_else(|| {
                    ids.push(id.to_owned());
                    ids.len() - 1
                });
                shown.push_str(&format!("[id {}]", number + 1));
                rest = rest.get(36..).unwrap_or_default();
            }
            None => {
                shown.push(next);
                rest = rest.get(next.len_utf8()..).unwrap_or_default();
            }
        }
    }
    shown
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}
