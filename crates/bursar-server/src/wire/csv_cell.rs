//! Text in CSV cells: safe for spreadsheets and terminals, and read back unchanged.
//!
//! A spreadsheet evaluates a cell that starts like a formula, and a terminal obeys control
//! characters. [`write()`] therefore puts an apostrophe before a text that looks like a formula, as
//! spreadsheets do themselves. A text with other control characters, or one that would start a
//! formula where a program splits it, becomes an apostrophe and a JSON string. [`read`] removes
//! exactly this. Numbers that Bursar writes are not text and get no mark.

use std::borrow::Cow;

use crate::cli::terminal;

/// Marks a cell as text.
const MARK: char = '\'';
/// Characters that start a formula, including the full-width forms that spreadsheets accept.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// Where a program with another separator than the comma starts a new cell.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];

/// Writes a text as a cell.
pub fn write(text: &str) -> Cow<'_, str> {
    if has_controls(text) || begins_formula_within(text) {
        let string = serde_json::Value::from(text).to_string();
        return Cow::Owned(format!("{MARK}{}", terminal::json(&string).replace(';', "\\u003b")));
    }
    if is_marked(text) { Cow::Owned(format!("{MARK}{text}")) } else { Cow::Borrowed(text) }
}

/// Reads a cell, without the mark that [`write()`] would have put there.
pub fn read(cell: &str) -> Cow<'_, str> {
    let Some(text) = cell.strip_prefix(MARK) else { return Cow::Borrowed(cell) };
    if text.starts_with('"') {
        return serde_json::from_str(text).map_or(Cow::Borrowed(cell), Cow::Owned);
    }
    Cow::Borrowed(if is_marked(text) { text } else { cell })
}

/// Whether [`write()`] marks a text.
///
/// It looks behind existing marks, so that every text has its own cell, and leaves other
/// apostrophes alone.
fn is_marked(text: &str) -> bool {
    let bare = text.trim_start_matches(MARK);
    let is_string = bare.len() < text.len() && bare.starts_with('"');
    is_string
        || bare.starts_with(['\t', '\r', '\n'])
        || bare.trim_start_matches(is_passed_over).starts_with(FORMULA)
}

/// Programs skip blanks, and possibly invisible characters, before they look for a formula.
fn is_passed_over(letter: char) -> bool {
    letter == ' ' || terminal::is_hidden(letter)
}

fn begins_formula_within(text: &str) -> bool {
    let mut begins = false;
    for letter in text.chars() {
        if begins && FORMULA.contains(&letter) {
            return true;
        }
        begins = SEPARATORS.contains(&letter) || begins && is_passed_over(letter);
    }
    false
}

/// Whether a text has control characters other than tabs and line ends, which may be `\r\n`.
fn has_controls(text: &str) -> bool {
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_plain = match letter {
            '\t' | '\n' => true,
            '\r' => letters.peek() == Some(&'\n'),
            _ => !letter.is_control(),
        };
        if !is_plain {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_marked_as_text() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1", "'＝1"),
            ("＠a", "'＠a"),
            (" =1", "' =1"),
            ("\u{feff}\u{200b}=1", "'\u{feff}\u{200b}=1"),
            ("\ttab", "'\ttab"),
            ("\nline", "'\nline"),
            ("'=1", "''=1"),
            ("'\"a", "''\"a"),
            ("\r=1", r#"'"\r=1""#),
            ("\t=1", r#"'"\t=1""#),
            ("a;=1", r#"'"a\u003b=1""#),
            ("a\n @b", r#"'"a\n @b""#),
            ("a\u{1b}[2J", r#"'"a\u001b[2J""#),
            ("a\u{9b}2J", r#"'"a\u009b2J""#),
        ] {
            assert_eq!(write(text), cell);
            assert_eq!(read(cell), text);
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["", "gpt-4o", "a=b", "'twas", "''", "two\r\nlines\tend", "\"quoted\"", "ä;b"]
        {
            assert_eq!(write(text), text);
            assert_eq!(read(text), text);
        }
        // A cell of another program, not of Bursar.
        assert_eq!(read("'\"open"), "'\"open");
    }
}
