//! Characters that names and labels must not have.

/// Whether a character would act on a terminal or end a line: a control character, or a separator
/// of lines or paragraphs.
pub fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}
