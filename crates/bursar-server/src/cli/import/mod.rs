//! `bursar usage import`: import usage records from CSV with a header or from NDJSON.
//!
//! Unless a column holds call ids, they are derived from the name of the source and from the number
//! and content of the row. Importing the same file again changes nothing, and a file that grew adds
//! only its new rows.

mod arguments;
mod error;
#[cfg(test)]
mod fuzz;
mod record;
mod sink;
mod source;

use std::process::ExitCode;

use indicatif::ProgressBar;

pub(crate) use self::arguments::ImportArguments;
pub(crate) use self::error::ImportError;
use self::record::Mapping;
use self::source::{Row, Rows};
use crate::cli::client::ApiClient;
use crate::cli::progress::progress;
use crate::cli::terminal::{print_error_line, print_line};
use crate::config::settings::Config;

/// The rows of one batch.
const ROWS_MAX: usize = 1_000;
/// The bytes of one batch, well below the limit of the server.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The refused rows that are printed. Further ones are only counted.
const SHOWN_MAX: u64 = 20;

/// The results of the rows.
#[derive(Debug, Default)]
struct ImportCounts {
    accepted: u64,
    duplicates: u64,
    refused: u64,
}

/// Imports a file, shows the progress and prints the result.
///
/// Returns success if every row is stored, by this import or an earlier one.
///
/// # Errors
/// [`ImportError`] if the import cannot continue. Running it again continues where it stopped.
pub(crate) fn run(config: &Config, arguments: ImportArguments) -> Result<ExitCode, ImportError> {
    let mapping = Mapping::new(&arguments)?;
    let mut rows = Rows::open(&arguments.file, arguments.format)?;
    mapping.check_columns(rows.columns())?;
    let counts = ApiClient::with(config, &arguments.access, |client| {
        client.select_tenant(arguments.tenant.as_deref())?;
        send_all(client, &mapping, &mut rows)
    })?;
    let ImportCounts { accepted, duplicates, refused } = counts;
    print_line(&format!("{accepted} accepted, {duplicates} duplicates, {refused} refused"))
        .map_err(|error| ImportError::new(error.to_string()))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn send_all(
    client: &ApiClient,
    mapping: &Mapping,
    rows: &mut Rows,
) -> Result<ImportCounts, ImportError> {
    let bar = progress(rows.bytes_total());
    let mut counts = ImportCounts::default();
    let mut records: Vec<(u64, String)> = Vec::with_capacity(ROWS_MAX);
    let mut bytes = 0;
    while let Some(row) = rows.next_row()? {
        match row.and_then(|row: Row| Ok((row.number, mapping.record(&row)?))) {
            Ok(record) => {
                bytes += record.1.len();
                records.push(record);
            }
            Err(error) => counts.refuse(&bar, error.number, &error.reason),
        }
        if records.len() == ROWS_MAX || bytes >= BYTES_MAX {
            send(client, &mut records, &mut counts, &bar)?;
            bytes = 0;
            bar.set_position(rows.bytes_read());
        }
    }
    send(client, &mut records, &mut counts, &bar)?;
    bar.finish_and_clear();
    Ok(counts)
}

fn send(
    client: &ApiClient,
    records: &mut Vec<(u64, String)>,
    counts: &mut ImportCounts,
    bar: &ProgressBar,
) -> Result<(), ImportError> {
    if records.is_empty() {
        return Ok(());
    }
    let texts: Vec<&str> = records.iter().map(|(_, text)| text.as_str()).collect();
    let fates = sink::send(client, &texts)?;
    for ((number, _), fate) in records.iter().zip(fates) {
        match fate {
            sink::RecordResult::Accepted => counts.accepted += 1,
            sink::RecordResult::Duplicate => counts.duplicates += 1,
            sink::RecordResult::Refused(reason) => counts.refuse(bar, *number, &reason),
        }
    }
    records.clear();
    Ok(())
}

impl ImportCounts {
    fn refuse(&mut self, bar: &ProgressBar, number: u64, reason: &str) {
        self.refused += 1;
        if self.refused <= SHOWN_MAX {
            bar.suspend(|| print_error_line(&format!("row {number}: {reason}")));
        } else if self.refused == SHOWN_MAX + 1 {
            bar.suspend(|| print_error_line("further refused rows are counted but not printed"));
        }
    }
}
