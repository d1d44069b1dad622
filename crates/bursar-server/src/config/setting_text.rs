//! Reads a setting from a text: a value of the environment, or a string of the file.

use serde::de::value::{Error, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::error::Category;

/// A text that is deserialized into the type of its setting.
///
/// Lists are written with commas or as JSON, tables as JSON. An empty text is an empty list, or no
/// value where the setting is optional.
#[derive(Clone, Copy)]
pub(crate) struct SettingText<'t>(pub(crate) &'t str);

impl<'de> Deserializer<'de> for SettingText<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.parse() {
            Ok(truth) => visitor.visit_bool(truth),
            Err(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.parse() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.trim_start().starts_with('[') {
            return json(self.0, |json| json.deserialize_seq(visitor));
        }
        let parts = self.0.split(',').map(str::trim).filter(|part| !part.is_empty());
        visitor.visit_seq(SeqDeserializer::new(parts.map(SettingText)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        json(self.0, |json| json.deserialize_map(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de> for SettingText<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

type JsonReader<'de> = serde_json::Deserializer<serde_json::de::StrRead<'de>>;

fn json<'de, T>(
    text: &'de str,
    read: impl FnOnce(&mut JsonReader<'de>) -> Result<T, serde_json::Error>,
) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = read(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| match error.classify() {
        Category::Data => {
            let said = error.to_string();
            // The path in the message helps more than a position within a variable.
            Error::custom(said.split(" at line ").next().unwrap_or_default())
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Error::custom(format_args!("is not valid JSON: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Pair {
        a: i64,
        b: Option<bool>,
    }

    #[track_caller]
    fn check<'de, T>(text: &'de str, expected: Result<T, &str>)
    where
        T: Deserialize<'de> + std::fmt::Debug + PartialEq,
    {
        let read = T::deserialize(SettingText(text)).map_err(|error| error.to_string());
        assert_eq!(read, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_text_becomes_what_is_asked_for() {
        check("12", Ok(12_i64));
        check("12", Ok("12".to_owned()));
        check("true", Ok(true));
        check("", Ok(None::<String>));
        check("a", Ok(Some("a".to_owned())));
        check(" a, b,", Ok(vec!["a".to_owned(), "b".to_owned()]));
        check("", Ok(Vec::<String>::new()));
        check("1,2", Ok(vec![1_i64, 2]));
        check(r#"["a,b"]"#, Ok(vec!["a,b".to_owned()]));
        check(r#"[{"a":1}]"#, Ok(vec![Pair { a: 1, b: None }]));
        check(r#"{"a":1,"b":true}"#, Ok(Pair { a: 1, b: Some(true) }));
    }

    #[test]
    fn a_text_that_does_not_fit_is_named() {
        check::<i64>("soon", Err("invalid type: string \"soon\", expected i64"));
        check::<bool>("yes", Err("invalid type: string \"yes\", expected a boolean"));
        let said = "is not valid JSON: expected value at line 1 column 1";
        check::<Vec<Pair>>("a", Err(said));
        check::<Vec<Pair>>("[{}]", Err("missing field `a`"));
        let said = "is not valid JSON: trailing characters at line 1 column 4";
        check::<Vec<Pair>>("[] []", Err(said));
    }
}
