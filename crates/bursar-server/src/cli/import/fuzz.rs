//! Fuzzing of imported files and column mappings.

use std::collections::BTreeMap;
use std::path::Path;

use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};
use serde_json::value::RawValue;

use super::source::Row;
use super::{ImportArguments, Mapping, Rows};
use crate::api::telemetry::export_format::UsageFormat;
use crate::cli::client::ServerArgs;

const CSVS: &[&str] = &[
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n\
     2023-11-16 18:17:04.0319600,3180,8\n",
    "call_id,provider,model,tokens_in,tokens_out,cost_cents,occurred_at,metadata\r\n\
     a-1,openai,gpt-4o,800,200,1.25,2026-03-14T09:00:00+01:00,\"{\"\"a\"\": [1]}\"\r\n\
     a-2,openai,\"gpt \"\"4\"\"\",1,2,1e-05,2026-03-29 02:30:00,\n",
    "\u{feff}tokens_in; tokens_out\n1;2\n",
];
const NDJSONS: &[&str] = &[
    "{\"call_id\":\"a-1\",\"provider\":\"openai\",\"model\":\"gpt-4o\",\"tokens_in\":8,\"tokens_out\":2}\n\
     \n{\"ts\":\"2026-10-25 02:30:00\",\"tokens_in\":null,\"metadata\":{\"a\":[1,{}]},\"cost_cents\":1.5}\n",
    "{\"occurred_at\":1700000000,\"latency_ms\":\"12\"} \r\n{\"a\":\"\\ud83d\\ude00\"}",
];
const MAPS: &[&str] = &[
    "tokens_in=ContextTokens",
    "tokens_out=GeneratedTokens",
    "occurred_at=TIMESTAMP",
    "occurred_at=ts",
    "model=a",
];
const SETS: &[&str] = &[
    "provider=openai",
    "model= gpt-4o ",
    "cost_cents=1.25",
    "tokens_in=7",
    "metadata={\"team\": \"a\"}",
    "occurred_at=2026-03-29 02:30:00",
    "occurred_at=2026-03-14T09:00:00Z",
];
const ZONES: &[&str] = &["UTC", "Europe/Berlin", "Antarctica/Troll", "America/New_York", "+01:00"];
const WORDS: &[&str] =
    &["\"", "\"\"", ",", "\n", "\r\n", "{", "}", "\\\"", ":", "TIMESTAMP", "=", " "];

fn any_arguments(choices: &mut Choices<'_>, file: &Path, format: UsageFormat) -> ImportArguments {
    let mut some = |texts: &[&str]| {
        let some = (0..choices.below(3)).map(|_| {
            let text = choices.one_of(texts);
            if choices.one_in(8) { choices.mutated(text, WORDS) } else { text.to_owned() }
        });
        some.collect::<Vec<_>>()
    };
    let (maps, sets, zones) = (some(MAPS), some(SETS), some(ZONES));
    ImportArguments {
        file: file.to_owned(),
        integration: None,
        tenant: None,
        maps,
        sets,
        time_zone: zones.into_iter().next(),
        format: Some(format),
        source: Some("a source".to_owned()),
        access: ServerArgs { url: None, api_key: None, data_dir: None, database: None },
    }
}

/// The result of each row of a file: a record or the error.
fn records(mapping: &Mapping, rows: &mut Rows) -> Vec<(u64, Result<String, String>)> {
    let mut records = Vec::new();
    while let Some(row) = rows.next_row().expect("a file that can be read") {
        let made = row.and_then(|row: Row| Ok((row.number, mapping.record(&row)?)));
        records.push(match made {
            Ok((number, record)) => (number, Ok(record)),
            Err(refusal) => (refusal.number, Err(refusal.reason)),
        });
    }
    records
}

/// Asserts that a record is one object with known fields and a call id.
fn check_record(record: &str) {
    let fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(record).unwrap_or_else(|error| panic!("{error}: {record}"));
    assert!(fields.contains_key("call_id"), "{record}");
    let known = super::record::FIELDS.iter();
    let known = known.filter(|(field, _)| fields.contains_key(*field)).count();
    assert_eq!(known, fields.len(), "{record}");
}

#[test]
fn a_file_comes_to_the_same_records_each_time_and_to_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("usage");
    fuzz(bolero::check!(), Effort { inputs: 500, ..Effort::PLAIN }, |choices| {
        let (format, texts) =
            choices.one_of(&[(UsageFormat::Csv, CSVS), (UsageFormat::Ndjson, NDJSONS)]);
        let text = choices.one_of(texts);
        let bytes = choices.mutated_bytes(text.as_bytes(), WORDS);
        std::fs::write(&path, &bytes).expect("written");
        let arguments = any_arguments(choices, &path, format);
        let Ok(mapping) = Mapping::new(&arguments) else { return Outcome::Refused };
        let Ok(mut rows) = Rows::open(&path, Some(format)) else { return Outcome::Refused };
        if mapping.check_columns(rows.columns()).is_err() {
            return Outcome::Refused;
        }
        let found = records(&mapping, &mut rows);
        assert!(rows.bytes_read() <= rows.bytes_total(), "{bytes:?}");
        assert!(found.is_sorted_by(|(number, _), (next, _)| number < next), "{found:?}");
        for record in found.iter().filter_map(|(_, record)| record.as_ref().ok()) {
            check_record(record);
        }
        let mut again = Rows::open(&path, Some(format)).expect("as before");
        assert_eq!(records(&mapping, &mut again), found);
        if found.iter().any(|(_, record)| record.is_ok()) {
            Outcome::Accepted
        } else {
            Outcome::Refused
        }
    });
}
