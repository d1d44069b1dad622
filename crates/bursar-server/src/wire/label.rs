//! Labels of usage records: names of agents, models and the like, which lists, metrics and
//! terminals show.
//!
//! A record is a fact, so a label is not refused for its spelling: it is trimmed, and characters
//! that would act on a terminal or end a line are replaced. Deliberately absent: call ids, because a
//! replacement could make two different call ids equal ([`bursar_core::CallId`]).

use bursar_core::is_control;

/// What takes the place of a character that is not kept.
const REPLACEMENT: &str = "\u{fffd}";

/// Trims a label and replaces its control characters.
pub(crate) fn clean_label(label: impl Into<Box<str>>) -> Box<str> {
    let label = label.into();
    let trimmed = label.trim();
    if is_plain(trimmed) || !trimmed.contains(is_control) {
        return if trimmed.len() == label.len() { label } else { trimmed.into() };
    }
    trimmed.replace(is_control, REPLACEMENT).into()
}

/// The message without NUL, which PostgreSQL cannot store. Its line breaks are kept.
pub(crate) fn clean_message(message: Box<str>) -> Box<str> {
    if message.as_bytes().contains(&0) {
        return message.replace('\0', REPLACEMENT).into();
    }
    message
}

/// Whether a text consists of visible ASCII and spaces, as most labels do.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(label: &str, clean: &str) {
        assert_eq!(&*clean_label(label), clean, "{label:?}");
        assert_eq!(&*clean_label(clean), clean, "cleaning twice changes nothing");
    }

    #[test]
    fn a_label_is_trimmed_and_has_no_control_characters() {
        check("gpt-4o", "gpt-4o");
        check(" openai \r\n", "openai");
        check("\u{a0}größe\u{3000}", "größe");
        check("a\nb\u{1b}[2Jc\u{7f}d\u{85}e", "a\u{fffd}b\u{fffd}[2Jc\u{fffd}d\u{fffd}e");
        check("a\u{2028}b\u{2029}c\0d", "a\u{fffd}b\u{fffd}c\u{fffd}d");
        check("\u{2028} \t", "");
        check("e\u{301}\u{200d}👩\u{200d}🚀", "e\u{301}\u{200d}👩\u{200d}🚀");
    }

    #[test]
    fn a_message_keeps_its_lines_and_loses_nul() {
        assert_eq!(&*clean_message("a\0b\r\n\tc".into()), "a\u{fffd}b\r\n\tc");
        assert_eq!(&*clean_message(" a ".into()), " a ");
    }
}
