//! The file formats of a usage export.

use std::io;
use std::path::Path;

use bursar_store::UsageRow;
use bytes::Bytes;
use clap::ValueEnum;

use crate::api::telemetry::record_view::UsageView;
use crate::wire::csv_cell;
use crate::wire::enums::enum_schemas;
use crate::wire::json_line;

/// The columns of a CSV file, in order. The first line of the file lists them.
const COLUMNS: [&str; 40] = [
    "id",
    "kind",
    "integration_id",
    "call_id",
    "session_id",
    "agent_id",
    "provider",
    "model",
    "response_model",
    "region",
    "provider_request_id",
    "service_tier",
    "tokens_in",
    "tokens_out",
    "total_tokens",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_cache_write_long",
    "tokens_audio_in",
    "tokens_image_in",
    "tokens_reasoning",
    "tokens_audio_out",
    "tokens_image_out",
    "units",
    "tags",
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
    "source",
    "key_id",
    "occurred_at",
    "created_at",
];

/// The format of a usage file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsageFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

enum_schemas! {
    /// The format of an export.
    ExportFormat in UsageFormat = UsageFormat::as_str { Csv, Ndjson };
}

impl UsageFormat {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// The format that the extension of a file name implies.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Parses the name of a format.
    ///
    /// # Errors
    /// The rest of a sentence about the parameter.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut known = [Self::Csv, Self::Ndjson].into_iter();
        known.find(|format| format.as_str() == text).ok_or("must be csv or ndjson")
    }

    /// `Content-Type` and `Content-Disposition`.
    pub(crate) const fn headers(self) -> (&'static str, &'static str) {
        match self {
            Self::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"usage.csv\""),
            Self::Ndjson => ("application/x-ndjson", "attachment; filename=\"usage.ndjson\""),
        }
    }

    /// What precedes the first entry.
    pub(crate) fn head(self) -> Bytes {
        match self {
            Self::Csv => Bytes::from(COLUMNS.join(",") + "\n"),
            Self::Ndjson => Bytes::new(),
        }
    }

    /// Whether these are the columns of a Bursar export. Its cells are read unchanged.
    pub(crate) fn is_export(columns: &[String]) -> bool {
        columns == COLUMNS
    }

    /// Encodes entries in order.
    ///
    /// # Errors
    /// If an entry cannot be encoded. Writing to memory does not fail by itself.
    pub(crate) fn write(self, rows: Vec<UsageRow>) -> Result<Bytes, io::Error> {
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
    // Fields that clients wrote. The others hold Bursar's own words and numbers.
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
        &foreign(&view.response_model),
        &foreign(&view.region),
        &foreign(&view.provider_request_id),
        &foreign(&view.service_tier),
        &view.tokens_in.to_string(),
        &view.tokens_out.to_string(),
        &view.total_tokens.to_string(),
        &view.tokens_cache_read.to_string(),
        &view.tokens_cache_write.to_string(),
        &view.tokens_cache_write_long.to_string(),
        &view.tokens_audio_in.to_string(),
        &view.tokens_image_in.to_string(),
        &view.tokens_reasoning.to_string(),
        &view.tokens_audio_out.to_string(),
        &view.tokens_image_out.to_string(),
        &csv_cell::write(view.units.get()),
        &csv_cell::write(view.tags.get()),
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
        view.source,
        &text(&view.key_id),
        &view.occurred_at,
        &view.created_at,
    ])
}
