//! Converts a row into a usage record: maps columns to fields and derives the call id.

use std::collections::BTreeMap;
use std::fmt::Display;

use bursar_core::{
    LATENCY_MS_MAX, NANOS_PER_CENT, Nanos, NumberError, TOKENS_MAX, rounded_number, usd_string,
    whole_number,
};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use super::arguments::ImportArguments;
use super::error::ImportError;
use super::source::{Row, RowError, Value};

use crate::wire::timestamps;
use crate::wire::timestamps::Written;

/// The JSON type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Text,
    Tokens,
    Millis,
    Cents,
    Usd,
    Instant,
    Object,
}

/// The fields of a usage record.
pub(super) const FIELDS: &[(&str, FieldKind)] = &[
    ("integration_id", FieldKind::Text),
    ("call_id", FieldKind::Text),
    ("session_id", FieldKind::Text),
    ("agent_id", FieldKind::Text),
    ("provider", FieldKind::Text),
    ("model", FieldKind::Text),
    ("response_model", FieldKind::Text),
    ("region", FieldKind::Text),
    ("provider_request_id", FieldKind::Text),
    ("service_tier", FieldKind::Text),
    ("tokens_in", FieldKind::Tokens),
    ("tokens_out", FieldKind::Tokens),
    ("tokens_cache_read", FieldKind::Tokens),
    ("tokens_cache_write", FieldKind::Tokens),
    ("tokens_cache_write_long", FieldKind::Tokens),
    ("tokens_audio_in", FieldKind::Tokens),
    ("tokens_image_in", FieldKind::Tokens),
    ("tokens_reasoning", FieldKind::Tokens),
    ("tokens_audio_out", FieldKind::Tokens),
    ("tokens_image_out", FieldKind::Tokens),
    ("usage_status", FieldKind::Text),
    ("units", FieldKind::Object),
    ("tags", FieldKind::Object),
    ("cost_cents", FieldKind::Cents),
    ("cost_usd", FieldKind::Usd),
    ("latency_ms", FieldKind::Millis),
    ("policy_result", FieldKind::Text),
    ("error_code", FieldKind::Text),
    ("error_message", FieldKind::Text),
    ("metadata", FieldKind::Object),
    ("occurred_at", FieldKind::Instant),
];

/// Where each field comes from.
pub(super) struct Mapping {
    /// Columns by field. A field without an entry comes from the column with its own name.
    columns: BTreeMap<&'static str, String>,
    /// Constant fields as JSON.
    constants: BTreeMap<&'static str, String>,
    zone: Option<TimeZone>,
    /// The name that call ids are derived from.
    source: String,
}

impl Mapping {
    pub(super) fn new(arguments: &ImportArguments) -> Result<Self, ImportError> {
        let mut mapping = Self {
            columns: BTreeMap::new(),
            constants: BTreeMap::new(),
            zone: arguments.time_zone.as_deref().map(zone).transpose()?,
            source: source_name(arguments)?,
        };
        for text in &arguments.maps {
            let (field, _, column) = split("--map", text)?;
            if mapping.columns.insert(field, column.to_owned()).is_some() {
                return Err(ImportError::new(format!("--map {field} is given twice")));
            }
        }
        let integration = arguments.integration.iter().map(|id| format!("integration_id={id}"));
        for text in arguments.sets.iter().cloned().chain(integration) {
            let (field, kind, value) = split("--set", &text)?;
            let wrong = |problem: String| ImportError::new(format!("--set {field} {problem}"));
            let json = mapping.cell(kind, value).map_err(wrong)?;
            let twice = mapping.constants.insert(field, json).is_some();
            if twice || mapping.columns.contains_key(field) {
                return Err(ImportError::new(format!("{field} is given twice")));
            }
        }
        Ok(mapping)
    }

    /// Refuses a mapping that names a column the file does not have.
    pub(super) fn check_columns(&self, columns: Option<&[String]>) -> Result<(), ImportError> {
        let Some(columns) = columns else { return Ok(()) };
        match self.columns.values().find(|column| !columns.contains(column)) {
            None => Ok(()),
            Some(missing) => {
                let known = columns.join(", ");
                let message = format!("the file has no column {missing}; its columns are {known}");
                Err(ImportError::new(message))
            }
        }
    }

    /// The record of a row, as JSON.
    pub(super) fn record(&self, row: &Row) -> Result<String, RowError> {
        let mut parts: Vec<String> = Vec::with_capacity(FIELDS.len());
        let mut has_call_id = false;
        for (field, kind) in FIELDS {
            let json = match self.constants.get(field) {
                Some(json) => Some(json.clone()),
                None => self.value(row, field, *kind)?,
            };
            if let Some(json) = json {
                has_call_id |= *field == "call_id";
                parts.push(format!("\"{field}\":{json}"));
            }
        }
        if !has_call_id {
            parts.push(format!("\"call_id\":\"{}\"", self.derived_call_id(row)));
        }
        Ok(format!("{{{}}}", parts.join(",")))
    }

    fn value(&self, row: &Row, field: &str, kind: FieldKind) -> Result<Option<String>, RowError> {
        let column = self.columns.get(field).map_or(field, String::as_str);
        let refuse =
            |problem: String| RowError { number: row.number, reason: format!("{field} {problem}") };
        match row.values.get(column) {
            None => Ok(None),
            Some(Value::Cell(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::Cell(text)) => self.cell(kind, text).map(Some).map_err(refuse),
            Some(Value::Json(json)) if json.get() == "null" => Ok(None),
            Some(Value::Json(json)) => self.json(kind, json).map(Some).map_err(refuse),
        }
    }

    /// Converts a text to the JSON of a field.
    fn cell(&self, kind: FieldKind, text: &str) -> Result<String, String> {
        match kind {
            FieldKind::Text => Ok(quoted(text)),
            FieldKind::Tokens => number(whole_number(text.trim(), TOKENS_MAX)),
            FieldKind::Millis => number(rounded_number(text.trim(), LATENCY_MS_MAX)),
            FieldKind::Cents => number(Nanos::from_cents_text(text.trim()).map(cents_text)),
            FieldKind::Usd => {
                let cost = Nanos::from_usd_text(text.trim());
                number(cost.map(|cost| usd_string(cost.get().into())))
            }
            FieldKind::Instant => self.instant(text).map(|text| quoted(&text)),
            FieldKind::Object => match serde_json::from_str::<&RawValue>(text) {
                Ok(json) => Ok(json.get().to_owned()),
                Err(_) => Err("must be JSON".to_owned()),
            },
        }
    }

    /// Checks a JSON value for a field. Only times are converted; the server checks the rest.
    fn json(&self, kind: FieldKind, json: &RawValue) -> Result<String, String> {
        match (kind, serde_json::from_str::<String>(json.get())) {
            (FieldKind::Instant, Ok(text)) => self.instant(&text).map(|text| quoted(&text)),
            _ => Ok(json.get().to_owned()),
        }
    }

    fn instant(&self, text: &str) -> Result<String, String> {
        const WRONG: &str = "must be a time, such as 2026-11-20 13:00:00 or 2026-11-20T13:00:00Z";
        let Written { date, time, offset } = Written::read(text, WRONG)?;
        if offset.is_some() {
            return Ok(timestamps::parse(text).map(timestamps::text)?);
        }
        let Some(zone) = &self.zone else {
            return Err(
                "has no time zone: give one with --time-zone, such as --time-zone UTC".to_owned()
            );
        };
        let local = DateTime::from_parts(date, time.unwrap_or(Time::midnight()));
        let ambiguous = |_| format!("does not exist, or exists twice, in this time zone: {text}");
        let at = zone.to_ambiguous_zoned(local).unambiguous().map_err(ambiguous)?;
        Ok(timestamps::from_jiff(at.timestamp()).map(timestamps::text)?)
    }

    fn derived_call_id(&self, row: &Row) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [self.source.as_str(), &row.number.to_string(), &row.content] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize().to_hex();
        format!("import-{}", digest.get(..32).unwrap_or_default())
    }
}

/// An amount as the exact JSON number of its cents.
fn cents_text(cost: Nanos) -> String {
    let (whole, rest) = (cost.get() / NANOS_PER_CENT, cost.get() % NANOS_PER_CENT);
    format!("{whole}.{rest:07}")
}

/// The JSON of a number that was read, or why it was not.
fn number(read: Result<impl Display, NumberError>) -> Result<String, String> {
    read.map(|number| number.to_string()).map_err(|error| error.to_string())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn zone(name: &str) -> Result<TimeZone, ImportError> {
    TimeZone::get(name).map_err(|_| ImportError::new(format!("{name} is not a known time zone")))
}

fn source_name(arguments: &ImportArguments) -> Result<String, ImportError> {
    if let Some(name) = &arguments.source {
        return Ok(name.clone());
    }
    let name = arguments.file.file_name().and_then(|name| name.to_str());
    let message = "the name of the file is not valid UTF-8: give another name with --source";
    name.map(str::to_owned).ok_or_else(|| ImportError::new(message))
}

/// Splits `field=value` and looks the field up.
fn split<'a>(
    option: &str,
    text: &'a str,
) -> Result<(&'static str, FieldKind, &'a str), ImportError> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(ImportError::new(format!("{option} {text}: must have the form FIELD=...")));
    };
    match FIELDS.iter().find(|(field, _)| *field == name.trim()) {
        Some((field, kind)) => Ok((field, *kind, value.trim())),
        None => {
            let known: Vec<&str> = FIELDS.iter().map(|(field, _)| *field).collect();
            let message =
                format!("{option}: {name} is not a field; the fields are {}", known.join(", "));
            Err(ImportError::new(message))
        }
    }
}
