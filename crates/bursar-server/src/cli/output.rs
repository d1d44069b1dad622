//! The output of commands: tables and fields for people, JSON for programs.

use clap::Args;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::command_error::CommandError;
use crate::cli::terminal;
use crate::cli::terminal::{print_error_line, print_line, print_lines};

/// Shown for a missing value.
const NOTHING: &str = "-";
/// Between the columns of a table.
const GAP: &str = "  ";

/// The format of the output.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Printer {
    /// Print the data of the response as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// A column of a table: its title and its field.
pub(super) type Column = (&'static str, &'static str);

impl Printer {
    /// Prints one object, one field per line.
    pub(super) fn one(self, data: &RawValue) -> Result<(), CommandError> {
        if self.json {
            return Ok(print_lines(&(terminal::json(data.get()) + "\n"))?);
        }
        Ok(print_lines(&lines(&Fields::of(data)?))?)
    }

    /// Prints a list, one row per line.
    pub(super) fn list(
        self,
        rows: &[Box<RawValue>],
        columns: &[Column],
        (one, many): (&str, &str),
    ) -> Result<(), CommandError> {
        if self.json {
            let texts: Vec<_> = rows.iter().map(|row| terminal::json(row.get())).collect();
            return Ok(print_lines(&format!("[{}]\n", texts.join(",")))?);
        }
        let mut table = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
        for row in rows {
            let fields = Fields::of(row)?;
            table.push(columns.iter().map(|(_, name)| fields.shown(name)).collect());
        }
        let mut text = if rows.is_empty() { String::new() } else { aligned(&table) };
        let noun = if rows.len() == 1 { one } else { many };
        text.push_str(&format!("{} {noun}\n", rows.len()));
        Ok(print_lines(&text)?)
    }

    /// Prints a new object, and last, alone on its line, the secret that is shown only once.
    pub(super) fn made(self, data: &RawValue, noun: &str) -> Result<(), CommandError> {
        if self.json {
            return self.one(data);
        }
        let mut fields = Fields::of(data)?;
        let secret = fields.take("secret");
        print_lines(&lines(&fields))?;
        if let Some(Value::String(secret)) = secret {
            print_error_line(&format!(
                "The last line is the {noun}. It is shown only once. Keep it safe:"
            ));
            print_line(&secret)?;
        }
        Ok(())
    }
}

/// The fields of an object in their original order.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn of(data: &RawValue) -> Result<Self, CommandError> {
        Ok(serde_json::from_str(data.get())?)
    }

    fn shown(&self, name: &str) -> String {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or_else(|| NOTHING.to_owned(), |(_, value)| shown(value))
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn lines(fields: &Fields) -> String {
    let rows: Vec<Vec<String>> = fields
        .0
        .iter()
        .map(|(name, value)| vec![terminal::cell(name).into_owned(), shown(value)])
        .collect();
    aligned(&rows)
}

/// A value for people, with invisible characters escaped.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => terminal::cell(text).into_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            terminal::json(&value.to_string()).into_owned()
        }
    }
}

/// Aligns columns. Lines do not end with blanks.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
        text.push('\n');
    }
    text
}
