//! Finds JSON that is nested too deeply, before it is parsed.
//!
//! Parsers that skip a value do not count its depth, and parsers that count it use the stack.

/// The deepest accepted nesting.
pub(crate) const DEPTH_MAX: usize = 64;

/// Where a text exceeds [`DEPTH_MAX`], as line and column from 1.
pub(crate) fn find_too_deep(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    // Most texts have fewer brackets than this in all, and counting them is cheap.
    let opens = |byte: &&u8| matches!(byte, b'{' | b'[');
    if bytes.iter().filter(opens).count() <= DEPTH_MAX {
        return None;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let at = bytes.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH_MAX
    })?;
    let before = bytes.get(..at).unwrap_or_default();
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Some((line, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(usize, usize)>) {
        assert_eq!(find_too_deep(text), expected, "{text}");
    }

    #[test]
    fn the_depth_is_counted_to_its_bound() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        check(&nested(64), None);
        check(&nested(65), Some((1, 65)));
        check(&format!("{{\n \"a\":{}}}", nested(64)), Some((2, 69)));
        check(&"[]".repeat(1_000), None);
        check(&format!("{}{}", "{".repeat(65), "]".repeat(9)), Some((1, 65)));
    }

    #[test]
    fn brackets_in_texts_are_no_nesting() {
        let brackets = "[".repeat(100);
        check(&format!("\"{brackets}\""), None);
        check(&format!("\"\\\"{brackets}\""), None);
        check(&format!("\"\\\\\"{brackets}"), Some((1, 69)));
    }
}
