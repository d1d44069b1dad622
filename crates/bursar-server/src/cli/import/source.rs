//! Reads the rows of a file one by one, in constant memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::value::RawValue;

use super::error::ImportError;
use crate::api::telemetry::export_format::UsageFormat;
use crate::wire::csv_cell;

/// The longest line of NDJSON in bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// The most bytes of one CSV row. An unclosed quote would turn the rest of the file into one row.
const ROW_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Row {
    /// Counted from 1 without the header.
    pub(super) number: u64,
    pub(super) values: BTreeMap<String, Value>,
    /// The text that the call id is derived from.
    pub(super) content: String,
}

/// A value of a row.
#[derive(Debug)]
pub(super) enum Value {
    /// A CSV cell. Its type depends on the field.
    Cell(String),
    /// A JSON value.
    Json(Box<RawValue>),
}

/// Why a row is refused.
#[derive(Debug)]
pub(super) struct RowError {
    pub(super) number: u64,
    /// The reason, as a sentence.
    pub(super) reason: String,
}

/// The rows of a file.
pub(super) struct Rows {
    reader: Reader,
    number: u64,
    bytes_total: u64,
}

enum Reader {
    Csv { reader: csv::Reader<RowFile>, columns: Vec<String>, blanks: Blanks },
    Ndjson { reader: BufReader<File>, bytes_read: u64 },
}

/// Whether blanks around a cell are part of its value.
#[derive(Clone, Copy)]
enum Blanks {
    /// Kept: the file is an export of Bursar.
    Kept,
    /// Trimmed: the file comes from another program or a person.
    Trimmed,
}

impl Blanks {
    fn cell(self, cell: &str) -> String {
        let cell = match self {
            Self::Kept => cell,
            Self::Trimmed => cell.trim(),
        };
        csv_cell::read(cell).into_owned()
    }
}

impl Rows {
    pub(super) fn open(path: &Path, format: Option<UsageFormat>) -> Result<Self, ImportError> {
        let failed = |cause: &dyn std::fmt::Display| {
            ImportError::new(format!("cannot read {}: {cause}", path.display()))
        };
        let file = File::open(path).map_err(|error| failed(&error))?;
        let bytes_total = file.metadata().map_err(|error| failed(&error))?.len();
        let format = format.or_else(|| UsageFormat::of(path));
        let unknown =
            || ImportError::new("the format is unknown: give --format csv or --format ndjson");
        let format = format.ok_or_else(unknown)?;
        let reader = match format {
            UsageFormat::Ndjson => Reader::Ndjson { reader: BufReader::new(file), bytes_read: 0 },
            UsageFormat::Csv => {
                let mut reader = csv::Reader::from_reader(RowFile { file, left: ROW_BYTES_MAX });
                let header = reader.headers().map_err(|error| failed(&error))?;
                let name = |column: &str| column.trim_start_matches('\u{feff}').trim().to_owned();
                let columns: Vec<String> = header.iter().map(name).collect();
                let is_export = UsageFormat::is_export(&columns);
                let blanks = if is_export { Blanks::Kept } else { Blanks::Trimmed };
                Reader::Csv { reader, columns, blanks }
            }
        };
        Ok(Self { reader, number: 0, bytes_total })
    }

    /// The columns of the header. `None` if every row names its own.
    pub(super) fn columns(&self) -> Option<&[String]> {
        match &self.reader {
            Reader::Csv { columns, .. } => Some(columns),
            Reader::Ndjson { .. } => None,
        }
    }

    pub(super) const fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    pub(super) fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Csv { reader, .. } => reader.position().byte(),
            Reader::Ndjson { bytes_read, .. } => *bytes_read,
        }
    }

    /// The next row or its error. `None` at the end of the file.
    pub(super) fn next_row(&mut self) -> Result<Option<Result<Row, RowError>>, ImportError> {
        match &mut self.reader {
            Reader::Csv { reader, columns, blanks } => {
                next_csv(reader, (columns, *blanks), &mut self.number)
            }
            Reader::Ndjson { reader, bytes_read } => {
                next_ndjson(reader, bytes_read, &mut self.number)
            }
        }
    }
}

/// A reader that limits the bytes of one row.
struct RowFile {
    file: File,
    left: usize,
}

impl Read for RowFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other(
                "a row has more than 1 MiB; check that every quote is closed",
            ));
        }
        let room = self.left.min(buffer.len());
        let read = self.file.read(buffer.get_mut(..room).unwrap_or_default())?;
        self.left -= read;
        Ok(read)
    }
}

type Next = Result<Option<Result<Row, RowError>>, ImportError>;

fn next_csv(
    reader: &mut csv::Reader<RowFile>,
    (columns, blanks): (&[String], Blanks),
    number: &mut u64,
) -> Next {
    let mut record = csv::StringRecord::new();
    reader.get_mut().left = ROW_BYTES_MAX;
    let more = match reader.read_record(&mut record) {
        Ok(more) => more,
        Err(error) if error.is_io_error() => {
            return Err(ImportError::new(format!("the file cannot be read to its end: {error}")));
        }
        Err(error) => {
            *number += 1;
            let reason = format!("is not valid CSV: {error}");
            return Ok(Some(Err(RowError { number: *number, reason })));
        }
    };
    if !more {
        return Ok(None);
    }
    *number += 1;
    let cells = record.iter().map(|cell| Value::Cell(blanks.cell(cell)));
    let values = columns.iter().cloned().zip(cells);
    let content = record.iter().map(str::trim).collect::<Vec<_>>().join("\u{1f}");
    Ok(Some(Ok(Row { number: *number, values: values.collect(), content })))
}

fn next_ndjson(reader: &mut BufReader<File>, bytes_read: &mut u64, number: &mut u64) -> Next {
    let broke = |cause: std::io::Error| {
        ImportError::new(format!("the file cannot be read to its end: {cause}"))
    };
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(broke)? as u64;
        if read == 0 {
            return Ok(None);
        }
        *bytes_read += read;
        *number += 1;
        let refuse =
            |reason: &str| Ok(Some(Err(RowError { number: *number, reason: reason.to_owned() })));
        if read == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            *bytes_read += skip_line(reader).map_err(broke)?;
            return refuse("has more than 1 MiB");
        }
        let Ok(text) = std::str::from_utf8(&line) else { return refuse("is not valid UTF-8") };
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let Ok(fields) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text) else {
            return refuse("is not a JSON object");
        };
        let values = fields.into_iter().map(|(name, value)| (name, Value::Json(value))).collect();
        return Ok(Some(Ok(Row { number: *number, values, content: text.to_owned() })));
    }
}

fn skip_line(reader: &mut BufReader<File>) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(taken);
        skipped += taken as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}
