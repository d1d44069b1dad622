//! JSON on one line, for every reader's notion of a line end.
//!
//! JSON escapes line feeds and carriage returns in strings, but not the line separators of Unicode,
//! at which line readers of JavaScript and Python end a line.
//!
//! Control characters are always written as `\u00XX`. A short escape ends with a letter, which
//! forms another word with the letters that follow: `\n` before `vapi-...` looks like a key.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// Writes a value without blanks, line breaks or line separators outside of escapes.
///
/// Raw JSON inside the value is copied, so it must be on one line already.
///
/// # Errors
/// Errors of the writer.
pub fn write(out: impl io::Write, value: &impl Serialize) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, OneLine))
}

/// A compact formatter that escapes line separators and avoids short escapes.
struct OneLine;

const fn escape_of(character: char) -> Option<&'static [u8]> {
    match character {
        '\u{85}' => Some(b"\\u0085"),
        '\u{2028}' => Some(b"\\u2028"),
        '\u{2029}' => Some(b"\\u2029"),
        _ => None,
    }
}

impl Formatter for OneLine {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, separator)) =
            rest.char_indices().find(|(_, character)| escape_of(*character).is_some())
        {
            let (before, after) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            writer.write_all(escape_of(separator).unwrap_or_default())?;
            rest = after.get(separator.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let control = match escape {
            CharEscape::Quote => return writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return writer.write_all(b"\\\\"),
            CharEscape::Solidus => return writer.write_all(b"\\/"),
            CharEscape::Backspace => 0x08,
            CharEscape::Tab => b'\t',
            CharEscape::LineFeed => b'\n',
            CharEscape::FormFeed => 0x0c,
            CharEscape::CarriageReturn => b'\r',
            CharEscape::AsciiControl(control) => control,
        };
        write!(writer, "\\u{control:04x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reader_sees_the_end_of_a_line_in_a_text() {
        let text = "a\nb\rc\u{b}d\u{c}e\u{1c}f\u{85}g\u{2028}h\u{2029}\u{2028}i\u{e4}";
        let mut line = Vec::new();
        write(&mut line, &serde_json::json!({ text: [text, 1.5, null] })).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(!line.contains(['\u{2028}', '\u{2029}']), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read, serde_json::json!({ text: [text, 1.5, null] }));
    }

    #[test]
    fn no_escape_makes_another_word_of_what_follows() {
        let controls: String = (0..0x20_u8).map(char::from).collect();
        let text = format!("{controls}\\\"/");
        let mut line = Vec::new();
        write(&mut line, &text).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        let escapes = line.split('\\').skip(1).filter(|escape| !escape.is_empty());
        assert!(escapes.clone().count() >= 32);
        for escape in escapes {
            assert!(escape.starts_with("u00") || escape.starts_with('"'), "{line}");
        }
    }
}
