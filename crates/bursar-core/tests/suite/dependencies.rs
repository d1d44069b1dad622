//! The core stays pure: its dependencies, and words that its source must not contain.

use std::fs;
use std::path::{Path, PathBuf};

/// Words of floats, clocks, threads, randomness and wire formats.
const FORBIDDEN: [&str; 10] = [
    "f32",
    "f64",
    "Instant",
    "SystemTime",
    "std::time",
    "thread",
    "rand",
    "getrandom",
    "serde",
    "Serialize",
];

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The dependencies in a manifest, without those for development.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_table = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let table = |name: &str| header == name || header.ends_with(&format!(".{name}"));
            in_table = table("dependencies") || table("build-dependencies");
            if let Some((_, name)) = header.split_once("dependencies.")
                && !header.starts_with("dev-")
            {
                found.push(name.to_owned());
            }
        } else if in_table && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['.', '=', ' ']).unwrap_or(line.len());
            found.extend(line.get(..end).map(str::to_owned));
        }
    }
    found
}

/// The source without comments and the contents of its string literals.
fn code(source: &str) -> String {
    let source = source.replace("'\"'", "").replace("'\\\"'", "");
    let mut code = String::new();
    let mut in_text = false;
    let mut in_comment = false;
    let mut characters = source.chars().peekable();
    while let Some(character) = characters.next() {
        let comment_begins = character == '/' && characters.peek() == Some(&'/');
        match character {
            '\n' => (in_comment, _) = (false, code.push('\n')),
            _ if in_comment => {}
            '\\' if in_text => _ = characters.next(),
            '"' => in_text = !in_text,
            _ if in_text => {}
            _ if comment_begins => in_comment = true,
            _ => code.push(character),
        }
    }
    code
}

/// The forbidden words in a source; a suffix of a number counts as a word.
fn forbidden(source: &str) -> Vec<&'static str> {
    let code: String = code(source);
    let tokens: Vec<&str> = code
        .split(|character: char| !character.is_alphanumeric() && character != '_')
        .filter(|token| !token.is_empty())
        .collect();
    let spaceless: String = code.split_whitespace().collect();
    let stands = |word: &&str| {
        let number = |token: &&str| token.starts_with(|first: char| first.is_ascii_digit());
        spaceless.contains(word) && word.contains("::")
            || tokens.iter().any(|token| token == word || number(token) && token.ends_with(*word))
    };
    FORBIDDEN.into_iter().filter(stands).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = file.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_core_depends_on_nothing_but_its_error_macro() {
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).unwrap();
    assert_eq!(dependencies(&manifest), ["thiserror"]);
}

#[test]
fn no_source_of_the_core_uses_floats_clocks_threads_randomness_or_formats() {
    let sources = sources(&crate_dir().join("src"));
    assert!(sources.iter().any(|path| path.ends_with("src/book.rs")), "{sources:?}");
    for path in sources {
        let source = fs::read_to_string(&path).unwrap();
        assert_eq!(forbidden(&source), [""; 0], "{}", path.display());
    }
}

#[test]
fn every_form_of_a_dependency_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# why\na.workspace = true\nb = \"1\"\n\
        [dependencies.c]\nversion = \"1\"\n[dev-dependencies]\nd = \"1\"\n[dev-dependencies.e]\n\
        version = \"1\"\n[target.'cfg(unix)'.dependencies]\nf = { version = \"1\" }\n\
        [build-dependencies]\ng = \"1\"\n[lints]\nworkspace = true\n";
    assert_eq!(dependencies(manifest), ["a", "b", "c", "f", "g"]);
}

#[test]
fn words_are_found_in_code_and_not_in_comments_or_strings() {
    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        assert_eq!(forbidden(source), expected, "{source}");
    }
    check("fn f(x: f64) {}", &["f64"]);
    check("let x = 1.5f32;", &["f32"]);
    check("use std :: time :: Instant;", &["Instant", "std::time"]);
    check("std::thread::spawn(f)", &["thread"]);
    check("let quote = '\"'; rand::random()", &["rand"]);
    check("let text = \"a \\\" thread\"; // thread", &[]);
    check("/// An Instant, f64.\nlet instant_of_threads = operand;", &[]);
    check("\"http://\" ; serde", &["serde"]);
}
