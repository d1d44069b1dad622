//! What came back.

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

/// An answer; every one of them has the envelope.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body as it came.
    pub(crate) body: String,
    json: Value,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, headers: HeaderMap, body: String) -> Self {
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Self { status, headers, body, json }
    }

    /// Claims the status, and that the envelope fits it.
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

    /// Claims a failure of this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.json["error"]["code"], code, "{}", self.body);
        self.is(status)
    }

    /// Claims that the failure names this field, in its sentence too.
    #[track_caller]
    pub(crate) fn on(&self, field: &str) -> &Self {
        assert_eq!(self.json["error"]["field"], field, "{}", self.body);
        assert!(self.text("/error/message").starts_with(field), "{}", self.body);
        self
    }

    /// The data.
    pub(crate) fn data(&self) -> &Value {
        &self.json["data"]
    }

    /// The value at a JSON pointer; null when there is none.
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at a JSON pointer.
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

    /// The whole body with what differs from run to run taken out: ids are numbered in the order in
    /// which they appear, so that the same id is the same number.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = self.json.clone();
        shown["meta"]["timestamp"] = "[now]".into();
        shown["meta"]["request_id"] = "[request id]".into();
        redact(&mut shown, &mut Vec::new());
        shown
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

/// The text with every UUID in it replaced by its number.
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
