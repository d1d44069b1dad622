//! Finds the SQL statements in the source of the store.

use std::path::{Path, PathBuf};

use bursar_store::COLUMN_LISTS;

/// A string constant of the source.
pub(crate) struct Constant {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) text: String,
}

/// Every statement of the files in a folder of this crate: `const NAME: &str = "..."` or
/// `concat!(...)`, a `locked!` without its lock, and both forms of an `of_owner!` with a database's
/// hint at an index.
pub(crate) fn constants(folder: &str, hint: &str) -> Vec<Constant> {
    let mut found = Vec::new();
    for (file, source) in sources(folder) {
        // Where the macro begins is a question of the width of a line.
        let source = source.replace("=\n    locked!(", "= locked!(");
        let source = source.replace("=\n    concat!(", "= concat!(");
        for piece in source.split("const ").skip(1) {
            let Some((name, rest)) = piece.split_once(": ") else { continue };
            let is_name =
                name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_numeric());
            if !is_name {
                continue;
            }
            let texts = if let Some(rest) = rest.strip_prefix("&str = concat!(") {
                vec![concatenated(rest)]
            } else if let Some(rest) = rest.strip_prefix("&str =") {
                vec![literal(rest).0]
            } else if let Some(rest) = rest.strip_prefix("LockedSql = locked!(") {
                vec![literal(rest).0]
            } else if let Some(rest) = rest.strip_prefix("OwnerSql = of_owner!(") {
                let (before, rest) = literal(rest);
                let (after, _) = literal(rest.trim_start().strip_prefix(',').unwrap());
                let of = |owner| {
                    format!("{before} from keys{hint} where tenant_id = $1 and {owner}{after}")
                };
                vec![of("integration_id is null"), of("integration_id = $2")]
            } else {
                continue;
            };
            let constant = |text| Constant { name: name.to_owned(), file: file.clone(), text };
            found.extend(texts.into_iter().map(constant));
        }
    }
    found
}

/// The name and the text of each file below a folder of this crate, sorted by path.
pub(crate) fn sources(folder: &str) -> Vec<(String, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (inner, found): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        files.extend(found);
    }
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The text of the arguments of a `concat!`: literals, and macros that list columns.
fn concatenated(source: &str) -> String {
    let (mut text, mut rest) = (String::new(), source.trim_start());
    while !rest.starts_with(')') {
        if rest.starts_with('"') {
            let (piece, after) = literal(rest);
            text.push_str(&piece);
            rest = after;
        } else {
            let (list, after) = rest.split_once(')').unwrap();
            let list = format!("{list})");
            let known = COLUMN_LISTS.iter().find(|(name, _)| *name == list);
            text.push_str(known.unwrap().1);
            rest = after;
        }
        rest = rest.trim_start().trim_start_matches(',').trim_start();
    }
    text
}

/// The string literal at the start of `source`, and the rest. A line that ends in a backslash
/// continues in the next one.
fn literal(source: &str) -> (String, &str) {
    let source = source.trim_start().strip_prefix('"').unwrap();
    let mut text = String::new();
    let mut characters = source.chars().peekable();
    let mut read = 0;
    while let Some(character) = characters.next() {
        read += character.len_utf8();
        match character {
            '"' => return (text, source.split_at(read).1),
            '\\' => {
                assert_eq!(characters.next(), Some('\n'), "an escape other than a line end");
                read += 1;
                while let Some(space) = characters.next_if(|next| next.is_whitespace()) {
                    read += space.len_utf8();
                }
            }
            other => text.push(other),
        }
    }
    unreachable!("a literal without an end")
}
