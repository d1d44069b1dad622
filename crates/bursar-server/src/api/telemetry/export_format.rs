//! Files of usage: how they are written, and how an export writes them.

use std::io;
use std::path::Path;

use bursar_store::UsageRow;
use bytes::Bytes;
use clap::ValueEnum;

use crate::api::telemetry::record_view::UsageView;
use crate::wire::csv_cell;
use crate::wire::enums::enum_schemas;
use crate::wire::json_line;

/// The fields of an entry in the order of a CSV file, which has them in its first line.
const COLUMNS: [&str; 27] = [
    "id",
    "kind",
    "integration_id",
    "call_id",
    "session_id",
    "agent_id",
    "provider",
    "model",
    "tokens_in",
    "tokens_out",
    "total_tokens",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_reasoning",
    "cost_cents",
    "cost_usd",
    "cost_source",
    "reported_cost_usd",
    "computed_cost_usd",
    "usage_status",
    "latency_ms",
    "policy_result",
    "error_code",
    "error_message",
    "metadata",
    "occurred_at",
    "created_at",
];

/// How a file of usage is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UsageFormat {
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

enum_schemas! {
    /// How an export is written.
    ExportFormat in UsageFormat = UsageFormat::as_str { Csv, Ndjson };
}

impl UsageFormat {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// The format that the ending of a file's name tells.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// The rest of a sentence about the parameter.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut known = [Self::Csv, Self::Ndjson].into_iter();
        known.find(|format| format.as_str() == text).ok_or("must be csv or ndjson")
    }

    /// `Content-Type` and `Content-Disposition`.
    pub const fn headers(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"usage.csv\""),
            Self::Ndjson => ("application/x-ndjson", "attachment; filename=\"usage.ndjson\""),
        }
    }

    /// What stands before the first entry.
    pub fn head(self) -> Bytes {
        match self {
            Self::Csv => Bytes::from(COLUMNS.join(",") + "\n"),
            Self::Ndjson => Bytes::new(),
        }
    }

    /// Whether these are the columns of an export, whose cells are to be read as they are.
    pub fn is_export(columns: &[String]) -> bool {
        columns == COLUMNS
    }

    /// Entries as they follow one another.
    ///
    /// # Errors
    /// When an entry cannot be written, for which memory has no reason.
    pub fn write(self, rows: Vec<UsageRow>) -> Result<Bytes, io::Error> {
        let mut text = Vec::with_capacity(rows.len() * 512);
        match self {
            Self::Ndjson => {
                for row in rows {
                    json_line::write(&mut text, &UsageView::from(row))?;
                    text.push(b'\n');
                }
            }
            Self::Csv => {
                let mut writer = csv::Writer::from_writer(&mut text);
                for row in rows {
                    write_record(&mut writer, &UsageView::from(row))?;
                }
                writer.flush()?;
                drop(writer);
            }
        }
        Ok(text.into())
    }
}

fn write_record(writer: &mut csv::Writer<&mut Vec<u8>>, view: &UsageView) -> csv::Result<()> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    // What clients wrote; the rest are Bursar's own words and numbers.
    let foreign =
        |text: &Option<String>| csv_cell::write(text.as_deref().unwrap_or_default()).into_owned();
    writer.write_record([
        view.id.as_str(),
        view.kind,
        &view.integration_id,
        &csv_cell::write(&view.call_id),
        &foreign(&view.session_id),
        &foreign(&view.agent_id),
        &csv_cell::write(&view.provider),
        &csv_cell::write(&view.model),
        &view.tokens_in.to_string(),
        &view.tokens_out.to_string(),
        &view.total_tokens.to_string(),
        &view.tokens_cache_read.to_string(),
        &view.tokens_cache_write.to_string(),
        &view.tokens_reasoning.to_string(),
        &view.cost_cents.to_string(),
        &view.cost_usd,
        view.cost_source,
        &text(&view.reported_cost_usd),
        &text(&view.computed_cost_usd),
        view.usage_status,
        &view.latency_ms.map(|latency_ms| latency_ms.to_string()).unwrap_or_default(),
        view.policy_result,
        &foreign(&view.error_code),
        &foreign(&view.error_message),
        &csv_cell::write(view.metadata.get()),
        &view.occurred_at,
        &view.created_at,
    ])
}
