//! The statements of a store, read from its source.

use std::path::{Path, PathBuf};

/// A text constant of the source.
pub(crate) struct Constant {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) text: String,
}

/// Every `const NAME: &str = "..."` of the files in a folder of this crate, and every
/// `const NAME: LockedSql = locked!("...")` without its lock.
pub(crate) fn constants(folder: &str) -> Vec<Constant> {
    let mut found = Vec::new();
    for (file, source) in sources(folder) {
        for piece in source.split("const ").skip(1) {
            let Some((name, rest)) = piece.split_once(": ") else { continue };
            let rest =
                rest.strip_prefix("&str =").or_else(|| rest.strip_prefix("LockedSql = locked!("));
            let Some(rest) = rest else { continue };
            let is_name =
                name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_numeric());
            if !is_name {
                continue;
            }
            let literal = rest.trim_start().strip_prefix('"').unwrap();
            let text = unescaped(literal);
            found.push(Constant { name: name.to_owned(), file: file.clone(), text });
        }
    }
    found
}

/// The name and the text of each file in a folder of this crate, in their order.
pub(crate) fn sources(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The literal up to its closing quote; a line that ends in a backslash goes on in the next one.
fn unescaped(literal: &str) -> String {
    let mut text = String::new();
    let mut characters = literal.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => return text,
            '\\' => {
                assert_eq!(characters.next(), Some('\n'), "no other escape is known here");
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
            }
            other => text.push(other),
        }
    }
    unreachable!("a literal without an end")
}
