//! JSON objects from clients in the form in which they are checked, stored and shown.
//!
//! Parsers differ on which duplicate name counts, so a check of one interpretation says nothing
//! about another. Objects are therefore rewritten on arrival: compact, on one line, each name once.
//! Checks read the rewritten text.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::json_depth::find_too_deep;
use crate::wire::json_line;

/// The largest stored object in bytes of its rewritten text.
const BYTES_MAX: usize = 32 * 1024;
/// The largest text that is rewritten in bytes.
///
/// Blanks and escapes can make a text longer than its rewritten form. A single record has no room
/// for more.
const SENT_BYTES_MAX: usize = 256 * 1024;

const UNREADABLE: &str = "must be valid JSON that is not nested too deeply";

/// A JSON object: compact, on one line, without duplicate names.
///
/// Of duplicate names the last one counts. Numbers keep their digits.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonObject {
    text: String,
    value: Value,
    duplicate_key: Option<String>,
}

impl JsonObject {
    /// Rewrites and parses an object.
    ///
    /// # Errors
    /// The rest of a sentence about the field.
    pub fn parse(sent: &RawValue) -> Result<Self, &'static str> {
        let too_large = "must have at most 32 KiB";
        let sent = sent.get();
        if sent.len() > SENT_BYTES_MAX {
            return Err(too_large);
        }
        if find_too_deep(sent).is_some() {
            return Err(UNREADABLE);
        }
        let mut reader = Reader { rest: sent, duplicate_key: None };
        let node = reader.node().ok_or(UNREADABLE)?;
        let Node::Object(_) = &node else { return Err("must be an object") };
        let mut text = Vec::with_capacity(sent.len().min(BYTES_MAX));
        json_line::write(&mut text, &node).map_err(|_| UNREADABLE)?;
        if text.len() > BYTES_MAX {
            return Err(too_large);
        }
        let text = String::from_utf8(text).map_err(|_| UNREADABLE)?;
        let value = serde_json::from_str(&text).map_err(|_| UNREADABLE)?;
        Ok(Self { text, value, duplicate_key: reader.duplicate_key })
    }

    /// The rewritten text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rewritten text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The parsed value. Only here are numbers rounded that do not fit into 64 bits.
    pub(crate) const fn value(&self) -> &Value {
        &self.value
    }

    /// The path of a duplicate name in the original, such as `.a[1].name`.
    pub fn duplicate_key(&self) -> Option<&str> {
        self.duplicate_key.as_deref()
    }
}

/// A value that is being rewritten.
enum Node<'a> {
    /// A number, `true`, `false` or `null` in its original form.
    Scalar(&'a RawValue),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Box<IndexMap<Cow<'a, str>, Node<'a>>>),
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(raw) => raw.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(members) => serializer.collect_map(members.iter()),
        }
    }
}

/// Parses a text that is known to be JSON of bounded depth. Returns `None` for anything else.
struct Reader<'a> {
    rest: &'a str,
    duplicate_key: Option<String>,
}

impl<'a> Reader<'a> {
    fn node(&mut self) -> Option<Node<'a>> {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.list(),
            b'"' => self.text().map(Node::Text),
            _ => self.scalar(),
        }
    }

    fn object(&mut self) -> Option<Node<'a>> {
        let mut members = IndexMap::new();
        self.take(b'{').then_some(())?;
        while !self.take(b'}') {
            let name = self.text()?;
            self.take(b':').then_some(())?;
            let node = self.inner(|| format!(".{name}"))?;
            if members.contains_key(&name) {
                self.duplicate_key.get_or_insert_with(|| format!(".{name}"));
            }
            members.insert(name, node);
            self.take(b',');
        }
        Some(Node::Object(Box::new(members)))
    }

    fn list(&mut self) -> Option<Node<'a>> {
        let mut items = Vec::new();
        self.take(b'[').then_some(())?;
        while !self.take(b']') {
            let at = items.len();
            items.push(self.inner(|| format!("[{at}]"))?);
            self.take(b',');
        }
        Some(Node::List(items))
    }

    /// Parses a nested value; `place` is its path.
    fn inner(&mut self, place: impl FnOnce() -> String) -> Option<Node<'a>> {
        let earlier = self.duplicate_key.take();
        let node = self.node();
        if let Some(inside) = &mut self.duplicate_key {
            inside.insert_str(0, &place());
        }
        self.duplicate_key = earlier.or_else(|| self.duplicate_key.take());
        node
    }

    fn text(&mut self) -> Option<Cow<'a, str>> {
        (self.peek()? == b'"').then_some(())?;
        let mut escaped = false;
        let length = self.rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let (quoted, rest) = self.rest.split_at_checked(length + 2)?;
        self.rest = rest;
        if quoted.contains('\\') {
            return serde_json::from_str(quoted).ok().map(Cow::Owned);
        }
        quoted.get(1..=length).map(Cow::Borrowed)
    }

    fn scalar(&mut self) -> Option<Node<'a>> {
        let ends = |byte: u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let length = self.rest.bytes().position(ends).unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        serde_json::from_str(scalar).ok().map(Node::Scalar)
    }

    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    /// Consumes this byte if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JsonObject, &'static str> {
        JsonObject::parse(&RawValue::from_string(text.to_owned()).expect("JSON"))
    }

    #[track_caller]
    fn check(sent: &str, stored: &str, duplicate_key: Option<&str>) {
        let object = parse(sent).expect("an object");
        assert_eq!(object.text(), stored);
        assert_eq!(object.duplicate_key(), duplicate_key, "{sent}");
        let again = parse(object.text()).expect("an object");
        assert_eq!((again.text(), again.duplicate_key()), (stored, None));
    }

    #[test]
    fn an_object_is_compact_and_on_one_line() {
        check(
            " {\n\t\"b\" : [ 1 ,\r\n { } , [ ] ] , \"a\" : \"x\\ny\" }\n",
            r#"{"b":[1,{},[]],"a":"x\u000ay"}"#,
            None,
        );
        check(
            r#"{"\u0061\/":"\u00e4\ud83d\ude00\\\" :,{}[]"}"#,
            r#"{"a/":"ä😀\\\" :,{}[]"}"#,
            None,
        );
        check("{\"a\":\"\u{2028}\u{85}\"}", r#"{"a":"\u2028\u0085"}"#, None);
        check("{}", "{}", None);
    }

    #[test]
    fn the_last_of_the_members_with_one_name_counts_at_every_depth() {
        check(r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#, Some(".a"));
        check(r#"{"a":1,"\u0061":[2]}"#, r#"{"a":[2]}"#, Some(".a"));
        check(r#"{"x":[0,{"b":1,"c":{},"b":2}]}"#, r#"{"x":[0,{"b":2,"c":{}}]}"#, Some(".x[1].b"));
        check(
            r#"{"x":{"a":1,"a":2},"y":{"b":1,"b":2}}"#,
            r#"{"x":{"a":2},"y":{"b":2}}"#,
            Some(".x.a"),
        );
        check(
            r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#,
            r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#,
            None,
        );
    }

    #[test]
    fn numbers_keep_the_digits_that_came() {
        let numbers =
            r#"{"a":[12345678901234567890123,1.10,-0,1e3,1E+3,0.1e-7,1e-400,true,false,null]}"#;
        check(numbers, numbers, None);
    }

    #[test]
    fn what_other_readers_could_not_read_is_refused() {
        for wrong in [r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#, r#"{"\udc00":1}"#] {
            assert_eq!(parse(wrong), Err(UNREADABLE), "{wrong}");
        }
        for wrong in ["[]", "1", "null", r#""{}""#] {
            assert_eq!(parse(wrong), Err("must be an object"), "{wrong}");
        }
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(63)).is_ok());
        assert_eq!(parse(&deep(64)), Err(UNREADABLE));
    }

    #[test]
    fn the_size_is_that_of_what_is_stored() {
        let of = |length: usize| format!("{{ \"a\" : \"{}\" }}", "x".repeat(length));
        assert_eq!(parse(&of(BYTES_MAX - 8)).expect("fits").text().len(), BYTES_MAX);
        assert!(parse(&of(BYTES_MAX - 7)).is_err());
        let blanks = |count: usize| format!("{{{}}}", " ".repeat(count));
        assert_eq!(parse(&blanks(SENT_BYTES_MAX - 2)).expect("fits").text(), "{}");
        assert!(parse(&blanks(SENT_BYTES_MAX - 1)).is_err());
        // Only the last one is stored.
        let member = format!("\"a\":\"{}\",", "x".repeat(1_000));
        assert!(parse(&format!("{{{}\"a\":1}}", member.repeat(100))).is_ok());
    }
}
