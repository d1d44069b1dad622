//! Texts of clients in CSV cells and on terminals.

use bursar_server::cli::terminal;
use bursar_server::wire::csv_cell;
use bursar_testing::fuzzing::{Choices, Effort, Outcome, fuzz};

const TEXTS: &[&str] = &["", "gpt-4o", "=1+1", "'twas", "''=1", "'\"a", "two\r\nlines", "a;b\tc"];
const WORDS: &[&str] = &[
    "=",
    "+",
    "-",
    "@",
    "＝",
    "＋",
    "－",
    "＠",
    "'",
    "\"",
    "\\",
    ";",
    "\t",
    "\r",
    "\n",
    " ",
    "\u{1b}[2J",
    "\u{9b}",
    "\u{200b}",
    "\u{202e}",
    "\u{2028}",
];

fn any_text(choices: &mut Choices<'_>) -> String {
    let text = choices.one_of(TEXTS);
    choices.mutated(text, WORDS)
}

/// Asserts that a cell is no formula; tells whether its text was changed for that.
fn check_cell(text: &str) -> Outcome {
    let cell = csv_cell::write(text);
    assert_eq!(csv_cell::read(&cell), *text, "{cell:?}");
    let ends = cell.replace("\r\n", "\n");
    let is_control = |letter: char| letter.is_control() && !matches!(letter, '\t' | '\n');
    assert!(!ends.contains(is_control), "{cell:?}");
    for part in cell.split([';', '\t', '\n']) {
        let seen = part.trim_start_matches(|c: char| c == ' ' || terminal::is_hidden(c));
        assert!(!seen.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{cell:?}");
    }
    if cell == text { Outcome::Accepted } else { Outcome::Refused }
}

#[test]
fn a_csv_cell_is_harmless_and_reads_back_as_its_text() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| check_cell(&any_text(choices)));
}

#[test]
fn texts_read_back_from_a_csv_line() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let texts: Vec<String> = (0..=choices.below(3)).map(|_| any_text(choices)).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let cells = texts.iter().map(|text| csv_cell::write(text).into_owned());
        // One header per cell: at the start of a file a byte order mark is not text.
        writer.write_record(texts.iter().map(|_| "name")).expect("memory");
        writer.write_record(cells).expect("memory");
        let file = writer.into_inner().expect("memory");
        let mut reader = csv::Reader::from_reader(&*file);
        let record = reader.records().next().expect("a line").expect("CSV");
        let read: Vec<_> = record.iter().map(|cell| csv_cell::read(cell).into_owned()).collect();
        assert_eq!(read, texts, "{}", String::from_utf8_lossy(&file));
        if texts.len() == 1 { Outcome::Accepted } else { Outcome::Refused }
    });
}

#[test]
fn different_values_look_different_in_a_table() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (one, other) = (any_text(choices), any_text(choices));
        let (shown, beside) = (terminal::cell(&one), terminal::cell(&other));
        assert_eq!(shown == beside, one == other, "{one:?} {other:?}");
        assert!(!shown.contains(terminal::is_hidden), "{shown:?}");
        if shown == one { Outcome::Accepted } else { Outcome::Refused }
    });
}

#[test]
fn json_escaped_for_a_terminal_is_the_same_value() {
    fuzz(bolero::check!(), Effort::PLAIN, |choices| {
        let (name, text) = (any_text(choices), any_text(choices));
        let value = serde_json::json!({ name: [text, "\u{e0041}"] });
        let json = value.to_string();
        let shown = terminal::json(&json);
        assert!(!shown.contains(terminal::is_hidden), "{shown:?}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read, value);
        if json.contains('\\') { Outcome::Refused } else { Outcome::Accepted }
    });
}
