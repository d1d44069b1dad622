//! Prints text from other sources to a terminal, with invisible characters escaped.
//!
//! Names, messages and files come from clients, providers and servers. A control character in them
//! would act on the reader's terminal, and a bidirectional or zero-width character would make two
//! different names look alike. Everything that this binary prints goes through [`print_line`] and
//! its siblings; the log goes through [`line()`] and [`json`].

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::RangeInclusive;

/// Invisible characters besides control characters and white space:
///
/// Unicode's default ignorable code points, its interlinear annotations and the blank Braille
/// pattern.
const INVISIBLE: &[RangeInclusive<char>] = &[
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Whether a character is invisible, looks like a blank, or acts on a terminal.
pub fn is_hidden(letter: char) -> bool {
    match letter {
        ' '..='~' => false,
        _ if letter.is_control() || letter.is_whitespace() => true,
        _ => INVISIBLE.iter().any(|range| range.contains(&letter)),
    }
}

/// A text on one line, with every hidden character escaped (`\n`, `\u{202e}`).
pub fn line(text: &str) -> Cow<'_, str> {
    written(text, is_hidden, push_escaped)
}

/// A value in a table.
///
/// Like [`line()`], but a backslash is doubled, so that different values never look alike.
pub fn cell(text: &str) -> Cow<'_, str> {
    written(text, |letter| letter == '\\' || is_hidden(letter), push_escaped)
}

/// JSON with every hidden character in its strings escaped as in JSON. The values stay the same.
pub fn json(text: &str) -> Cow<'_, str> {
    // Outside of strings, valid JSON contains no other hidden characters than these.
    let is_hidden = |letter| is_hidden(letter) && !matches!(letter, '\n' | '\r' | '\t');
    written(text, is_hidden, |text, letter| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

/// Text with its line ends kept and every other hidden character escaped.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    written(text, |letter| letter != '\n' && is_hidden(letter), push_escaped)
}

fn push_escaped(text: &mut String, letter: char) {
    match letter {
        '\\' | '\n' | '\r' | '\t' => text.extend(letter.escape_default()),
        _ => text.extend(letter.escape_unicode()),
    }
}

fn written(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_escaped(letter) {
            escape(&mut written, letter);
        } else {
            written.push(letter);
        }
    }
    Cow::Owned(written)
}

/// Prints lines to the standard output.
///
/// # Errors
/// Errors of the system.
pub(crate) fn print_lines(text: &str) -> io::Result<()> {
    print_verbatim(&lines(text))
}

/// Prints one line to the standard output.
///
/// # Errors
/// Errors of the system.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    print_verbatim(&(line(text) + "\n"))
}

/// Prints a text of Bursar's own to the standard output, unchanged.
///
/// A closed pipe is not an error: the reader has seen enough.
///
/// # Errors
/// Other errors of the system.
pub(crate) fn print_verbatim(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

/// Prints one line to the standard error output. Errors are ignored.
pub(crate) fn print_error_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", line(text));
}

/// Writes a file to a terminal with hidden characters escaped.
pub(crate) struct EscapedWriter<W> {
    to: W,
    /// The first bytes of a character that is not complete yet.
    begun: Vec<u8>,
}

impl<W: Write> EscapedWriter<W> {
    pub(crate) fn on(to: W) -> Self {
        Self { to, begun: Vec::new() }
    }

    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(lines(&String::from_utf8_lossy(bytes)).as_bytes())
    }
}

impl<W: Write> Write for EscapedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = std::mem::take(&mut self.begun);
        text.extend_from_slice(bytes);
        // Bytes that cannot become a character are shown as U+FFFD.
        let open = match std::str::from_utf8(&text) {
            Err(error) if error.error_len().is_none() => text.len() - error.valid_up_to(),
            Ok(_) | Err(_) => 0,
        };
        self.begun = text.split_off(text.len() - open);
        self.show(&text)?;
        Ok(bytes.len())
    }

    /// Flushes complete characters. An incomplete one waits for its last byte.
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_hides_is_written_out() {
        for (text, shown) in [
            ("plain name, größer 東京 🙂", "plain name, größer 東京 🙂"),
            ("\u{1b}[31mred\u{1b}[0m", r"\u{1b}[31mred\u{1b}[0m"),
            ("\u{9b}2J\u{7f}\u{0}", r"\u{9b}2J\u{7f}\u{0}"),
            ("two\nlines\r\tend", r"two\nlines\r\tend"),
            ("pay\u{202e}lap", r"pay\u{202e}lap"),
            ("\u{2066}a\u{2069}\u{200f}\u{61c}", r"\u{2066}a\u{2069}\u{200f}\u{61c}"),
            ("pro\u{200b}d\u{2060}\u{feff}\u{ad}", r"pro\u{200b}d\u{2060}\u{feff}\u{ad}"),
            ("a\u{a0}b\u{3000}c\u{2028}d\u{2029}", r"a\u{a0}b\u{3000}c\u{2028}d\u{2029}"),
            ("tag\u{e0041}\u{fe0f}\u{3164}\u{2800}", r"tag\u{e0041}\u{fe0f}\u{3164}\u{2800}"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(cell(r"a\u{200b}"), r"a\\u{200b}");
        assert_eq!(cell("a\u{200b}"), r"a\u{200b}");
    }

    #[test]
    fn a_character_that_comes_in_two_pieces_is_shown_whole() {
        let mut shown = EscapedWriter::on(Vec::new());
        let text = "ä🙂\u{202e}\n\u{9b}".as_bytes();
        for byte in text {
            shown.write_all(&[*byte]).unwrap();
        }
        shown.write_all(b"\xff\xc3!").unwrap();
        assert_eq!(String::from_utf8(shown.to).unwrap(), "ä🙂\\u{202e}\n\\u{9b}\u{fffd}\u{fffd}!");
    }
}
